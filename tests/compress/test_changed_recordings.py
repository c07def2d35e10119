"""A speaker more, a transcript corrected: a run on the recordings as they were is not the run on those of now."""

import json
import shutil

import numpy as np
import pytest
import yaml
from tiny_run import composed, run_here, words
from tiny_speech import write_speech

from mpq import pipeline
from mpq.compress.quantize_now import quantize_now
from mpq.conf import REPOSITORY
from mpq.deploy.compare import compare_with_run
from mpq.errors import UserError
from mpq.record.run_folder import RunFolder

ROUNDED, BASELINE = "smallest_ptq_rtn_weight_error_2bit_data", "smallest_fp32_data"
CHANGED = r"holds a run on other recordings: .*/data has changed since \(hash \w{8} -> \w{8}\); overwrite=true replaces"


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def data(speech_folder, tmp_path):
    return shutil.copytree(speech_folder / "train", tmp_path / "data" / "train")


def add_a_speaker(data):
    write_speech(data.parent / "more", {"x": 2}, np.random.default_rng())
    for number in (1, 2):
        shutil.move(data.parent / "more" / "x" / str(number), data / f"{number + 70}")
        for path in (data / f"{number + 70}").rglob("*-*"):
            text = path.read_bytes() if path.suffix == ".flac" else path.read_text().replace(f"{number}-1", "7-1")
            named = path.with_name(path.name.replace(f"{number}-1", f"7{number}-1"))
            path.unlink()
            named.write_bytes(text) if isinstance(text, bytes) else named.write_text(
                text.replace("7-1", f"7{number}-1")
            )


def hash_of(exp):
    return json.loads((RunFolder("experiments/local", exp, 0).result).read_text())["provenance"]["data"]["hash"]


def test_a_speaker_more_is_another_run_until_it_is_overwritten(model_folder, data, here, monkeypatch, capsys):
    script = REPOSITORY / "scripts" / "quantize.py"
    command = [f"model={model_folder}", "bits=2", f"data={data}", "method=round"]
    assert run_here(monkeypatch, *command, script=script) == 0
    assert hash_of(ROUNDED) == hash_of(BASELINE)
    before = capsys.readouterr().out
    assert run_here(monkeypatch, *command, script=script) == 0 and capsys.readouterr().out == before
    old = hash_of(ROUNDED)
    add_a_speaker(data)
    for bits in ("2", "4"):  # the run itself, and another one, whose baseline is on the older recordings
        assert run_here(monkeypatch, *command, f"bits={bits}", script=script) == 1
        err = capsys.readouterr().err
        assert "on other recordings: " in err and "overwrite=true replaces it, root=FOLDER keeps both" in err
        assert "Traceback" not in err and hash_of(ROUNDED) == old
    assert run_here(monkeypatch, *command, "overwrite=true", script=script) == 0
    assert hash_of(ROUNDED) == hash_of(BASELINE) != old
    assert run_here(monkeypatch, *command, "root=elsewhere", "output=elsewhere/model", script=script) == 0


def test_an_older_record_states_the_hash_in_its_result_alone(model_folder, data, here):
    quantize_now(str(model_folder), 2, data, method="round")
    for exp in (ROUNDED, BASELINE):
        path = RunFolder("experiments/local", exp, 0).path / "config.yaml"
        config = yaml.safe_load(path.read_text())
        del config["data"]["hash"]
        path.write_text(yaml.safe_dump(config))
    quantize_now(str(model_folder), 2, data, method="round")
    add_a_speaker(data)
    with pytest.raises(UserError, match=CHANGED):
        quantize_now(str(model_folder), 2, data, method="round")


def test_a_corrected_transcript_replaces_the_older_words(model_folder, data, here):
    quantize_now(str(model_folder), 2, data, method="round")
    (references,) = (here / "experiments" / "local" / "references").iterdir()
    for path in data.rglob("*.trans.txt"):
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{name} MENDED {word}\n" for name, word, *_ in lines))
    with pytest.raises(UserError, match=CHANGED):
        quantize_now(str(model_folder), 2, data, method="round")
    quantize_now(str(model_folder), 2, data, method="round", changes={"overwrite": True})
    said = [json.loads(line)["reference"] for line in references.read_text().splitlines()]
    assert said and all(text.startswith("MENDED ") for text in said)


def test_other_data_of_the_same_name_is_refused_before_the_work(tmp_path, model_folder, data, monkeypatch):
    """Another model on another folder `data`: nothing is compared, but the file of references is shared."""
    quantize_now(str(model_folder), 2, data, method="round")
    other = write_speech(tmp_path / "other" / "data", {"train": 12}, np.random.default_rng()) / "train"
    shutil.copytree(model_folder, tmp_path / "second")
    monkeypatch.setattr(pipeline, "transcribe_sets", None)
    with pytest.raises(UserError, match=r"another corpus of this name.*root=FOLDER keeps both"):
        quantize_now(str(tmp_path / "second"), 2, other, method="round")


def test_a_retrained_checkpoint_replaces_the_baseline_where_told_to(model_folder, speech_folder, tmp_path):
    from mpq.models.loading import load

    root, model = tmp_path / "records", shutil.copytree(model_folder, tmp_path / "model")
    command = words(root, model, speech_folder, "recipe=uniform", "trainer.updates=1", "logger.mode=off")
    pipeline.run(composed(*command, "target_bits=2"))
    trained, _ = load(str(model))
    trained.get_parameter("lm_head.bias").data += 1.0
    trained.save_pretrained(model)  # pyright: ignore[reportCallIssue]
    with pytest.raises(UserError, match=r"has other weights than those of the record .*; overwrite=true makes that"):
        pipeline.run(composed(*command, "target_bits=4"))
    made = pipeline.run(composed(*command, "target_bits=4", "overwrite=true"))
    baseline = RunFolder(root, "tiny_wav2vec2_fp32_mini_speech", 0).read()
    assert made.provenance.teacher == baseline.provenance.teacher is not None


def test_a_file_is_not_compared_with_a_run_on_other_recordings(tmp_path, model_folder, speech_folder):
    data = shutil.copytree(speech_folder, tmp_path / "data")
    command = words(tmp_path / "records", model_folder, data, "recipe=full_precision", "logger.mode=off")
    result = pipeline.run(composed(*command))
    assert result is not None
    run = RunFolder.of(tmp_path / "records", result).path
    with pytest.raises(UserError, match=r"none\.onnx"):
        compare_with_run(tmp_path / "none.onnx", run, "unused", [])
    add_a_speaker(data / "train")
    with pytest.raises(UserError, match="/data has changed since"):
        compare_with_run(tmp_path / "none.onnx", run, "unused", [])
