"""The command itself, interrupted and killed: it goes on where it stopped, and ends as if nothing had happened."""

import json
import signal
import time

import pytest
from tiny_run import composed, start, words

from mpq import pipeline
from mpq.train.checkpoint_io import SafetensorsCheckpointIO

EXP = "tiny_wav2vec2_3p5bit_mini_speech"
SETTINGS = ("trainer.updates=60", "trainer.interval=5", "trainer.dropout=true", "seed=1")
TRACKED = ("bits.json", "search.json", "hypotheses.jsonl", "config.yaml")
TRACKED += ("model/model.safetensors", "model/config.json")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, model_folder, speech_folder):
    root = tmp_path_factory.mktemp("whole") / "records"
    pipeline.run(composed(*words(root, model_folder, speech_folder, *SETTINGS)))
    return root / EXP / "seed1"


def wait_for(condition, process, log):
    """Wait until `condition()`; the process must not end before."""
    while not condition():
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)


def steps_in(checkpoint):
    """The updates that a checkpoint holds, 0 where there is none; it is replaced in one step, so it is always whole."""
    return SafetensorsCheckpointIO().load_checkpoint(checkpoint)["global_step"] if checkpoint.is_file() else 0


def test_interrupted_then_killed_it_ends_as_the_uninterrupted_run(uninterrupted, tmp_path, model_folder, speech_folder):
    root = tmp_path / "records"
    command = words(root, model_folder, speech_folder, *SETTINGS)
    folder = root / EXP / "seed1"
    checkpoint, log = folder / "work" / "one_stage" / "last.safetensors", tmp_path / "log"

    process = start(command, log)
    wait_for(checkpoint.is_file, process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, log.read_text()
    assert not (folder / "result.json").exists()
    printed = log.read_text()
    assert "interrupted; the same command goes on from the last checkpoint" in printed and "Traceback" not in printed
    reached = steps_in(checkpoint)
    assert 5 <= reached < 60

    process = start(command, log)
    wait_for(lambda: steps_in(checkpoint) > reached, process, log)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    assert reached < steps_in(checkpoint) < 60

    process = start(command, log)
    assert process.wait() == 0, log.read_text()
    for name in TRACKED:
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    result, whole = (json.loads((path / "result.json").read_text()) for path in (folder, uninterrupted))
    for field in ("bits", "size", "wer", "significance"):
        assert result[field] == whole[field]
    (stage,), (other,) = result["time"]["stages"], whole["time"]["stages"]
    assert (stage["resumed"], other["resumed"]) == (2, 0)
    assert (stage["updates"], stage["audio_seconds"]) == (other["updates"], other["audio_seconds"])
    assert not (folder / "work").exists() and not list(root.rglob("*.partial"))
    runs = [path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")]
    assert len(runs) == 3 and len(set(runs)) == 1  # three processes, one W&B run
