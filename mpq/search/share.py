"""Which sites are decided together: every tensor alone, an encoder layer, or one role in all layers.

Hardware with one kernel a layer, or a search whose every measurement costs a pass, wants fewer decisions than there are
tensors. All searches work on units; with `tensor` a unit is a site.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mpq.errors import UserError
from mpq.quant.sites import Site, block_name

SHARES = ("tensor", "block", "group")


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
        """The number of parameters of all its sites."""
        return sum(site.numel for site in self.sites)


def check_share(share: str) -> str:
    """Return `share`.

    Raises:
        UserError: it is none of `SHARES`.
    """
    if share not in SHARES:
        raise UserError(f"share={share} must be one of {', '.join(SHARES)}")
    return share


def units(sites: Sequence[Site], share: str) -> tuple[Unit, ...]:
    """Return the units of `sites`, in the order of their first sites.

    `share`: `tensor` (each site alone), `block` (the sites of one numbered layer) or `group` (the sites whose names
    differ in the layer's number alone, as the query projections of all layers). A site outside numbered layers is
    alone.
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
