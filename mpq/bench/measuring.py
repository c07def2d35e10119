"""Measuring on a shared machine: interleaved running times, and the memory and load time of a single process.

*Interleaved*: all systems run in turn for many rounds, and ratios are taken within a round. A disturbance affects all
systems of a round about equally, so the ratio to the reference of the same round stays meaningful when seconds do not.
Medians and quartiles are reported, because one round in ten may be far off.

*Alone*: memory is what the operating system counts (Linux: VmRSS and VmHWM of /proc/self/status). It includes the
libraries, because the user's machine must hold them too; the memory of the libraries alone is reported beside it.
"""

import gc
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpq.progress import track

_PAUSE = 0.02  # seconds after each measurement: thread pools of some libraries spin for a while after their work


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of a measurement."""

    median: float
    low: float
    high: float


def spread(values: np.ndarray) -> Spread:
    """Return the median and the quartiles of `values` `[rounds]`."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


@dataclass(frozen=True)
class Times:
    """Wall-clock seconds, and processor seconds of all threads, `[rounds]` each, of one system."""

    wall: np.ndarray
    processor: np.ndarray


def interleave(systems: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Return the times of each system, with one call per round, in a new random order each round.

    Each system is first called once without measuring. A call must return only when its work is done.
    """
    for call in systems.values():
        call()
    names, generator = list(systems), np.random.default_rng(0)
    times = {name: Times(np.empty(rounds), np.empty(rounds)) for name in names}
    gc.collect()
    for measured in track(range(rounds), "Measuring", "rounds"):
        for name in generator.permutation(names):
            time.sleep(_PAUSE)
            wall, processor = time.perf_counter(), time.process_time()
            systems[name]()
            times[name].wall[measured] = time.perf_counter() - wall
            times[name].processor[measured] = time.process_time() - processor
    return times


def compared(times: Mapping[str, Times], reference: str) -> dict[str, dict[str, Any]]:
    """Return the rows' figures: ratios to `reference` in the same round (below 1 is less), and wall-clock seconds.

    On a shared machine, processor seconds of one thread are more reliable than the wall clock.
    """
    base = times[reference]
    return {
        name: {
            "ratio": asdict(spread(time.wall / base.wall)),
            "processor_ratio": asdict(spread(time.processor / np.maximum(base.processor, 1e-9))),
            "seconds": asdict(spread(time.wall)),
        }
        for name, time in times.items()
    }


Systems = tuple[str, Sequence[Any]]
CTC: Systems = ("mpq.bench.systems", ())
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Alone:
    """Bytes and seconds of one process; memory is None on systems other than Linux.

    libraries_bytes: resident after importing the libraries. loaded_bytes: resident after loading the model. peak_bytes:
    maximum until the end of the first run. load_seconds: wall clock from the file to a usable function.
    load_processor_seconds: of all threads, more reliable on a busy machine.
    """

    libraries_bytes: int | None
    loaded_bytes: int | None
    peak_bytes: int | None
    load_seconds: float
    load_processor_seconds: float


def measure(system: str, path: Path, audio: float | Path, threads: int, systems: Systems = CTC) -> Alone:
    """Load and run a system in a fresh process, on seconds of noise or on the samples in a .npy file.

    `systems`: where it is from, a module and the arguments of its `all_systems`.

    Raises:
        RuntimeError: the process failed; the message is the last line of its output.
    """
    task = json.dumps([*systems, system, str(path), audio if isinstance(audio, float) else str(audio), threads])
    command = [sys.executable, "-m", "mpq.bench.measuring", task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return Alone(**json.loads(done.stdout.splitlines()[-1]))


def resident_bytes(field: str = "VmRSS") -> int | None:
    """Return this process's resident memory in bytes, or with `VmHWM` its peak; None if unknown."""
    if not _STATUS.is_file():
        return None
    line = next(line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _run(module: str, settings: list[Any], name: str, path: Path, audio: float | str, threads: int) -> Alone:
    # Not imported from mpq.bench.models, which would load torch even for systems without torch.
    samples: Any = np.load(audio) if isinstance(audio, str) else _noise(audio)
    system = importlib.import_module(module).all_systems(*settings)[name]
    for library in system.libraries:
        importlib.import_module(library)
    libraries, wall, processor = resident_bytes(), time.perf_counter(), time.process_time()
    run = system.load(path, threads)
    wall, processor, loaded = time.perf_counter() - wall, time.process_time() - processor, resident_bytes()
    run(samples)
    return Alone(libraries, loaded, resident_bytes("VmHWM"), wall, processor)


def _noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(round(seconds * 16_000)).astype(np.float32)


if __name__ == "__main__":
    module, settings, name, path, audio, threads = json.loads(sys.argv[1])
    print(json.dumps(asdict(_run(module, settings, name, Path(path), audio, threads))))
