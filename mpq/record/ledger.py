"""Measures what each stage of a compression costs.

It uses a `with` block per stage rather than two time stamps around the pipeline, so that evaluation, packing and table
making, which are outside every block, are excluded. A killed run loses the time since its last saved state on purpose:
the work of that time is repeated and counted after the run resumes.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from mpq.record.result import StageTime, Time


def begun(name: str) -> StageTime:
    """Return the costs of a stage that begins now, which the training code adds to."""
    return StageTime(name, seconds=0.0, devices=1, updates=0, audio_seconds=0.0, peak_memory_bytes=0)


class Ledger:
    """Wall-clock seconds and other costs of each stage, in the order in which the stages began.

    Processor-seconds are those of all threads of this process and its ended workers, and of the followers: on a shared
    machine without a GPU they are more meaningful than the wall clock. With CUDA, the clock is read only after its
    queue is empty. Peak memory is the most that PyTorch's allocator held on one of this process's GPUs during the
    stage; without a GPU it is the peak resident memory of the whole process so far (`ru_maxrss`), which a stage that
    needs less than an earlier one inherits.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] = lambda: sum(os.times()[:4]),
    ) -> None:
        self._clocks = {"seconds": clock, "processor_seconds": processor}
        self._stages: dict[str, StageTime] = {}
        self._finished: set[str] = set()
        # The running stage, and its seconds less the clocks at its start.
        self._running: tuple[StageTime, dict[str, float]] | None = None
        self._processor_at_start = 0.0
        self.others_processor_seconds = 0.0
        """Processor-seconds of the other processes in the running stage; set by training on several devices."""

    @contextmanager
    def stage(self, name: str, devices: int = 1) -> Iterator[StageTime]:
        """Time one stage on `devices` devices; a restored, unfinished stage of that name is continued.

        A block left by an exception counts its seconds, but the stage is not finished. Raises ValueError for a nested
        stage and for a second stage with the same name.
        """
        if self._running:
            raise ValueError(f"stage {name!r} can't begin inside stage {self._running[0].name!r}")
        if self.finished(name):
            raise ValueError(f"stage {name!r} is already finished; give the second one another name")
        stage = self._stages.setdefault(name, begun(name))
        stage.devices = devices
        _synchronize(reset_peak=True)
        self._processor_at_start, self.others_processor_seconds = self._clocks["processor_seconds"](), 0.0
        self._running = (stage, {name: getattr(stage, name) - clock() for name, clock in self._clocks.items()})
        try:
            yield stage
            self._finished.add(name)
        finally:
            self._read_clock()
            self._running = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave a block out of the running stage's seconds; without a running stage, do nothing."""
        before = {name: clock() for name, clock in self._clocks.items()}
        try:
            yield
        finally:
            if self._running:
                for name, clock in self._clocks.items():
                    self._running[1][name] -= clock() - before[name]

    def own_processor_seconds(self) -> float:
        """Return this process's processor-seconds since the running stage began or resumed; 0 without one."""
        return self._clocks["processor_seconds"]() - self._processor_at_start if self._running else 0.0

    def finished(self, name: str) -> bool:
        """Return whether the stage has ended successfully, here or in the process that was resumed."""
        return name in self._finished

    def state(self) -> dict[str, Any]:
        """Return the ledger as JSON values, including a running stage so far; save it with each training checkpoint."""
        self._read_clock()
        return {"stages": [{**asdict(s), "finished": s.name in self._finished} for s in self._stages.values()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state, before any stage begins: an unfinished stage will count as resumed once more."""
        self._stages, self._finished = {}, set()
        for entry in state["stages"]:
            stage = StageTime(**{key: value for key, value in entry.items() if key != "finished"})
            self._stages[stage.name] = stage
            if entry["finished"]:
                self._finished.add(stage.name)
            else:
                stage.resumed += 1

    def time(self) -> Time:
        """Return the costs for the record: the stages and their sums."""
        self._read_clock()
        entries = [replace(stage) for stage in self._stages.values()]  # copies: a running stage goes on counting
        device_seconds = sum(entry.seconds * entry.devices for entry in entries)
        return Time(float(sum(entry.seconds for entry in entries)), float(device_seconds), tuple(entries))

    def _read_clock(self) -> None:
        if self._running:
            stage, offsets = self._running
            peak = _synchronize()
            for name, clock in self._clocks.items():
                setattr(stage, name, offsets[name] + clock())
            stage.processor_seconds += self.others_processor_seconds
            stage.peak_memory_bytes = max(stage.peak_memory_bytes, peak)


def _synchronize(reset_peak: bool = False) -> int:
    """Wait for every GPU of this process and return the peak memory in bytes."""
    import torch  # here, because tables and --help need no torch

    if not torch.cuda.is_available():
        try:
            import resource  # not on Windows
        except ImportError:
            return 0
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    peak = 0
    for device in range(torch.cuda.device_count()):
        torch.cuda.synchronize(device)
        if reset_peak:
            torch.cuda.reset_peak_memory_stats(device)
        peak = max(peak, torch.cuda.max_memory_allocated(device))
    return peak
