"""One value out of those of several seeds."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The mean over `count` seeds and their sample standard deviation (n - 1 in the denominator)."""

    mean: float
    deviation: float
    count: int

    def text(self, format: Callable[[Any], str]) -> str:
        """Show it as `mean ± deviation` in the format of the column; a deviation that rounds to 0 is left out."""
        nothing = format(self.deviation) == format(0.0)
        return format(self.mean) + ("" if nothing else f" ± {format(self.deviation).lstrip('+')}")


def over_seeds(values: Sequence[Any]) -> Any:
    """The seeds' common value; numbers that differ become a `Spread`, other things a text of all of them.

    Equal values stay as they are, so that a size does not read `0.39 ± 0.00`. No value at all is None.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(value == known[0] for value in known):
        return known[0]
    if all(isinstance(value, (int, float)) and math.isfinite(value) for value in known):
        return Spread(statistics.fmean(known), statistics.stdev(known), len(known))
    return ", ".join(dict.fromkeys(map(str, known)))


def mean_of(value: Any) -> Any:
    """The plain number of a value of `over_seeds`, for reckoning with it."""
    return value.mean if isinstance(value, Spread) else value
