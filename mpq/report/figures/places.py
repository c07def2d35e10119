"""Where a searched weight stands in the encoder: its layer and its projection, read off its name."""

import re
from collections.abc import Iterable

_NAME = re.compile(r"\.layers\.(\d+)\.(.+)\.weight$")
_SHORT = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "output",
    "intermediate_dense": "FF in",
    "output_dense": "FF out",
}


def place(site: str) -> tuple[int, str]:
    """Layer and projection; a name of another pattern is layer 0 and its own projection.

    `wav2vec2.encoder.layers.3.attention.k_proj.weight` is `(3, "key")`.
    """
    found = _NAME.search(site)
    if not found:
        return 0, site.removesuffix(".weight")
    leaf = found[2].rpartition(".")[2]
    return int(found[1]), _SHORT.get(leaf, found[2])


def projections(sites: Iterable[str]) -> list[str]:
    """The projections among `sites` in the order in which the signal meets them, unknown ones last."""
    names = dict.fromkeys(place(site)[1] for site in sites)
    known = list(_SHORT.values())
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))
