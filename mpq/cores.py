"""How many processor cores there are for this process, and work in several threads."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def usable_cores() -> int:
    """Return the number of cores that this process may use (Python 3.13 has it as `os.process_cpu_count`)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """Return `function` of each item, in their order; as many at once as PyTorch has threads.

    For work that leaves Python's lock alone: coding, compression, large arrays.
    """
    import torch  # here, since not all who count cores need it

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, items))
