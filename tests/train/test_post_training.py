"""The post-training recipes of conf/recipe, from their config to the quantized model."""

import copy
import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny_speech import speech_of
from tiny_stage import load

from mpq import settings, stages
from mpq.conf import CONF
from mpq.data.corpus import Corpus
from mpq.errors import UserError
from mpq.quant.scales import starting_scale
from mpq.quant.sites import find_sites, quantizers_of
from mpq.search.assignment import average_bits
from mpq.train.recipe import run_recipe

SMALL = ("model=tiny_wav2vec2", "trainer.calibration_utterances=3", "trainer.audio_seconds=2", "trainer.threads=1")


@pytest.fixture
def compress(model_folder, speech_folder, tmp_path):
    """Run a recipe on the smallest model; the teacher must come out as it went in."""
    teacher, dataset = load(model_folder, speech_folder)
    corpus = Corpus("Mini-Speech", "", dataset.utterances, {}, [])

    def run(recipe, *overrides, folder="run"):
        settings.register_resolvers()
        with initialize_config_dir(str(CONF), version_base=None):
            cfg = settings.settle(compose("config", [*SMALL, f"recipe={recipe}", *overrides]))
        stages.check_target(cfg)
        before = copy.deepcopy(teacher.state_dict())
        made = run_recipe(cfg, speech_of(teacher), corpus, tmp_path / folder, False)
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        return cfg, teacher, *made

    return run


@pytest.mark.parametrize("clipping", ["mse", "minmax", "percentile", "entropy"])
def test_round_to_nearest_is_the_teacher_on_the_chosen_scales(compress, clipping):
    arguments = ("target_bits=4", f"quantizer.clipping={clipping}", "quantizer.granularity=per_channel")
    cfg, teacher, model, assignment, ledger = compress("ptq_rtn", *arguments)
    assert cfg.exp == f"tiny_wav2vec2_ptq_rtn_{clipping}_4bit"
    assert set(assignment.values()) == {4}
    for name, quantizer in quantizers_of(model).items():
        module, _, leaf = name.rpartition(".")
        weight = model.get_submodule(module).parametrizations[leaf].original
        if "pos_conv" not in name:  # whose weight norm is folded
            assert torch.equal(weight, teacher.get_parameter(name))
        scale = starting_scale(weight, quantizer.grids[0], "per_channel", clipping)
        torch.testing.assert_close(quantizer.scale(quantizer.bits), scale)
    (stage,) = ledger.time().stages
    assert (stage.name, stage.updates, stage.audio_seconds) == ("round", 0, 0)


@pytest.mark.parametrize(
    ("recipe", "bits"), [("ptq_gptq", 2), ("ptq_gptq", 4), ("ptq_gptq_kl", 3.5), ("ptq_gptq_hessian", 2.5)]
)
def test_gptq_fits_the_weights_without_an_update(compress, tmp_path, recipe, bits):
    cfg, _, model, assignment, ledger = compress(recipe, f"target_bits={bits}")
    assert cfg.exp == f"tiny_wav2vec2_{recipe}_{bits:g}bit".replace(".", "p")
    average = average_bits(assignment, [site for site in find_sites(model) if site.searched])
    assert average == bits if recipe == "ptq_gptq" else bits - 0.5 < average <= bits
    for name in assignment:
        module = model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(module.weight, module.parametrizations.weight.original)
    (stage,) = ledger.time().stages
    assert stage.updates == 0 and stage.audio_seconds > 0
    # Killed after this stage and started again: the same model, and no second charge.
    _, _, again, _, second = compress(recipe, f"target_bits={bits}")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert second.time() == ledger.time()
    assert json.loads((tmp_path / "run" / "round" / "bits.json").read_text()) is not None


def test_measuring_precisions_is_charged_beside_gptq(compress):
    heard = [
        compress(recipe, "target_bits=4", folder=recipe)[-1].time().stages[0].audio_seconds
        for recipe in ("ptq_gptq", "ptq_gptq_kl")
    ]
    assert heard[1] > heard[0] > 0


def test_gptq_without_quantizers_is_refused(compress):
    with pytest.raises(UserError, match=r"recipe.stages.round.calibrate .* must have a search"):
        compress("ptq_gptq", "target_bits=4", "recipe.stages.round.search=null")
