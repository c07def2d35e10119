"""An option that has no effect in this call says so, and the call goes on; one that can't be had is refused."""

import shutil

import numpy as np
import pytest
import soundfile
from tiny_run import composed, run_here, words

from mpq import checks
from mpq.conf import REPOSITORY


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(monkeypatch, caplog, script, *command):
    """The status of the script, and its warnings about options without effect."""
    caplog.clear()
    status = run_here(monkeypatch, *map(str, command), script=REPOSITORY / "scripts" / f"{script}.py")
    return status, [line.partition("= has no effect here: ")[::2] for line in caplog.messages if "no effect" in line]


def test_compressing(monkeypatch, caplog, model_folder, speech_folder, here):
    recordings = here / "recordings"
    shutil.copytree(speech_folder, recordings, ignore=shutil.ignore_patterns("*.txt"))
    command = [f"model={model_folder}", "bits=4"]
    status, told = said(monkeypatch, caplog, "quantize", *command, "updates=5", "root=records")
    assert status == 0 and [name for name, _ in told] == ["updates", "root"] and "does not train" in told[0][1]
    command += [f"data={recordings}", "overwrite=true"]
    for method in ("round", "gptq"):  # the one compares its texts on them, the other hears them, too
        assert said(monkeypatch, caplog, "quantize", *command, f"method={method}") == (0, [])


def test_a_setting_of_a_run_is_taken_and_anything_else_refused(monkeypatch, capsys, model_folder):
    script = REPOSITORY / "scripts" / "quantize.py"
    for word, sentence in (
        (
            "modle=x",
            "there is no argument 'modle=x'; --help lists the arguments, and the settings of scripts/run.py are",
        ),
        ("trainer=paper", "trainer=paper must be a single setting"),
        ("+trainer.x=1", "there is no argument '+trainer.x=1'"),
        ("trainer.x=1", "there is no setting trainer.x; trainer has"),
        ("word", "'word' can't be read: settings are written key=value"),
    ):
        assert run_here(monkeypatch, f"model={model_folder}", word, script=script) == 1
        assert f"error: {sentence}" in capsys.readouterr().err


def test_reading_and_preparing(monkeypatch, caplog, capsys, here):
    records, one = here / "records", "tiny_wav2vec2_fp32"
    shutil.copytree(REPOSITORY / "experiments" / one, records / one)
    assert said(monkeypatch, caplog, "tables", f"root={records}", "table=significance", "scale=paper") == (0, [])
    status, told = said(monkeypatch, caplog, "tables", f"root={records}", "table=records", "scale=paper")
    assert status == 0 and [name for name, _ in told] == ["scale"]
    status, told = said(monkeypatch, caplog, "prepare", "librispeech", "splits=a", "cache=b")
    assert status == 1 and [name for name, _ in told] == ["cache"]  # the unknown split is the error
    assert "LibriSpeech has no split 'a'" in capsys.readouterr().err


def test_a_run_without_stages(monkeypatch, caplog, model_folder, speech_folder, here):
    command = words(here / "records", model_folder, speech_folder, "recipe=full_precision", "logger.mode=off")
    status, told = said(monkeypatch, caplog, "run", *command, "target_bits=2")
    assert status == 0 and "target_bits" in [name for name, _ in told]
    assert all("trains and quantizes nothing" in why for _, why in told)


def test_settings_that_smoke_or_the_size_of_the_file_replace(caplog):
    def told(*words):
        caplog.clear()
        cfg = checks.checked(composed(*words))
        checks.tell_unused(cfg, [word.partition("=")[0] for word in words])
        return [line.partition("= has no effect here: ")[::2] for line in caplog.messages if "no effect" in line]

    assert told("smoke=true", "trainer.updates=7", "trainer.threads=1") == [
        ("trainer.updates", "smoke=true sets it to 2")
    ]
    assert told("demo=true", "seed=1", "data.test=[test-other]") == [
        ("data.test", "demo=true sets it to ['test-clean', 'test-other']")
    ]
    assert told("recipe=size_trained", "target_megabytes=0.4", "target_bits=3") == [
        ("target_bits", "recipe=size_trained quantizes for target_megabytes=0.4")
    ]
    assert told("target_bits=3", "trainer.updates=7") == []


def test_a_device_that_is_not_there(monkeypatch, capsys, here):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    soundfile.write("a.wav", np.random.default_rng().normal(0, 0.1, 16_000), 16_000)
    script = REPOSITORY / "scripts" / "transcribe.py"
    assert run_here(monkeypatch, "a.wav", "device=gpu", script=script) == 1
    assert "error: device=gpu needs a GPU that PyTorch can use, but it finds none" in capsys.readouterr().err
    assert run_here(monkeypatch, "a.wav", "device=auto", script=script) == 0


def test_an_onnx_file_that_is_there_is_not_replaced_unasked(monkeypatch, capsys, model_folder, here):
    (here / "x.onnx").write_text("years of work")
    script = REPOSITORY / "scripts" / "export.py"
    assert run_here(monkeypatch, f"model={model_folder}", "output=x.onnx", script=script) == 1
    assert "x.onnx exists: overwrite=true replaces it, output=PATH keeps both" in capsys.readouterr().err
    assert (here / "x.onnx").read_text() == "years of work"
