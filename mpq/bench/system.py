"""A way to run a model: a file to make, and loading it, which gives a function of audio.

Heavy libraries are imported where a system loads, so that the memory of a process that loads one system alone is that
system's own.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Logits = Callable[[np.ndarray], np.ndarray]  # float32 [samples] -> float32 [frames, vocabulary]


@dataclass(frozen=True)
class System(ABC):
    """One way to run the model. `libraries` are imported before the clock of loading starts."""

    name: str
    libraries: tuple[str, ...]

    @abstractmethod
    def make(self, files: Any) -> Path:
        """Write what `load` reads, with the help of `files` (`mpq.bench.files.Files`), and return its path."""

    @abstractmethod
    def load(self, path: Path, threads: int) -> Logits:
        """Return the function from audio to logits, which computes with `threads` threads."""


def usable_threads(threads: int) -> int:
    """Return `threads`, or for 0 the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or cores
