"""Names that can't be names are refused when the settings are settled, before any work."""

import shlex

import pytest
from hydra import compose
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from mpq import conf, settings
from mpq.checks import check_recipe
from mpq.errors import UserError
from mpq.guard import explain
from mpq.tracking.logger import check as check_logger


def settled(*words):
    settings.register_resolvers()
    with conf.composing():
        return settings.settle(compose("config", ["recipe=full_precision", "model.path=somewhere", *words]))


def refusal(*words):
    with pytest.raises(Exception) as error:
        settled(*words)
    sentence = explain(error.value)
    assert sentence is not None, error.value
    return sentence


@pytest.mark.parametrize("name", ["acme/asr", "'.hidden'", "..", "'a\\b'", "'a\tb'", "x" * 201, "ü" * 101])
def test_a_name_that_no_folder_can_have_is_refused(name):
    assert "model.name" in refusal(f"model.name={name}")


def test_the_whole_name_counts(tmp_path):
    assert settled("data=librispeech", f"data.root={tmp_path / ('a' * 150)}").exp.endswith("a" * 150)
    assert "a folder with a shorter name" in refusal("data=librispeech", f"data.root={tmp_path / ('a' * 199)}")
    assert "the data's name '.data'" in refusal("data=librispeech", f"data.root={tmp_path / '.data'}")


NUMBERS = ("model.name=2024", "data.root=7", "data.train=[001,2024]", "data.test=[2024]", "data.test=[true]")


@pytest.mark.parametrize("word", [*NUMBERS, "root=1", "logger.project=1e3", "cache=false"])
def test_a_name_that_looks_like_a_number_is_refused_with_its_quoting(word):
    said = refusal("data=librispeech", word)
    assert "not as a name" in said
    (quoted,) = shlex.split(said.partition("; write ")[2])
    key = quoted.partition("=")[0]
    value = OmegaConf.select(settled("data=librispeech", quoted), key)
    assert all(isinstance(one, str) for one in ([value] if isinstance(value, str) else value))


@pytest.mark.parametrize("project", ["a/b", "50%", "a:b", "", "x" * 129])
def test_a_project_that_wandb_refuses_is_refused_first(project):
    with pytest.raises(UserError, match=r"logger\.project="):
        check_logger({"mode": "offline", "project": project})
    check_logger({"mode": "off", "project": project})


def test_a_group_is_not_chosen_by_a_number():
    assert "can't be chosen by a number" in refusal("model=7")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["recipe=one_stage_rate", "budget=coded"], "budget=coded is for .* search=rate is in coded bits anyway"),
        (["recipe=size_trained", "target_megabytes=0.36", "budget=coded"], "budget=coded is for recipes that choose"),
        (["recipe=two_stage_gumbel", "trainer.search_updates=-1"], r"recipe\.stages\.precision\.updates=-1 must be"),
        (["recipe=one_stage", "trainer.updates=-1"], r"trainer\.updates=-1 must be a whole number"),
    ],
)
def test_what_is_wrong_is_named_as_it_is_set(words, match):
    settings.register_resolvers()
    with conf.composing():
        cfg = settings.settle(compose("config", words))
    with pytest.raises(UserError, match=match):
        check_recipe(cfg)


def test_a_launcher_that_is_not_installed_is_told_with_its_command():
    for choice, extra in (("ray", "ray"), ("joblib", "cluster")):
        error = MissingConfigException("", f"hydra/launcher/{choice}", ["basic"])
        assert explain(error).endswith(f"is not installed: pip install -e '.[{extra}]'")
    assert explain(MissingConfigException("", "hydra/launcher/rya", ["basic"])).endswith("choose one of basic")
