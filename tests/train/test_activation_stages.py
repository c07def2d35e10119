"""Quantized activations in every system, from the config to the model read back from its file."""

import copy

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny_speech import speech_of
from tiny_stage import load

from mpq import settings
from mpq.checkpoint import packed as model_folder_of
from mpq.conf import CONF
from mpq.data.corpus import Corpus
from mpq.models.processor import letters_processor
from mpq.quant.activations import activation_quantizers_of
from mpq.train.recipe import run_recipe

SMALL = (
    "model=tiny_wav2vec2",
    "target_bits=4",
    "trainer.updates=4",
    "trainer.search_updates=2",
    "trainer.interval=2",
    "trainer.calibration_utterances=3",
    "trainer.audio_seconds=2",
    "trainer.threads=1",
)


@pytest.fixture
def compress(model_folder, speech_folder, tmp_path):
    teacher, dataset = load(model_folder, speech_folder)
    corpus = Corpus("Mini-Speech", "", dataset.utterances, {}, [])

    def run(recipe, kind):
        settings.register_resolvers()
        with initialize_config_dir(str(CONF), version_base=None):
            overrides = [*SMALL, f"recipe={recipe}", f"quantizer.activations={kind}"]
            cfg = settings.settle(compose("config", overrides))
        made = run_recipe(cfg, speech_of(copy.deepcopy(teacher)), corpus, tmp_path / recipe, False)
        assert cfg.exp.endswith(f"_a8_{kind}")
        return made

    return run


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("recipe", ["uniform", "one_stage", "one_stage_pass2", "two_stage_kl", "ptq_gptq"])
def test_every_system(compress, recipe, kind, tmp_path):
    model, _, ledger = compress(recipe, kind)
    quantizers = activation_quantizers_of(model)
    assert len(quantizers) == 14  # twelve of the encoder, the feature projection, the head
    assert all((quantizer.log_scales is None) == (kind == "dynamic") for quantizer in quantizers.values())
    assert all(stage.audio_seconds > 0 for stage in ledger.time().stages)
    model_folder_of.save_model(tmp_path / "model", model, letters_processor())
    loaded, _ = model_folder_of.load_model(tmp_path / "model")
    inputs = torch.randn(2, 8_000)
    with torch.no_grad():
        assert torch.equal(loaded(inputs).logits, model.eval()(inputs).logits)


def test_a_resumed_run_has_the_scales_that_training_left(compress):
    first, _, ledger = compress("uniform", "static")
    again, _, second = compress("uniform", "static")
    assert first is not again and second.time() == ledger.time()
    one, two = activation_quantizers_of(first), activation_quantizers_of(again)
    assert all(torch.equal(one[name].log_scales, two[name].log_scales) for name in one)
    untrained, _, _ = compress("ptq_rtn", "static")
    start = activation_quantizers_of(untrained)
    # They were learned; in so small a model the gradient of one or another can vanish, so not each of them has moved.
    assert any(not torch.equal(one[name].log_scales, start[name].log_scales) for name in one)
