"""The command stopped by all that can happen to it: it goes on where it stopped, and ends as if nothing had happened.

`KILLS=20 python -m pytest tests/pipeline/test_kill_and_resume.py` kills it at twenty random moments instead of three.
"""

import functools
import json
import os
import signal
import time

import mishaps
import numpy as np
import pytest
from tiny_process import begin, end
from tiny_run import composed, words

from mpq import pipeline
from mpq.train.checkpoint_io import SafetensorsCheckpointIO

KILLS = int(os.environ.get("KILLS", "3"))
EXP = "tiny_wav2vec2_3p5bit_mini_speech"
UPDATES = 12
SETTINGS = (f"trainer.updates={UPDATES}", "trainer.interval=5", "trainer.dropout=true", "seed=1", "logger.mode=off")
TRACKED = (
    "bits.json",
    "search.json",
    "hypotheses.jsonl",
    "config.yaml",
    "model/model.safetensors",
    "model/config.json",
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, model_folder, speech_folder):
    root = tmp_path_factory.mktemp("whole") / "records"
    pipeline.run(composed(*words(root, model_folder, speech_folder, *SETTINGS)))
    return root / EXP / "seed1"


def updates_in(checkpoint):
    """The updates that a checkpoint holds, 0 where there is none; it is replaced in one step, so it is always whole."""
    return SafetensorsCheckpointIO().load_checkpoint(checkpoint)["global_step"] if checkpoint.is_file() else 0


def assert_same_outcome(folder, whole, resumed):
    for name in TRACKED:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    result, wanted = (json.loads((path / "result.json").read_text()) for path in (folder, whole))
    for field in ("bits", "size", "wer", "significance"):
        assert result[field] == wanted[field]
    (stage,), (other,) = result["time"]["stages"], wanted["time"]["stages"]
    assert (stage["resumed"], other["resumed"]) == (resumed, 0)
    assert (stage["updates"], stage["audio_seconds"]) == (other["updates"], other["audio_seconds"])
    assert result["time"]["seconds"] == result["time"]["device_seconds"] == stage["seconds"] > 0


def test_whatever_happens_the_run_ends_as_the_uninterrupted_one(uninterrupted, tmp_path, model_folder, speech_folder):
    root, log = tmp_path / "records", tmp_path / "log"
    folder = root / EXP / "seed1"
    checkpoint = folder / "work" / "one_stage" / "last.safetensors"
    command = words(root, model_folder, speech_folder, *SETTINGS)
    happenings = [  # what happens; exit status, updates kept, and what is told
        (functools.partial(mishaps.signal_before, 2, signal.SIGTERM), 143, 3, "stopped by SIGTERM after update 3: "),
        (functools.partial(mishaps.full_disk_before, 6), 1, 5, f"error: the training checkpoint {checkpoint} can't"),
        (functools.partial(mishaps.worker_dies_after, checkpoint), 1, 5, "error: a process that decodes audio has"),
        (functools.partial(mishaps.signal_before, 7, signal.SIGINT), 130, 5, "interrupted; the same command resumes"),
        (
            functools.partial(mishaps.signal_to_all_before, 6, signal.SIGTERM),
            143,
            7,
            "stopped by SIGTERM after update",
        ),
        (functools.partial(mishaps.signal_before, 8, signal.SIGUSR1), 138, 9, "stopped by SIGUSR1 after update 9: "),
        (functools.partial(mishaps.signal_before, 11, signal.SIGKILL), -9, 10, ""),
    ]
    for prepare, status, kept, told in happenings:
        decoding = prepare.func in (mishaps.worker_dies_after, mishaps.signal_to_all_before)
        process = begin([*command, f"data.workers={int(decoding)}"], log, prepare)
        assert end(process) == status, log.read_text()
        assert told in log.read_text() and "Traceback" not in log.read_text(), log.read_text()
        assert updates_in(checkpoint) == kept
        assert not (folder / "result.json").exists()
        SafetensorsCheckpointIO().load_checkpoint(checkpoint)
    assert end(begin(command, log)) == 0, log.read_text()
    assert_same_outcome(folder, uninterrupted, resumed=len(happenings))
    assert not (folder / "work").exists() and not list(root.rglob("*.partial"))
    assert not list((root / ".claims").iterdir())


def test_killed_at_random_moments_the_run_ends_as_the_uninterrupted_one(
    uninterrupted, tmp_path, model_folder, speech_folder
):
    """Half of the moments are points of time, half are just before a file is written, moved or removed."""
    rng = np.random.default_rng(7)
    log, tally = tmp_path / "log", tmp_path / "tally"
    root = tmp_path / "counted"
    began = time.monotonic()
    command = words(root, model_folder, speech_folder, *SETTINGS)
    assert end(begin(command, log, functools.partial(mishaps.count_changes, root, tally))) == 0, log.read_text()
    seconds, changes = time.monotonic() - began, tally.stat().st_size
    assert changes > 30
    assert_same_outcome(root / EXP / "seed1", uninterrupted, resumed=0)  # another process, the same bytes
    killed = chain = 0
    while killed < KILLS:
        chain += 1
        root = tmp_path / f"killed{chain}"
        folder, command = root / EXP / "seed1", words(root, model_folder, speech_folder, *SETTINGS)
        resumed, status = 0, -signal.SIGKILL
        while status == -signal.SIGKILL:  # several times in the same run, until it has had its kills or escaped them
            by_time, wanted = rng.random() < 0.5, killed < KILLS
            process = begin(command, log, _kill(rng, root, changes) if wanted and not by_time else None)
            if wanted and by_time:
                process.join(rng.uniform(0, seconds))
                process.kill()
            status = end(process)
            killed += status == -signal.SIGKILL
            ledger = folder / "work" / "ledger.json"
            if status == -signal.SIGKILL and ledger.is_file():
                (stage,) = json.loads(ledger.read_text())["stages"]
                resumed = stage["resumed"] + (not stage["finished"])
        assert status == 0, log.read_text()
        assert_same_outcome(folder, uninterrupted, resumed)
        print(f"{killed} kills in {chain} runs: the same outcome", flush=True)


def _kill(rng, root, changes):
    return functools.partial(mishaps.kill_before_change, root, int(rng.integers(1, changes + 1)))
