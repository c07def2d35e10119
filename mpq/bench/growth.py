"""How cost grows with the number of sites, parameters and utterances: near-linear is the aim."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpq.bench import costs

_TICK = 1e-6  # seconds: the finest step of the processor clock
BY_SITES = {
    "search step": costs.search_step,
    "allocation": costs.allocation,
    "allocation, scores like sizes": costs.tied_allocation,
}
BY_PARAMETERS = {
    "fake quantization, 4 bits": costs.fake_quantization,
    "mixture of 2, 4, 8 bits": costs.mixture,
    "starting scales, 4 bits": costs.starting_scale,
    "packing, 4 bits": costs.packing,
    "unpacking, 4 bits": costs.unpacking,
}
BY_UTTERANCES = {
    "MAPSSWE": costs.mapsswe,
    "bootstrap": costs.bootstrap,
    "bootstrap of 250 speakers": costs.speaker_bootstrap,
}


@dataclass(frozen=True)
class Options:
    """sites: of the search step and the allocation. parameters: of the fake quantization, the mixture and the packing.
    utterances: of MAPSSWE and the bootstrap. repeats: of each measurement. output: the folder of the record.
    """

    sites: tuple[int, ...] = (72, 144, 1_000, 4_000)
    parameters: tuple[int, ...] = (2**20, 2**22, 2**24)
    utterances: tuple[int, ...] = (1_000, 10_000, 100_000)
    repeats: int = 3
    output: str = "experiments/local/bench"


def run(options: Options) -> list[dict[str, Any]]:
    """Return one row for each cost and size: processor-seconds on one thread, the median of the repeats.

    `exponent` is the slope between a size and the one before on logarithmic axes: 1 is linear.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(_rows(options))
    finally:
        torch.set_num_threads(threads)


def _rows(options: Options) -> Iterator[dict[str, Any]]:
    groups = (
        ("sites", options.sites, BY_SITES),
        ("parameters", options.parameters, BY_PARAMETERS),
        ("utterances", options.utterances, BY_UTTERANCES),
    )
    for unit, sizes, group in groups:
        for name, prepare in group.items():
            before = None
            for size in sizes:
                seconds = _seconds(prepare(size), options.repeats)
                row = {"system": name, "size": f"{size:,} {unit}", "processor_seconds": seconds}
                if before:
                    row["exponent"] = float(np.log(seconds / before[1]) / np.log(size / before[0]))
                before = (size, seconds)
                yield row


def _seconds(call: Callable[[], object], repeats: int) -> float:
    measured = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        measured.append(time.process_time() - start)
    return max(float(np.median(measured)), _TICK)
