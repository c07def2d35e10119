"""One step for all of a weight: what each step loses, and what its codes take once they are coded.

An n-bit grid fits codes that are stored in n bits each. Where a file's codes are coded without loss, rare codes cost
little: a uniform grid that is wide enough to clip nearly nothing then loses less at the same bytes than the n-bit grid
with the least error, and any rate can be had, not only whole bits. A common step for all channels is near the optimum
(reverse water-filling: channels with larger weights get more of the bytes), and saves a scale a channel.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mpq.quant.fake_quantize import dequantize, quantize
from mpq.quant.grid import grid
from mpq.quant.quantizer import QuantizerSettings, WeightQuantizer

_PER_OCTAVE = 3  # steps tried
_FINEST, _OCTAVES = 2.0**-6, 8  # of the weight's root mean square; from there to 4 times as much
_CLIPPED = 2  # bits: a grid that lacks more of what the codes need loses too much
_SETTINGS = QuantizerSettings("per_tensor", centred=False, clipping="minmax")  # a fast scale, which is replaced at once

Cost = Callable[[Tensor, int], int]
"""Returns the bytes that int8 codes `[out, in, ...]` of so many bits take in the file."""


@dataclass(frozen=True)
class Rounding:
    """A weight rounded to nearest with one step, exp(`log_step`), and codes of `bits` bits.

    `taken`: bytes of its codes in the file. `error`: squared error, summed over the weights.
    """

    log_step: float
    bits: int
    taken: int
    error: float


def roundings(weight: Tensor, cost: Cost, widths: tuple[int, ...]) -> list[Rounding]:
    """Return the best roundings of `weight` `[out, in, ...]`, more bytes and less error from each to the next.

    They are the corners of the lower convex hull of all steps and `widths` (bits, ascending) tried, so that for every
    price a byte one of them is the best. A width that clips is tried, too: its bytes may hold more codes each.
    """
    weight = weight.detach().float()
    scale = weight.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    peak = float(weight.abs().max())
    found = []
    for number in range(_OCTAVES * _PER_OCTAVE + 1):
        log_step = math.log(float(scale) * _FINEST) + number / _PER_OCTAVE * math.log(2)
        needed = 1 + math.log2(peak / math.exp(log_step) + 1)  # bits
        enough = next((bits for bits in widths if bits >= needed), widths[-1])
        tried = [bits for bits in widths if needed - _CLIPPED <= bits < enough] + [enough]
        found += [_rounding(weight, log_step, bits, cost) for bits in tried]
    return _hull(found)


def narrowest(codes: Tensor) -> int:
    """Return the fewest bits, from 2 to 8, whose grid holds `codes`; 8 if none does."""
    low, high = float(codes.min()), float(codes.max())
    grids = ((bits, grid(bits, centred=False)) for bits in range(2, 9))
    return next((bits for bits, part in grids if part.low <= low and high <= part.high), 8)


@torch.no_grad()
def narrow(weight: Tensor, quantizer: WeightQuantizer, cost: Cost) -> None:
    """Declare the fewest bits that the codes of `weight` fit in, in place, unless the file would be larger."""
    (declared,) = quantizer.candidates
    _, bits = least_bytes(
        quantize(weight.detach(), quantizer.scale(declared), quantizer.grid(declared)), declared, cost
    )
    if bits < declared:
        quantizer.resize(bits)


def least_bytes(codes: Tensor, declared: int, cost: Cost) -> tuple[int, int]:
    """Return the bytes that codes of `declared` bits take, or those that hold them if that is less, and which bits."""
    bits = min(narrowest(codes), declared)
    return min((cost(codes, bits), bits), (cost(codes, declared), declared))


def step_quantizer(weight: Tensor, log_step: float, bits: int) -> WeightQuantizer:
    """Return a quantizer for `weight` with one step, exp(`log_step`), and codes of `bits` bits."""
    made = WeightQuantizer(weight, (bits,), _SETTINGS)
    with torch.no_grad():
        made.log_scales.fill_(log_step)
    return made


def _rounding(weight: Tensor, log_step: float, bits: int, cost: Cost) -> Rounding:
    part = grid(bits, centred=False)
    step = torch.full((1,) * weight.dim(), log_step, device=weight.device).exp()  # as `WeightQuantizer.scale`
    codes = quantize(weight, step, part)
    error = dequantize(codes, step, part).sub_(weight).square_().sum(dtype=torch.float64)
    return Rounding(log_step, bits, cost(codes, bits), float(error))


def _hull(found: list[Rounding]) -> list[Rounding]:
    """Return the corners of the lower convex hull of errors over bytes, by rising bytes."""
    corners: list[Rounding] = []
    for one in sorted(found, key=lambda each: (each.taken, each.error)):
        if corners and one.error >= corners[-1].error:
            continue
        while len(corners) > 1 and _slope(corners[-2], one) <= _slope(corners[-2], corners[-1]):
            corners.pop()
        corners.append(one)
    return corners


def _slope(one: Rounding, other: Rounding) -> float:
    return (other.error - one.error) / max(other.taken - one.taken, 1)
