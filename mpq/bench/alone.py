"""One system alone in a process of its own, for its memory and the time that it takes to load.

Memory is what the operating system counts (Linux: VmRSS and VmHWM of /proc/self/status), the libraries included, since
the user's machine must hold them too; what the libraries alone take is reported beside it.
"""

import importlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Alone:
    """Bytes and seconds of one process; memory is None where the system does not tell it (other than Linux).

    libraries_bytes: resident once the libraries are imported. loaded_bytes: after the model is loaded. peak_bytes: the
    most up to the end of the first run. load_seconds: from the file to the function, wall clock.
    load_processor_seconds: of all threads, which on a busy machine says more.
    """

    libraries_bytes: int | None
    loaded_bytes: int | None
    peak_bytes: int | None
    load_seconds: float
    load_processor_seconds: float


def measure(system: str, path: Path, seconds: float, threads: int) -> Alone:
    """Load and run a system of `mpq.bench.systems` on `seconds` of noise in a fresh process.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    task = json.dumps([system, str(path), seconds, threads])
    command = [sys.executable, "-m", "mpq.bench.alone", task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return Alone(**json.loads(done.stdout.splitlines()[-1]))


def resident_bytes(field: str = "VmRSS") -> int | None:
    """Return this process's resident memory in bytes, or with `VmHWM` its peak; None where it can't be known."""
    if not _STATUS.is_file():
        return None
    line = next(line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _run(name: str, path: Path, seconds: float, threads: int) -> Alone:
    # Not from mpq.bench.models, which would import torch into the process of a system that needs none.
    import numpy as np

    from mpq.bench.systems import all_systems

    audio: Any = np.random.default_rng(0).standard_normal(round(seconds * 16_000)).astype(np.float32)
    system = all_systems()[name]
    for library in system.libraries:
        importlib.import_module(library)
    libraries, wall, processor = resident_bytes(), time.perf_counter(), time.process_time()
    logits = system.load(path, threads)
    wall, processor, loaded = time.perf_counter() - wall, time.process_time() - processor, resident_bytes()
    logits(audio)
    return Alone(libraries, loaded, resident_bytes("VmHWM"), wall, processor)


if __name__ == "__main__":
    name, path, seconds, threads = json.loads(sys.argv[1])
    print(json.dumps(asdict(_run(name, Path(path), seconds, threads))))
