"""A recipe of conf/recipe, run on a tiny random model and random audio."""

import copy

import noise_speech
import numpy as np
import torch
from hydra import compose, initialize_config_dir

from mpq import settings, stages
from mpq.conf import CONF
from mpq.data.corpus import Corpus
from mpq.models.ctc import CtcModel
from mpq.quant.sites import find_sites
from mpq.train.module import TrainingModule
from mpq.train.recipe import run_recipe

SMALL = [
    "model=tiny_wav2vec2",
    "trainer.updates=4",
    "trainer.search_updates=3",
    "trainer.calibration_utterances=2",
    "trainer.interval=2",
    "trainer.audio_seconds=1.5",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
]


class Experiment:
    """One teacher and corpus; `run` makes a recipe's model in a folder."""

    def __init__(self, folder, layers=2, width=16):
        self.folder, seed = folder, int(np.random.default_rng().integers(2**31))
        print("seed:", seed)
        dataset = noise_speech.dataset(folder / "audio", 6, seed)
        self.processor = dataset.reader.processor
        self.corpus = Corpus("noise", "", dataset.utterances, {}, [])
        self.teacher = noise_speech.model(seed, layers, width)

    def run(self, name, *overrides):
        settings.register_resolvers()
        with initialize_config_dir(str(CONF), version_base=None):
            cfg = settings.settle(compose("config", [*SMALL, *overrides]))
        stages.check_target(cfg)
        teacher = copy.deepcopy(self.teacher)
        made = run_recipe(cfg, CtcModel(teacher, self.processor), self.corpus, self.folder / name, False)
        assert all(torch.equal(v, self.teacher.state_dict()[k]) for k, v in teacher.state_dict().items())
        return made


def searched(model):
    return [site for site in find_sites(model) if site.searched]


def kill_at(monkeypatch, stage, update):
    """Let the training of `stage`, the first or the second, fail before `update`."""
    step, seen = TrainingModule.training_step, []

    def failing(self, batch, batch_idx):
        if self not in seen:
            seen.append(self)
        if len(seen) == stage and self.global_step == update:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", failing)
