"""A finished run stays finished while code moves and settings are added or retired."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mpq import conf, settings
from mpq.record import identity
from mpq.record.identity import differences, recorded
from mpq.record.run_folder import RunFolder, _with_what
from mpq.report.tables.planned import planned
from mpq.sweep import unfinished

EXPERIMENTS = conf.REPOSITORY / "experiments"
RUNS = sorted(EXPERIMENTS.glob("tiny_*/seed*/config.yaml"))


def composed(*words):
    from hydra import compose

    settings.register_resolvers()
    with conf.composing():
        return settings.settle(compose("config", list(words)))


def tracked(run):
    return OmegaConf.to_container(OmegaConf.load(EXPERIMENTS / run / "seed0" / "config.yaml"))


@pytest.fixture
def own_conf(tmp_path, monkeypatch):
    """A copy of conf/ to change."""
    folder = tmp_path / "conf"
    shutil.copytree(conf.CONF, folder)
    monkeypatch.setattr("mpq.conf.CONF", folder)
    return folder


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


ONE_STAGE = ("model=tiny_wav2vec2", "target_bits=3.5", "trainer.threads=1")


@pytest.mark.parametrize(
    ("run", "recipe"),
    [
        ("tiny_wav2vec2_3p5bit", "one_stage"),
        ("tiny_wav2vec2_two_stage_kl_3p5bit", "two_stage_kl"),
        ("tiny_wav2vec2_ptq_gptq_hessian_3p5bit", "ptq_gptq_hessian"),
    ],
)
def test_a_tracked_record_is_this_run_and_not_another(run, recipe):
    assert differences(tracked(run), recorded(composed(*ONE_STAGE, f"recipe={recipe}"))) == []
    other = recorded(composed(*ONE_STAGE, f"recipe={recipe}", "trainer.learning_rate=3e-4"))
    assert differences(tracked(run), other) == ["trainer.learning_rate: 0.0002 -> 0.0003"]


def test_a_baseline_is_the_same_whatever_is_searched():
    for recipe, told in (("full_precision", []), ("one_stage", ["model.searched: *encoder.layers.* -> *"])):
        before, after = (recorded(composed(f"recipe={recipe}", *words)) for words in ((), ("model.searched='*'",)))
        assert differences(before, after) == told


def test_every_tracked_row_of_the_tables_is_found_finished():
    words = [f"root={EXPERIMENTS}"]
    rows = [row for model in ("tiny_wav2vec2", "tiny_hubert") for row in planned("compression", model)[::9]]
    assert len(rows) > 5 and unfinished(rows, words) == []


def test_what_is_recorded_names_no_class():
    kept = recorded(composed(*ONE_STAGE, "recipe=ptq_gptq_kl"))
    stage = kept["recipe"]["stages"]["round"]
    assert stage["search"]["name"] == "kl" and stage["calibrate"]["name"] == "gptq"
    assert "_target_" not in str(kept)


def test_a_class_may_move(own_conf, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("from mpq.search.gumbel import GumbelSearch\n")
    monkeypatch.syspath_prepend(tmp_path)
    change(own_conf / "search" / "gumbel.yaml", "mpq.search.gumbel.GumbelSearch", "elsewhere.GumbelSearch")
    cfg = composed(*ONE_STAGE)
    assert cfg.recipe.stages.one_stage.search._target_ == "elsewhere.GumbelSearch"
    assert differences(tracked("tiny_wav2vec2_3p5bit"), recorded(cfg)) == []


def test_another_class_is_another_run_whatever_name_stands_beside_it():
    stage = "recipe.stages.estimate.search"
    cfg = composed(
        *ONE_STAGE, "recipe=two_stage_kl", f"~{stage}", f"+{stage}._target_=mpq.search.uniform.UniformSearch"
    )
    found = differences(tracked("tiny_wav2vec2_two_stage_kl_3p5bit"), recorded(cfg))
    assert f"{stage}.name: fixed -> uniform" in found


@pytest.mark.parametrize(("group", "file"), [("distill", "ctc_kl"), ("trainer", "tiny"), ("quantizer", "lsq")])
def test_a_new_setting_leaves_records_valid_at_its_default_alone(own_conf, group, file):
    path = own_conf / group / f"{file}.yaml"
    path.write_text(path.read_text() + "novelty: 0.25\n")
    before = tracked("tiny_wav2vec2_3p5bit")
    assert differences(before, recorded(composed(*ONE_STAGE))) == []
    changed = recorded(composed(*ONE_STAGE, f"{group}.novelty=0.5"))
    assert differences(before, changed) == [f"{group}.novelty: 0.25 -> 0.5"]


def test_a_new_setting_of_a_search_leaves_records_valid_at_its_default_alone(own_conf):
    path = own_conf / "search" / "kl.yaml"
    path.write_text(path.read_text() + "novelty: 7\n")
    before = tracked("tiny_wav2vec2_two_stage_kl_3p5bit")
    after = recorded(composed(*ONE_STAGE, "recipe=two_stage_kl"))
    assert differences(before, after) == []
    after["recipe"]["stages"]["precision"]["search"]["novelty"] = 8
    assert differences(before, after) == ["recipe.stages.precision.search.novelty: 7 -> 8"]


def test_a_retired_setting_counts_where_it_did_something(monkeypatch):
    monkeypatch.setitem(identity._RETIRED, "gumbel.spice", "0.0")
    before, after = tracked("tiny_wav2vec2_3p5bit"), recorded(composed(*ONE_STAGE))
    search = before["recipe"]["stages"]["one_stage"]["search"]
    search["spice"] = 0.0
    assert differences(before, after) == []
    search["spice"] = 0.3
    assert differences(before, after) == ["recipe.stages.one_stage.search.spice: 0.3 -> None"]


def test_every_tracked_config_is_read(tmp_path):
    assert len(RUNS) > 80
    for path in RUNS:
        config = OmegaConf.to_container(OmegaConf.load(path))
        assert differences(config, config) == []
        folder = RunFolder(EXPERIMENTS, path.parts[-3], int(path.parts[-2].removeprefix("seed")))
        assert Path(folder.path / "config.yaml") == path


def test_the_coding_of_the_file_makes_no_other_run():
    """Tracked records know no coding, and packed and coded files hold the same weights."""
    for coding in ("zstd", "none"):
        now = recorded(composed(*ONE_STAGE, f"coding={coding}"))
        assert "coding" not in now and differences(tracked("tiny_wav2vec2_3p5bit"), now) == []


def test_another_choice_of_recordings_is_told_as_that():
    both = ["data.hash: 1234567890 -> abcdefabcd", "data.test: ['test'] -> ['train']"]
    assert _with_what(both, "LIB") == "with other settings (data.test: ['test'] -> ['train'])"
    assert _with_what(both[:1], "LIB") == "on other recordings: LIB has changed since (hash 12345678 -> abcdefab)"
