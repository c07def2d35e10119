"""Which sites are decided together: each tensor alone, an encoder layer, or one role in all layers.

Hardware with one kernel per layer, or a search that needs a pass per measurement, calls for fewer decisions than there
are tensors. All searches work on units; with `tensor` every site is a unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mpq.quant.sites import Site, block_name


@dataclass(frozen=True)
class Unit:
    """Sites that get the same precision.

    `name`: a site's (`encoder.layers.0.attention.q_proj.weight`), a layer's (`encoder.layers.0`), or a role's
    (`encoder.layers.*.attention.q_proj.weight`).
    """

    name: str
    sites: tuple[Site, ...]

    @property
    def numel(self) -> int:
        """The total number of parameters of its sites."""
        return sum(site.numel for site in self.sites)


def units(sites: Sequence[Site], share: str) -> tuple[Unit, ...]:
    """Return the units of `sites`, ordered by their first sites.

    `share`: `tensor` (each site alone), `block` (the sites of one numbered layer) or `group` (the sites whose names
    differ only in the layer number, such as the query projections of all layers). A site outside numbered layers is its
    own unit.
    """
    members: dict[str, list[Site]] = {}
    for site in sites:
        members.setdefault(_unit_name(site.name, share), []).append(site)
    return tuple(Unit(name, tuple(group)) for name, group in members.items())


def _unit_name(name: str, share: str) -> str:
    if share == "block":
        return block_name(name)
    if share == "group":
        return ".".join("*" if word.isdigit() else word for word in name.split("."))
    return name
