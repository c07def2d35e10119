import pytest
from omegaconf import OmegaConf

from mpq.errors import UserError
from mpq.record.run_folder import RunFolder


def config(**changes):
    values = {
        "exp": "tiny_3p5bit",
        "seed": 0,
        "root": "here",
        "cache": "there",
        "overwrite": False,
        "logger": {"mode": "auto"},
        "target_bits": 3.5,
        "quantizer": {"centred": True},
        "distill": {"kl_weight": 1.0},
        "data": {"root": None, "test": ["test-clean"], "workers": 0},
        "trainer": {"updates": 10, "threads": 0, "accelerator": "auto"},
        "recipe": {"name": "one_stage", "stages": {"one_stage": {"updates": 10}}},
    }
    cfg = OmegaConf.create(values)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


class Record:
    """Stands for a result; what a record holds is tested elsewhere."""

    def to_json(self):
        return "{}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("mpq.record.run_folder.from_json", lambda text, source: "the record")
    return RunFolder(tmp_path / "records", "tiny_3p5bit", 0)


def finish(folder, cfg):
    folder.begin(cfg)
    folder.model.mkdir()
    (folder.model / "config.json").write_text("{}")
    folder.end(Record())


def test_looking_writes_nothing(folder, tmp_path):
    assert folder.finished(config()) is None
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_found_as_long_as_its_model_is_there(folder):
    finish(folder, config())
    assert folder.finished(config()) == "the record"
    assert not folder.work.exists()
    (folder.model / "config.json").unlink()
    folder.model.rmdir()
    assert folder.finished(config()) is None


def test_what_a_process_left_that_was_killed_at_its_end_is_dropped_or_not_gone_on_with(folder):
    finish(folder, config())
    (folder.work / "one_stage").mkdir(parents=True)
    assert folder.finished(config(), "record") and folder.work.is_dir()
    assert folder.finished(config()) and not folder.work.exists()
    (folder.work / "one_stage").mkdir(parents=True)
    (folder.model / "config.json").unlink()
    folder.model.rmdir()  # as in a clone
    folder.begin(config())
    assert not list(folder.work.iterdir())


def test_places_and_the_machine_may_differ(folder):
    finish(folder, config())
    other = {"root": "x", "cache": "x", "logger": {"mode": "off"}, "data__workers": 4, "trainer__threads": 2}
    assert folder.finished(config(**other, trainer__accelerator="cpu", trainer__compile=True)) == "the record"


def test_what_differs_is_named_and_counted(folder):
    finish(folder, config())
    changes = {"target_bits": 4, "quantizer__centred": False, "trainer__updates": 20, "data__root": "x", "seed": 1}
    with pytest.raises(UserError) as refused:
        folder.finished(config(**changes))
    told = str(refused.value)
    assert "data.root: None -> x; quantizer.centred: True -> False; seed: 0 -> 1 and 2 more" in told
    assert "overwrite=true" in told and "root=FOLDER" in told


def test_a_list_a_missing_and_a_new_setting_differ_too(folder):
    finish(folder, config())
    with pytest.raises(UserError, match=r"data.test: \['test-clean'\] -> \['test-other'\]"):
        folder.finished(config(data__test=["test-other"]))
    with pytest.raises(UserError, match=r"distill\.temperature: 1\.0 -> 2\.0"):
        folder.finished(config(distill__temperature=2.0))


def test_float_activations_are_what_older_records_meant(folder):
    finish(folder, config())
    floats = {"quantizer__activations": "none", "quantizer__activation_percentile": 99.9}
    assert folder.finished(config(**floats)) == "the record"
    with pytest.raises(UserError, match=r"quantizer\.activations: none -> static"):
        folder.finished(config(**floats | {"quantizer__activations": "static"}))


def test_without_a_stage_the_settings_of_training_are_no_difference(folder):
    baseline = {"recipe": OmegaConf.create({"name": "full_precision", "stages": None})}
    cfg = config()
    cfg.recipe = baseline["recipe"]
    finish(folder, cfg)
    other = config(target_bits=2, quantizer__centred=False, trainer__updates=99, distill__kl_weight=0.0)
    other.recipe = baseline["recipe"]
    assert folder.finished(other) == "the record"
    other.data.test = ["test-other"]
    with pytest.raises(UserError, match=r"data\.test"):
        folder.finished(other)


def test_an_unfinished_run_keeps_its_work_and_loses_what_was_half_written(folder):
    folder.begin(config())
    (folder.work / "one_stage").mkdir()
    (folder.work / "one_stage" / "last.safetensors").write_text("weights")
    (folder.path / ".model.123.partial").mkdir()
    (folder.path / ".config.yaml.123.partial").write_text("x")
    (folder.work / ".ledger.json.123.partial").write_text("x")
    assert folder.finished(config()) is None
    folder.begin(config())
    assert (folder.work / "one_stage" / "last.safetensors").read_text() == "weights"
    assert not list(folder.path.rglob(".*"))


def test_overwriting_starts_anew_but_an_interrupted_overwriting_goes_on(folder):
    finish(folder, config())
    overwriting = config(overwrite=True, trainer__updates=20)
    assert folder.finished(overwriting) is None
    folder.begin(overwriting)
    assert not folder.model.exists() and not folder.result.exists()
    (folder.work / "last.safetensors").write_text("weights")
    folder.begin(overwriting)
    assert (folder.work / "last.safetensors").exists()
    folder.begin(config(overwrite=True, trainer__updates=30))
    assert not (folder.work / "last.safetensors").exists()


def test_a_run_that_begins_again_has_no_result_until_it_ends(folder):
    finish(folder, config())
    folder.begin(config())
    assert not folder.result.exists()


def test_a_damaged_config_is_told(folder):
    finish(folder, config())
    for text in ("a: [", "- 1", ""):
        (folder.path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="other settings"):
            folder.finished(config())
