"""Where no terminal shows a bar, long work tells how far it is, how fast and when it will end."""

import re
import threading
import time

import pytest

from mpq import progress
from mpq.progress import Work, duration, track, work


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS", 0.05)


def test_lines_come_while_one_item_lasts_and_at_the_end(capfd):
    def slowly():
        for item in range(4):
            time.sleep(0.2)
            yield item

    assert list(track(slowly(), "Rounding", "weights", total=4)) == [0, 1, 2, 3]
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) > 5
    assert re.fullmatch(r"Rounding: 0 of 4 weights, 0 %, the first takes \d s so far", lines[0])
    middle = next(line for line in lines if ": 2 of 4" in line)
    assert re.fullmatch(r"Rounding: 2 of 4 weights, 50 %, [\d.]+ a second, 0 s left, ends \d\d:\d\d( on .*)?", middle)
    assert re.fullmatch(r"Rounding: 4 of 4 weights, 100 %, [\d.]+ a second, took 1 s", lines[-1])


def test_short_work_and_other_processes_write_nothing(capfd, monkeypatch):
    with work("Training", 3, "updates", shown=False) as made:
        time.sleep(0.2)
        made.report(3)
    monkeypatch.setattr(progress, "_SECONDS", 30.0)
    assert list(track([1, 2], "Training", "updates")) == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_failure_ends_the_lines(capfd):
    with pytest.raises(KeyboardInterrupt), work("Training", 3, "updates"):
        raise KeyboardInterrupt
    assert threading.active_count() == 1 or all(not one.name.endswith("(tell)") for one in threading.enumerate())
    capfd.readouterr()
    time.sleep(0.2)
    assert capfd.readouterr() == ("", "")


def test_the_speed_is_this_processs_and_the_end_follows_from_it(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Work("one_stage", 600, "updates", done=100)
    now += 600
    made.report(200, "loss 1.250")
    assert re.fullmatch(
        r"one_stage: 200 of 600 updates, 33 %, 6 s each, 40 min 0 s left, ends \d\d:\d\d( on \d\d \w+)?, loss 1\.250",
        made.line(),
    )
    now += 40 * 60
    made.report(600)
    assert made.line() == "one_stage: 600 of 600 updates, 100 %, 6 s each, took 50 min 0 s"


def test_durations():
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3_600, 90_061)] == [
        "0 s", "59 s", "1 min 1 s", "1 h 0 min", "25 h 1 min",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar_and_standard_output_stays_free(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    for _ in track(range(3), "Transcribing", "files"):
        pass
    out, err = capfd.readouterr()
    assert out == "" and "Transcribing" in err and "3/3" in err and " of 3 files" not in err
