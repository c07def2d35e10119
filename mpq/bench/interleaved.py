"""Comparing running times on a machine that others use too: all systems in turn, many rounds, ratios within a round.

What disturbs a round disturbs all of its systems about alike, so the ratio to the reference of the same round stays
meaningful where seconds do not. Medians and quartiles, since one round in ten may be far off.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_PAUSE = 0.02  # seconds after each measurement: thread pools of some libraries spin for a while after their work


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of what was measured."""

    median: float
    low: float
    high: float


def spread(values: np.ndarray) -> Spread:
    """Return the median and the quartiles of `values` `[rounds]`."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


@dataclass(frozen=True)
class Times:
    """Wall-clock and processor seconds of all threads, `[rounds]` each, of one system."""

    wall: np.ndarray
    processor: np.ndarray


def interleave(systems: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Return the times of each system, one call a round, in an order drawn anew for each round.

    Each system is called once before the first round, unmeasured. A call must return only when its work is done.
    """
    for call in systems.values():
        call()
    names, generator = list(systems), np.random.default_rng(0)
    times = {name: Times(np.empty(rounds), np.empty(rounds)) for name in names}
    gc.collect()
    for measured in range(rounds):
        for name in generator.permutation(names):
            time.sleep(_PAUSE)
            wall, processor = time.perf_counter(), time.process_time()
            systems[name]()
            times[name].wall[measured] = time.perf_counter() - wall
            times[name].processor[measured] = time.process_time() - processor
    return times


def compared(times: Mapping[str, Times], reference: str) -> dict[str, dict[str, Any]]:
    """Return the rows' figures: ratios to `reference` in the same round (below 1 is less), and wall-clock seconds.

    On a machine that is shared, processor seconds of one thread say more than the wall clock.
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
