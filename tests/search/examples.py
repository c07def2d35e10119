"""Sites made up for the tests of the searches."""

from collections.abc import Sequence

from mpq.quant.sites import Site


def sites_of(sizes: Sequence[int]) -> list[Site]:
    return [Site(f"layers.{i}.weight", (1, int(n)), int(n), True) for i, n in enumerate(sizes)]
