"""Every config composes, is named by what it is, and makes what it says."""

import random
import re

import pytest
from omegaconf import DictConfig, OmegaConf
from tiny_run import composed

from mpq import settings, stages
from mpq.checks import check_recipe
from mpq.conf import CONF
from mpq.conf import made as made_of
from mpq.errors import UserError
from mpq.models.hub import check_available
from mpq.quant.gptq import Gptq
from mpq.search.base import PrecisionSearch
from mpq.train.machine import Machine
from mpq.train.optimization import Optimization

ROWS = sorted(path.stem for path in (CONF / "exp").glob("*.yaml"))
GROUPS = {group: sorted(p.stem for p in (CONF / group).glob("*.yaml")) for group in ("model", "recipe", "distill")}


def targets(config):
    """Every part of a config that names what it makes."""
    if isinstance(config, DictConfig):
        if "_target_" in config:
            yield config
        for key in config:
            yield from targets(config[key])


def check(cfg):
    """What the pipeline makes of a composed config before it reads anything, and what its parts make."""
    settled = settings.settle(cfg)
    stages.check_target(settled)
    for stage in settled.recipe.stages.values():
        made = Optimization(
            updates=stage.updates,
            workers=settled.data.workers,
            **{
                name: settled.trainer[name]
                for name in Optimization.__dataclass_fields__
                if name not in ("updates", "workers")
            },
        )
        assert made.updates >= 0
    Machine(**{name: settled.trainer[name] for name in Machine.__dataclass_fields__})
    for part in targets(settled):
        values = OmegaConf.to_container(part)
        if values.get("assignment") == "previous":  # what the stage before decides
            values["assignment"] = {"a.weight": 4}
        assert isinstance(made_of(values), (PrecisionSearch, Gptq))
    return settled


@pytest.mark.parametrize("row", ROWS)
def test_a_row_composes_and_its_file_is_named_as_the_run_is(row):
    settled = check(composed(f"+exp={row}"))
    assert settled.exp == row
    assert settled.root == ("checkpoints" if settings.random_weights(settled) else "experiments")
    opening = (CONF / "exp" / f"{row}.yaml").read_text()
    assert opening.startswith("# @package _global_\n#") and f"+exp={row}" in opening


def test_no_argument_is_the_demo():
    settled = check(composed())
    assert (settled.exp, settled.root) == ("tiny_wav2vec2_3p5bit", "experiments/local")


@pytest.mark.parametrize("recipe", GROUPS["recipe"])
def test_any_model_goes_with_any_recipe(recipe):
    for model in random.Random().sample(GROUPS["model"], 2):  # composing takes a quarter of a second
        settled = check(composed(f"model={model}", f"recipe={recipe}", "target_bits=4"))
        infix = OmegaConf.select(settled, "recipe.infix") or ""
        parts = [model, infix] if infix[:4] == "fp32" else [w for w in (model, infix, "4bit") if w]
        assert settled.exp == "_".join(parts)


@pytest.mark.parametrize("distill", GROUPS["distill"])
def test_any_loss_can_be_chosen(distill):
    cfg = composed(f"distill={distill}")
    assert set(cfg.distill) == {"ctc_weight", "kl_weight", "temperature", "keep"}


@pytest.mark.parametrize("path", sorted((CONF / "search").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_search_can_be_made(path):
    values = {**OmegaConf.to_container(OmegaConf.load(path), resolve=False)}
    values = {key: value for key, value in values.items() if not (isinstance(value, str) and "${" in value)}
    if values.get("assignment") == "previous":
        values["assignment"] = {"a.weight": 4}
    assert isinstance(made_of(values), PrecisionSearch)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=hubert_large", "target_bits=3.5"], "hubert_large_3p5bit"),
        (["model=hubert_large", "recipe=uniform", "target_bits=8"], "hubert_large_uniform_8bit"),
        (["recipe=full_precision", "target_bits=2"], "tiny_wav2vec2_fp32"),
        (["smoke=true"], "tiny_wav2vec2_3p5bit_smoke"),
        (["demo=true", "recipe=full_precision"], "tiny_wav2vec2_fp32_demo"),
        (["recipe=uniform", "target_bits=4", "quantizer.activations=static"], "tiny_wav2vec2_uniform_4bit_a8_static"),
        (["recipe=full_precision", "quantizer.activations=dynamic"], "tiny_wav2vec2_fp32"),
        (["data.root=/anywhere/Mini-Speech"], "tiny_wav2vec2_3p5bit_mini_speech"),
        (["model=hubert_large", "data.root=/anywhere/else/LibriSpeech-Small"], "hubert_large_3p5bit_librispeech_small"),
    ],
)
def test_a_run_is_named_by_what_it_is(overrides, name):
    assert settings.settle(composed(*overrides)).exp == name


@pytest.mark.parametrize(
    ("overrides", "scale"),
    [
        (["model=hubert_large", "model.path=/a/copy/of/it"], "paper"),
        (["model.path=/a/model", "model.name=mine"], "own"),
        (["model.path=/a/model"], "own"),
        (["model=tiny_hubert"], "tiny"),
        (["model=whisper_tiny_en", "model.path=/where/it/was/saved"], "real"),
        (["model=wav2vec2_base", "model.path=/a/model", "model.name=mine"], "own"),
    ],
)
def test_a_model_that_has_no_file_in_conf_has_a_scale_of_its_own(overrides, scale):
    assert settings.settle(composed(*overrides)).model.scale == scale


def test_the_baseline_is_the_full_precision_row_itself():
    """Whatever is compressed, its baseline has the settings that `recipe=full_precision` has."""
    from mpq.record.identity import differences

    direct = settings.settle(composed("recipe=full_precision"))
    changes = ["target_bits=4", "seed=3", "trainer.updates=7", "distill=kl", "quantizer.granularity=per_channel"]
    baseline = settings.full_precision(settings.settle(composed(*changes)))
    assert baseline.exp == direct.exp
    assert differences(OmegaConf.to_container(baseline), OmegaConf.to_container(direct)) == []
    sized = settings.settle(composed("recipe=ptq_rtn_size", "target_megabytes=0.3"))
    assert settings.full_precision(sized).target_megabytes is None  # which its record would state


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recipe=ptq_rtn_size"], "needs target_megabytes=MB"),
        (["recipe=one_stage", "target_megabytes=0.3"], "recipe=one_stage takes target_bits"),
        (["recipe=size_trained", "target_megabytes=-1"], "must be a number of megabytes above 0"),
        (["recipe=size_trained", "target_megabytes=0.3", "coding=none"], "coding=none must be coding=zstd"),
        (
            ["recipe=size_trained", "target_megabytes=0.3", "recipe.stages.train.start_from=teacher"],
            "must have search=rate and start_from=previous",
        ),
        (
            ["recipe=size_norms", "target_megabytes=0.3", "recipe.stages.norms.trained=biases"],
            r"recipe\.stages\.norms\.trained=biases must be one of all, vectors",
        ),
        (
            ["recipe=size_norms", "target_megabytes=0.3", "+recipe.stages.round.trained=vectors"],
            r"recipe\.stages\.round\.trained=vectors must be all: only the last stage",
        ),
        (
            ["recipe=size_norms", "target_megabytes=0.3", "trainer.norm_learning_rate=-1"],
            r"norms\.learning_rate=-1 must be",
        ),
    ],
)
def test_a_size_that_a_recipe_cannot_be_made_for_is_refused(words, told):
    with pytest.raises(UserError, match=told):
        check_recipe(settings.settle(composed(*words)))


def test_a_checkpoint_of_ours_that_is_not_made_yet_is_told_with_the_command_that_makes_it():
    path = "no/such/tiny_wav2vec2_fp32/seed0/model"
    with pytest.raises(UserError, match="does not exist yet: train it with") as told:
        check_available(path)
    (command,) = re.findall("`python scripts/run.py (.*)`", str(told.value))
    made = check(composed(*command.split()))
    assert f"{made.root}/{made.exp}/seed{made.seed}/model" == path and settings.random_weights(made)
    assert made.trainer.updates > 5000  # those of training from scratch
    with pytest.raises(UserError, match="recipe=from_scratch seed=3 root=a/b`"):
        check_available("a/b/tiny_hubert_fp32/seed3/model")
    with pytest.raises(UserError, match=r"with `python scripts/run.py \+exp=hubert_large_100h_fp32`"):
        check_available("checkpoints/hubert_large_100h_fp32/seed0/model")
    for name in ("hubert_large", "whisper_tiny_en"):  # nobody trains these here
        with pytest.raises(UserError, match="there is no folder a"):
            check_available(f"a/{name}_fp32/seed0/model")
