"""The clock, run on an invented one: seconds are counted, never waited for."""

import json

import pytest

from mpq.record.ledger import Ledger


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_processor_seconds_are_counted_over_a_resumption():
    clock, processor = Clock(), Clock()
    first = Ledger(clock, processor)
    with first.stage("train"):
        clock.now, processor.now = clock.now + 10, processor.now + 15
        saved = first.state()
        processor.now += 100  # lost with the killed process
    second = Ledger(clock, processor)
    second.restore(saved)
    with second.stage("train"):
        clock.now, processor.now = clock.now + 1, processor.now + 2
    stage = second.time().stages[0]
    assert (stage.seconds, stage.processor_seconds, stage.resumed) == (11.0, 17.0, 1)


def test_other_processes_count_once_however_often_they_report():
    clock, processor = Clock(), Clock()
    ledger = Ledger(clock, processor)
    for name in ("search", "train"):
        assert ledger.own_processor_seconds() == 0.0
        with ledger.stage(name, devices=2):
            for _ in range(3):
                clock.now, processor.now = clock.now + 1, processor.now + 2
                ledger.others_processor_seconds = 2.5 * ledger.own_processor_seconds()
                saved = ledger.state()
    resumed = Ledger(clock, processor)
    saved["stages"][1]["finished"] = False
    resumed.restore(saved)
    with resumed.stage("train", devices=2):
        processor.now += 2
        resumed.others_processor_seconds = 1.0
    assert [entry.processor_seconds for entry in resumed.time().stages] == [6 + 15, 6 + 15 + 2 + 1]


def test_only_the_stages_are_counted():
    clock = Clock()
    ledger = Ledger(clock)
    with ledger.stage("search", devices=1) as stage:
        clock.now += 5
        stage.updates, stage.audio_seconds = 10, 100.5
    clock.now += 1000  # an evaluation
    with ledger.stage("train", devices=4) as stage:
        clock.now += 20
        stage.updates += 3
    time = ledger.time()
    assert (time.seconds, time.device_seconds) == (25.0, 5 + 4 * 20)
    assert [entry.name for entry in time.stages] == ["search", "train"]
    assert [entry.updates for entry in time.stages] == [10, 3]
    assert time.stages[0].audio_seconds == 100.5
    assert all(entry.peak_memory_bytes > 1e6 and entry.resumed == 0 for entry in time.stages)


def test_full_precision_has_no_stage():
    time = Ledger().time()
    assert (time.seconds, time.device_seconds, time.stages) == (0.0, 0.0, ())


def test_a_killed_stage_adds_its_seconds_up():
    clock = Clock()
    ledger = Ledger(clock)
    with ledger.stage("search"):
        clock.now += 2
    with ledger.stage("train") as stage:
        clock.now += 7
        stage.updates = 30
        saved = json.dumps(ledger.state())
        clock.now += 100  # lost with the process: this work is done again
    for resumed in (1, 2):
        clock = Clock()
        clock.now = -3.0
        ledger = Ledger(clock)
        ledger.restore(json.loads(saved))
        assert ledger.finished("search") and not ledger.finished("train")
        with ledger.stage("train", devices=2) as stage:
            assert stage.updates == 30 + 5 * (resumed - 1)
            clock.now += 11
            stage.updates += 5
            saved = json.dumps(ledger.state())
        search, train = ledger.time().stages
        assert (search.seconds, search.resumed) == (2.0, 0)
        assert (train.seconds, train.resumed, train.devices) == (7 + 11.0 * resumed, resumed, 2)


def test_an_exception_leaves_the_stage_unfinished_and_its_seconds_counted():
    clock = Clock()
    ledger = Ledger(clock)
    with pytest.raises(KeyboardInterrupt), ledger.stage("train"):
        clock.now += 4
        raise KeyboardInterrupt
    assert not ledger.finished("train")
    clock.now += 50
    assert ledger.time().seconds == 4.0


def test_stages_neither_nest_nor_repeat():
    ledger = Ledger(Clock())
    with ledger.stage("one"), pytest.raises(ValueError, match="inside"), ledger.stage("two"):
        pass
    with pytest.raises(ValueError, match="finished"), ledger.stage("one"):
        pass


def test_the_gpus_queue_is_emptied_before_the_clock_is_read(monkeypatch):
    import torch

    clock, calls = Clock(), []

    def synchronize(device):
        clock.now += 10  # the work that was still queued
        calls.append(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(f"reset {device}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100 + device)
    ledger = Ledger(clock)
    with ledger.stage("train"):
        clock.now += 1
    assert calls == [0, "reset 0", 1, "reset 1", 0, 1]
    assert ledger.state()["stages"][0]["seconds"] == 21.0
    assert ledger.time().stages[0].peak_memory_bytes == 101


def test_a_pause_does_not_count():
    clock = Clock()
    ledger = Ledger(clock, clock)
    with ledger.paused():  # without a stage
        clock.now += 100
    with ledger.stage("train"):
        clock.now += 1
        with pytest.raises(KeyError), ledger.paused():
            clock.now += 10
            raise KeyError
        clock.now += 2
    (stage,) = ledger.time().stages
    assert stage.seconds == 3 and stage.processor_seconds == 3
