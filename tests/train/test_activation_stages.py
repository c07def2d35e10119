"""Quantized activations in every system, from the config to the model read back from its file."""

import copy
import pkgutil

import numpy as np
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
from mpq.record.ledger import Ledger
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

    def run(recipe, kind, *more):
        settings.register_resolvers()
        with initialize_config_dir(str(CONF), version_base=None):
            overrides = [*SMALL, f"recipe={recipe}", f"quantizer.activations={kind}", *more]
            cfg = settings.settle(compose("config", overrides))
        folder = tmp_path / "_".join([recipe, kind, *more])
        made = run_recipe(cfg, speech_of(copy.deepcopy(teacher)), corpus, folder, False)
        assert cfg.exp.endswith("4bit" if kind == "none" else f"_a8_{kind}")
        return made

    run.utterances = dataset.utterances
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


@pytest.mark.parametrize(("percentile", "passes"), [(99.9, 2), (100, 1)])
@pytest.mark.parametrize("recipe", ["ptq_rtn", "ptq_gptq_kl"])  # alone, and beside what the search and GPTQ hear
def test_the_audio_that_static_scales_hear_is_counted(compress, recipe, percentile, passes):
    drawn = np.random.default_rng(5).permutation(len(compress.utterances))[:3]  # by the run's seed
    once = sum(compress.utterances[k].seconds for k in drawn)
    plain, static = (
        compress(recipe, kind, "seed=5", f"quantizer.activation_percentile={percentile}")[-1]
        .time()
        .stages[0]
        .audio_seconds
        for kind in ("none", "static")
    )
    assert static - plain == pytest.approx(passes * once) and (plain > 0) == (recipe != "ptq_rtn")


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        ("ptq_gptq_kl", ["stage.draw_batches", "stage.attach", "kl.measure", "static_scales", "gptq.calibrate"]),
        ("one_stage", ["stage.draw_batches", "stage.attach", "static_scales", "stage.fit"]),
    ],
)
def test_everything_that_a_stage_does_is_timed(compress, monkeypatch, recipe, parts):
    """On a clock that only these parts move, all of whose seconds must be in the ledger."""
    now, seen = [0.0], []
    places = {
        "static_scales": "mpq.quant.activation_scales.static_scales",
        "kl.measure": "mpq.search.measured.MeasuredSearch.measure",
        "gptq.calibrate": "mpq.quant.gptq.Gptq.calibrate",
    }

    def slowed(part, function):
        def run(*args, **kwargs):
            now[0] += 100.0
            seen.append(part)
            return function(*args, **kwargs)

        return run

    for part in parts:
        path = places.get(part, f"mpq.train.{part}")
        monkeypatch.setattr(path, slowed(part, pkgutil.resolve_name(path)))
    monkeypatch.setattr("mpq.train.recipe.Ledger", lambda: Ledger(lambda: now[0], lambda: now[0]))
    (stage,) = compress(recipe, "static")[-1].time().stages
    assert set(seen) == set(parts)
    assert stage.seconds == stage.processor_seconds == 100.0 * len(seen)
