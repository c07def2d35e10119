"""Quantizes any module in one call, without training: `mpq.quantize`."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import nn

from mpq.errors import UserError
from mpq.quant.places import tensor_places
from mpq.quant.quantizer import QuantizerSettings, WeightQuantizer
from mpq.quant.rules import Granularity
from mpq.quant.sites import Site, attach, find_sites


def quantize(
    module: nn.Module,
    bits: int | Mapping[str, int],
    searched: str = "*",
    fixed_bits: int | None = 8,
    granularity: Granularity = "per_channel",
    centred: bool = True,
) -> dict[str, WeightQuantizer]:
    """Quantize the weights of any module in place, with least-squares scales, and return the quantizers by name.

    `bits` is either one precision for every weight whose own or module's name matches the glob `searched` (linear,
    convolution, embedding: all that `find_sites` lists), or an assignment of weight names to bits. All other sites get
    `fixed_bits`, or stay float if it is None; biases and norms always stay float. The module becomes float32.

    Afterwards the module computes with the quantized weights. Train it further (the quantizers learn their scales,
    LSQ), write it with `mpq.save_packed` if it is a speech recognition model, or call `mpq.detach` for a plain module
    with the quantized values.

    Raises:
        UserError: nothing to quantize, a precision outside 1..8, a glob or name that matches no weight, or a module
            that already has quantizers.
    """
    if not isinstance(bits, int | Mapping):
        raise UserError(
            f"bits={bits!r} must be a whole number from 1 to 8, or an assignment of bits to weights' names."
        )
    sites = find_sites(module, searched="")
    names = _matching(module, searched) if isinstance(bits, int) else set(bits)
    if unknown := sorted(names - {site.name for site in sites}):
        raise UserError(f"there is no weight {unknown[0]!r} to quantize; there are, for example, {_some(sites)}.")
    if not names:
        which = f"the glob {searched!r} matches" if isinstance(bits, int) else "the assignment names"
        raise UserError(f"{which} no weight; there are, for example, {_some(sites)}.")
    chosen = dict.fromkeys(names, bits) if isinstance(bits, int) else dict(bits)
    sites = [replace(site, searched=site.name in chosen) for site in sites if site.name in chosen or fixed_bits]
    return attach(module, sites, chosen, QuantizerSettings(granularity, centred, fixed_bits=fixed_bits or 8))


def _matching(module: nn.Module, searched: str) -> set[str]:
    """Return the names of the matching sites; a tied weight matches by any of its names."""
    sites = {site.name for site in find_sites(module, searched="")}
    groups = [places for places in tensor_places(module) if places[0].name in sites]
    return {
        places[0].name
        for places in groups
        if any(fnmatchcase(name, searched) for place in places for name in (place.name, place.path))
    }


def _some(sites: list[Site]) -> str:
    return ", ".join(site.name for site in sites[:3])
