"""The size of a packed model: the ideal figure that papers report, and the bytes of its file, packed and coded.

All ratios compare with 32 bits for every parameter of the float model. The ideal one counts only bits times
parameters; a file's counts all of `model.safetensors` and `config.json`: codes, scales, names and checksums. None
includes the processor's files (vocabulary, a few kilobytes, the same for any precision).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from mpq.checkpoint.format import CONFIG_FILE, WEIGHTS_FILE, coded_name, packed_name, read_config, read_declared
from mpq.checkpoint.prediction import Shapes, safetensors_bytes
from mpq.errors import UserError
from mpq.quant.activations import BITS as ACTIVATION_BITS
from mpq.quant.activations import activation_quantizers_of
from mpq.quant.places import first_places
from mpq.quant.quantizer import FLOAT_BITS
from mpq.quant.sites import Site, find_sites, quantizers_of
from mpq.record.result import Bits, Size


def size_of(
    parameters: int, sites: Sequence[Site], bits: Mapping[str, int], on_disk: int, packed: int | None = None
) -> Size:
    """Return the size of a model whose `sites` have `bits` and whose float model has `parameters` parameters.

    `parameters` comes from `count_parameters(model)` before quantizers are attached. `bits` has every site, including
    fixed ones; all else counts as 32 bits. `on_disk`: bytes of its files (`file_bytes`, or predicted); `packed`: of the
    same files without coding.

    Raises:
        UserError: a site without bits.
    """
    if missing := [site.name for site in sites if site.name not in bits]:
        raise UserError(
            f"no bits are given for {missing[0]} ({len(missing)} sites in all), so there is no size to report"
        )
    quantized = sum(site.numel for site in sites)
    ideal = sum(site.numel * bits[site.name] for site in sites) + (parameters - quantized) * FLOAT_BITS
    return Size(
        parameters=parameters,
        ideal_bits=ideal,
        ideal_ratio=parameters * FLOAT_BITS / ideal,
        file_bytes=on_disk,
        file_ratio=parameters * FLOAT_BITS / 8 / on_disk,
        packed_bytes=packed,
    )


def searched_average(sites: Sequence[Site], bits: Mapping[str, int]) -> float | None:
    """Return the average of `bits` over the searched sites, weighted by parameters; None if nothing is searched."""
    searched = [site for site in sites if site.searched]
    count = sum(site.numel for site in searched)
    return sum(site.numel * bits[site.name] for site in searched) / count if count else None


def file_bytes(folder: Path | str) -> int:
    """Return the bytes on disk of `model.safetensors` and `config.json` in `folder`.

    Raises:
        UserError: one of them is missing.
    """
    files = [Path(folder) / WEIGHTS_FILE, Path(folder) / CONFIG_FILE]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{folder} is not a packed model: {missing[0]} is missing")
    return sum(file.stat().st_size for file in files)


def packed_file_bytes(folder: Path | str) -> int:
    """Return what `file_bytes` would be without coding: as version 1 of the format, or as it is for a float model.

    config.json has the same length in both versions.

    Raises:
        UserError: as `read_declared`.
    """
    path = Path(folder) / WEIGHTS_FILE
    on_disk = file_bytes(folder)
    if "quantization_config" not in read_config(Path(folder) / CONFIG_FILE):
        return on_disk
    sites = read_declared(Path(folder))[1]
    shapes = _shapes(path)
    for name, site in sites.items():
        if shapes.pop(coded_name(name), None):
            shapes[packed_name(name)] = ("U8", (site.packed_bytes,))
    return on_disk - path.stat().st_size + safetensors_bytes(shapes)


def _shapes(path: Path) -> Shapes:
    """Return type and shape of all tensors in a safetensors file, from its header."""
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}


def coded_average(folder: Path, names: Sequence[str]) -> float | None:
    """Return the average bits that the codes of the weights `names` take in the file in `folder`, without scales.

    None if the file is not coded: then codes take their bits.
    """
    sites = read_declared(folder)[1]
    shapes = _shapes(folder / WEIGHTS_FILE)
    coded = {name: shapes[coded_name(name)][1][0] for name in sites if coded_name(name) in shapes}
    if not coded:
        return None
    taken = sum(coded.get(name, sites[name].packed_bytes) for name in names)
    return 8 * taken / sum(math.prod(sites[name].shape) for name in names)


def share_of_zeros(model: nn.Module, names: Sequence[str]) -> float:
    """Return the share of zeros among the quantized weights `names` of `model`, with quantizers attached."""
    places = first_places(model)
    with torch.no_grad():
        values = [places[name].value for name in names]
    return sum(int((value == 0).sum()) for value in values) / sum(value.numel() for value in values)


def bits_and_size(
    model: nn.Module, searched: str, target: float | None, parameters: int, folder: Path
) -> tuple[Bits, Size]:
    """Return bits and size of `model`, as it was written to `folder`.

    `searched`: the glob of the layers whose bits are averaged. `target`: of their average, if one was given.
    `parameters`: of the float model, including weight norms. A model without quantizers has 32 bits per weight and no
    target.

    Raises: UserError if nothing is searched, a precision is not decided, or `folder` has no model.
    """
    quantizers = quantizers_of(model)
    sites = find_sites(model, searched)
    bits = {site.name: FLOAT_BITS for site in sites}
    for name, quantizer in quantizers.items():
        if quantizer.bits is None:
            raise UserError(f"{name} has no precision yet, so there is no size to report")
        bits[name] = quantizer.bits
    activations = ACTIVATION_BITS if activation_quantizers_of(model) else FLOAT_BITS
    average = searched_average(sites, bits)
    if average is None:
        raise UserError(f"model.searched={searched!r} names no layer, so there are no average bits to report")
    size = size_of(parameters, sites, bits, file_bytes(folder), packed_file_bytes(folder))
    if not quantizers:
        return Bits(None, average, float(activations)), size
    names = [site.name for site in sites if site.searched]
    coded, zeros = coded_average(folder, names), share_of_zeros(model, names)
    return Bits(target, average, float(activations), coded, zeros), size
