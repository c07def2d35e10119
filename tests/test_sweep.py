"""A sweep over rows of a very small model: what is missing runs, what fails is told, whatever launches the jobs."""

import random
import shutil

import pytest
import yaml
from omegaconf import OmegaConf
from tiny_run import composed, environment, run_here, words

from mpq import conf, settings
from mpq.conf import CONF, REPOSITORY
from mpq.errors import UserError
from mpq.files import TakenError
from mpq.record.run_folder import load_records
from mpq.report.tables.planned import Row, planned, tables
from mpq.sweep import _settled, run_row, sweep, unfinished

MODEL = "tiny_wav2vec2"
SWEEP = REPOSITORY / "scripts" / "sweep.py"


def row(recipe, bits, *overrides, seed=0):
    return Row("", MODEL, recipe, bits, seed, overrides)


ROWS = [row("full_precision", 32), row("ptq_rtn", 4), row("uniform", 3), row("ptq_rtn", 9), row("ptq_rtn", 2)]


@pytest.fixture
def common(tmp_path, model_folder, speech_folder):
    """The words for every row: a small model, little speech, no logger."""
    return [
        *words(tmp_path / "records", model_folder, speech_folder, "logger.mode=off")[1:],
        f"hydra.sweep.dir={tmp_path}",
    ]


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_a_failed_row_stops_no_other_and_what_is_done_is_skipped(launcher, common, tmp_path, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    rows = ROWS if launcher == "basic" else ROWS[:1]  # a job imports torch anew: one shows that jobs run
    before, after, failed = sweep(rows, [*common, f"hydra/launcher={launcher}"])
    assert before == []
    assert after == [one for one in rows if one.bits != 9]
    assert len(load_records(tmp_path / "records")) == len(after)
    if launcher == "basic":
        assert [one.row for one in failed] == [ROWS[3]]
        assert "9" in failed[0].reason and failed[0].reason in failed[0].log.read_text()
        assert failed[0].log.name == "failed.log" and "Traceback" in failed[0].log.read_text()
    assert unfinished(rows, common) == [one.row for one in failed]
    before, after, _ = sweep([one for one in rows if one.bits != 9], common)
    assert (before, after) == ([one for one in rows if one.bits != 9], [])


def test_a_record_on_other_recordings_is_not_taken_for_the_row(common, tmp_path, speech_folder):
    data = shutil.copytree(speech_folder, tmp_path / "heard")
    common = [word for word in common if not word.startswith("data.root=")] + [f"data.root={data}"]
    rows = ROWS[:2]
    assert sweep(rows, common)[1] == rows and unfinished(rows, common) == []
    text = next(data.rglob("*.trans.txt"))
    text.write_text(text.read_text().rstrip() + " AGAIN\n")
    for call in (sweep, unfinished):
        with pytest.raises(UserError, match=r"tiny_wav2vec2_fp32_heard/seed0 holds a run on other recordings: .*heard"):
            call(rows, common)
    assert sweep(rows, [*common, "overwrite=true"])[1] == rows and unfinished(rows, common) == []
    shutil.rmtree(data)
    assert unfinished(rows, common) == []  # nothing to compare with, as in a clone without the recordings


def test_the_rows_of_a_table_are_named_as_their_runs_name_themselves():
    names = {}
    for table in tables():
        rows = planned(table, "tiny_hubert")
        assert len({(one.exp, one.seed) for one in rows}) == len(rows)
        for one in rows:
            if one.seed == 0:
                assert names.setdefault(one.shared_words, {}).setdefault(tuple(one.own_words), one.exp) == one.exp
    for shared, named in names.items():  # each once, since composing takes a fifth of a second
        cfg = composed(*shared)
        for own, exp in named.items():
            assert OmegaConf.merge(cfg, OmegaConf.from_dotlist(list(own))).exp == exp


def test_a_scale_or_a_model_may_have_its_own_rows(tmp_path, monkeypatch):
    """A table that borrows rows borrows these; other scales keep the rows for all; a model's come first."""
    shutil.copytree(conf.CONF, tmp_path / "conf")
    path = tmp_path / "conf" / "table" / "compression.yaml"
    content = yaml.safe_load(path.read_text())
    content["systems_at"] = {
        "tiny": [{"recipe": "uniform", "bits": [5, 3], "seeds": [4]}],
        MODEL: [{"recipe": "uniform", "bits": [7], "seeds": [2]}],
    }
    path.write_text(yaml.safe_dump(content))
    others = planned("compression", "hubert_large")
    monkeypatch.setattr(conf, "CONF", tmp_path / "conf")
    for table in ("compression", "significance"):
        rows = planned(table, "tiny_hubert")
        assert [(one.exp, one.seed) for one in rows] == [(f"tiny_hubert_uniform_{bits}bit", 4) for bits in (5, 3)]
        assert [(one.exp, one.seed) for one in planned(table, MODEL)] == [(f"{MODEL}_uniform_7bit", 2)]
    assert planned("compression", "hubert_large") == others and len(others) > 40


def test_settings_for_all_rows_are_in_their_names():
    assert planned("compression", MODEL, ["smoke=true"])[0].exp == f"{MODEL}_fp32_smoke"
    assert planned("compression", MODEL, ["data.root=some/speech"])[-1].exp == f"{MODEL}_3p5bit_a8_dynamic_speech"


def test_a_table_without_systems_is_refused():
    with pytest.raises(UserError, match=r"table=demo lists no systems to run; .* compression"):
        planned("demo", MODEL)


def test_the_command_lists_what_it_would_run(tmp_path, monkeypatch, capfd):
    command = ["table=headline", "model=tiny_hubert", f"root={tmp_path}", "list=true"]
    assert run_here(monkeypatch, *command, script=SWEEP) == 0
    listed = capfd.readouterr().out.splitlines()
    assert len(listed) == len(planned("headline", "tiny_hubert"))
    assert listed[0].startswith("python scripts/run.py model=tiny_hubert recipe=full_precision")
    assert run_here(monkeypatch, *command, "recipe=nothing", script=SWEEP) == 1
    assert (
        capfd.readouterr().err
        == "error: recipe=nothing can't be set for all rows: conf/table/headline.yaml decides it for each\n"
    )


def test_rows_share_what_is_composed_and_are_what_each_would_be_alone():
    rows = dict.fromkeys(row for name in ("compression", "updates") for row in planned(name, MODEL))  # some are in both
    shown = random.Random().sample(list(rows), 8)
    with conf.composing():
        found = _settled(shown, ["root=x", "trainer.accelerator=cpu"])
    alone = [settings.settle(composed(*row.words, "root=x", "trainer.accelerator=cpu")) for row in shown]
    assert [OmegaConf.to_yaml(cfg) for cfg in found.values()] == [OmegaConf.to_yaml(cfg) for cfg in alone]


def test_a_free_form_sweep_goes_on_after_a_failure_and_lists_it(common, tmp_path, monkeypatch, capfd):
    choices = ["recipe=ptq_rtn", "target_bits=9,2", f"root={tmp_path}/records"]
    assert run_here(monkeypatch, "-m", *common, *choices) == 1
    told = capfd.readouterr().err.strip().splitlines()[-1]
    assert "9bit" in told and told.startswith("failed: ") and "failed.log" in told
    assert {record.bits.target for record in load_records(tmp_path / "records")} == {None, 2.0}


def test_on_a_cluster_a_row_gets_one_gpu():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["hydra/launcher=slurm_gpu"], return_hydra_config=True)
    assert cfg.hydra.launcher._target_.endswith("SlurmLauncher")
    assert (cfg.hydra.launcher.gpus_per_node, cfg.hydra.launcher.tasks_per_node) == (1, 1)


def test_a_sweep_leaves_a_row_to_the_process_that_has_it(tmp_path, model_folder, speech_folder, monkeypatch, capsys):
    def taken(_):
        raise TakenError("it is being worked on by process 7")

    monkeypatch.setattr("mpq.pipeline.run", taken)
    run_row(composed(*words(tmp_path / "records", model_folder, speech_folder)))
    assert "left out: it is being worked on by process 7" in capsys.readouterr().out
    assert not (tmp_path / "records").exists()  # no log of a failure
