"""Two processes at the same runs: nothing is made twice, nothing is lost, and a killed one's claim is taken over."""

import json
import multiprocessing
import os
import signal
import threading
import time

import pytest
from tiny_process import begin, end
from tiny_run import composed, words

import mpq.files as module
from mpq.files import TakenError, claim
from mpq.record.hypotheses import add_references, read_references
from mpq.record.run_folder import references_file
from mpq.sweep import run_row

FORK = multiprocessing.get_context("fork")
BASELINE = "tiny_wav2vec2_fp32_mini_speech"
RUN = "run/seed0"


@pytest.fixture(autouse=True)
def quick_heartbeat(monkeypatch):
    monkeypatch.setattr(module, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)


def hold(root, held, release):
    with claim(root, RUN):
        held.set()
        release.wait()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a claim, and the event that makes it end."""
    held, release = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(60)
    yield tmp_path / ".claims" / "run-seed0", process, release
    process.kill()
    process.join()


def test_a_held_claim_is_refused_with_the_name_of_its_holder(holder, tmp_path):
    path, process, release = holder
    told = rf"{tmp_path}/run/seed0 is being worked on by process {process.pid} on "
    with pytest.raises(TakenError, match=told), claim(tmp_path, RUN):
        raise AssertionError("two processes hold one claim")
    release.set()
    process.join()
    with claim(tmp_path, RUN), claim(tmp_path, "run/seed1"):
        assert path.is_file()
    assert not list(path.parent.iterdir()) and not (tmp_path / "run").exists()


def test_waiting_ends_with_the_other_process(holder, tmp_path):
    _, _, release = holder
    threading.Timer(0.2, release.set).start()
    with claim(tmp_path, RUN, wait=True):
        assert release.is_set()


def test_the_claim_of_a_killed_process_is_taken_over_at_once(holder, tmp_path):
    path, process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert path.is_file()
    with claim(tmp_path, RUN):
        pass
    assert not path.exists()


def test_the_claim_of_a_machine_that_died_is_taken_over_after_its_lease(holder, tmp_path, monkeypatch):
    """Another machine's process can't be looked at: only its heartbeat tells. A stopped process has none."""
    path, process, _ = holder
    monkeypatch.setattr(module, "_LEASE_SECONDS", 60.0)
    text = path.read_text()
    host = next(line for line in text.splitlines() if line.startswith("host="))
    os.kill(process.pid, signal.SIGSTOP)
    try:
        foreign = text.replace(host, "host=elsewhere").replace("duration=60.0", "duration=0.5")
        path.write_text(foreign)
        monkeypatch.setattr(module, "_LEASE_SECONDS", 0.5)
        with claim(tmp_path, RUN):
            assert "elsewhere" not in path.read_text()
    finally:
        os.kill(process.pid, signal.SIGKILL)


def test_a_child_that_was_forked_while_the_claim_was_held_does_not_end_it(tmp_path):
    with claim(tmp_path, RUN):
        child = FORK.Process(target=time.sleep, args=(0,))
        child.start()
        child.join()
        assert (tmp_path / ".claims" / "run-seed0").is_file()


def add(root, number):
    for utterance in range(5):
        add_references(references_file(root, "corpus"), {"test": {f"{number}-{utterance}": "words"}})


def test_references_that_many_processes_add_are_all_there(tmp_path):
    processes = [FORK.Process(target=add, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(read_references(tmp_path / "references" / "corpus.jsonl")["test"]) == 20
    assert [path.name for path in (tmp_path / "references").iterdir()] == ["corpus.jsonl"]


def test_two_commands_share_one_baseline_and_a_third_is_refused(tmp_path, model_folder, speech_folder):
    """Two rows that start together, and one of them twice: three processes, three runs, none made twice."""
    root = tmp_path / "records"
    common = ("recipe=uniform", "trainer.updates=2", "logger.mode=off")
    commands = [words(root, model_folder, speech_folder, *common, f"target_bits={bits}") for bits in (2, 4, 4)]
    processes = [begin(command, tmp_path / f"log{number}") for number, command in enumerate(commands)]
    statuses = [end(process) for process in processes]
    logs = [(tmp_path / f"log{number}").read_text() for number in range(3)]
    assert statuses[0] == 0 and sorted(statuses[1:]) in ([0, 0], [0, 1]), logs  # [0, 0]: one came after the other
    for status, log in zip(statuses, logs, strict=True):
        told = [line for line in log.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in log
        assert len(told) == status and all("seed0 is being worked on by process" in line for line in told), log
    made = sorted(path.parent.parent.name for path in root.glob("*/seed0/result.json"))
    assert made == [BASELINE, "tiny_wav2vec2_uniform_2bit_mini_speech", "tiny_wav2vec2_uniform_4bit_mini_speech"]
    times = [json.loads(path.read_text())["time"] for path in root.glob("*uniform*/seed0/result.json")]
    assert all(stage["resumed"] == 0 for entry in times for stage in entry["stages"])
    assert not list((root / ".claims").iterdir()) and not list(root.rglob("*.partial"))


def test_a_sweep_leaves_a_row_to_the_process_that_has_it(tmp_path, model_folder, speech_folder, monkeypatch, capsys):
    def taken(_):
        raise TakenError("it is being worked on by process 7")

    monkeypatch.setattr("mpq.pipeline.run", taken)
    run_row(composed(*words(tmp_path / "records", model_folder, speech_folder)))
    assert "left out: it is being worked on by process 7" in capsys.readouterr().out
    assert not (tmp_path / "records").exists()  # no log of a failure
