"""What tests of several rooms share: made-up speech, a very small model, one thread, and the order of the files."""

import multiprocessing
import os

import numpy as np
import pytest
import yaml
from tiny_speech import ARCHITECTURE, write_speech

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # of this process, where torch is not imported yet, and of all that tests start
# Of this process alone: the parser in C, since Hydra reads some twenty files for each config.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# One server forks all processes that tests start, so it imports once what they need.
multiprocessing.set_forkserver_preload(["mpq.pipeline", "transformers.models.wav2vec2.modeling_wav2vec2", "hydra"])

# By time, since workers take whole files in this order: a long one at the end would keep one of them waiting.
LONGEST_FIRST = (
    "pipeline/test_kill_and_resume.py",
    "test_sweep.py",
    "deploy/test_onnx_export.py",
    "deploy/test_onnx_whisper.py",
    "quant/test_compiled.py",
    "test_settings.py",
    "compress/test_every_class.py",
    "pipeline/test_pipeline.py",
    "pipeline/test_hub_folders.py",
    "pipeline/test_commands.py",
    "search/test_recipes.py",
    "notebooks/test_notebooks.py",
    "bench/test_inference.py",
    "deploy/test_slices.py",
    "train/test_processes.py",
    "train/test_module.py",
    "deploy/test_saturation.py",
    "train/test_activation_stages.py",
    "train/test_post_training.py",
    "compress/test_rebudget_script.py",
    "compress/test_quantize_script.py",
    "bench/test_train.py",
    "checkpoint/test_families.py",
    "train/test_stage.py",
)


def pytest_collection_modifyitems(items):
    """Put the files of LONGEST_FIRST first; all others and the tests of a file stay in order."""
    tests = os.path.dirname(__file__)
    rank = {os.path.join(tests, *name.split("/")): number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(str(item.path), len(rank)))


@pytest.fixture(autouse=True)
def one_thread():
    """More would only wait for one another where tests run side by side; whatever a test before has chosen."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """Twelve utterances to train on and four to evaluate."""
    root = tmp_path_factory.mktemp("speech") / "Mini-Speech"
    return write_speech(root, {"train": 12, "clean": 4}, np.random.default_rng())


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A random model that transformers saved, with its processor."""
    from mpq.models import loading

    folder = tmp_path_factory.mktemp("model") / "smallest"
    model, processor = loading.from_scratch(ARCHITECTURE, seed=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
