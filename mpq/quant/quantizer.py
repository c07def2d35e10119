"""The quantizer of one weight tensor, as a `torch.nn.utils.parametrize` parametrization."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.grid import Grid
from mpq.quant.grid import grid as grid_of
from mpq.quant.mixture import mixture
from mpq.quant.rules import Clipping, Granularity, check_weights
from mpq.quant.scales import starting_scale


@dataclass(frozen=True)
class QuantizerSettings:
    """How weights are quantized; the defaults are those of `conf/quantizer/lsq.yaml`.

    `granularity`: one scale per tensor or per output channel. `centred`: see `grid`. `clipping`: how a scale is
    initialised, see `starting_scale`. `fixed_bits`: the precision of the sites that are not searched.

    Raises:
        UserError: an unknown granularity or clipping, or bits that no weight can have.
    """

    granularity: Granularity = "per_channel"
    centred: bool = True
    clipping: Clipping = "mse"
    fixed_bits: int = 8

    def __post_init__(self) -> None:
        check_weights(self.granularity, self.clipping, self.fixed_bits)


LSQ = QuantizerSettings()  # `conf/quantizer/lsq.yaml`
FLOAT_BITS = 32  # bits of a weight that is not quantized


class WeightQuantizer(nn.Module):
    """Maps a float weight to its fake-quantized value, at one precision or at a mixture of candidates.

    With several candidates it returns the mixture weighted by `lambdas`, which the precision search sets at each step,
    until `freeze` chooses one of them. Frozen, or with one candidate, it is plain LSQ. `now` overrides both for the
    forward passes that follow: another candidate (bits), or `FLOAT_BITS` for the weight as it is.

    `log_scales` `[C, 1 or out, 1, ...]` are the logarithms of the scales, one row per candidate. In the log domain an
    Adam step of 1e-3 changes a scale by 0.1 percent whatever its size (scales at 2 and 8 bits differ by a factor of
    50), and no step can make it negative. Weight decay must not apply to them. Their `requires_grad` is the weight's.
    """

    lambdas: Tensor | None
    now: int | None

    def __init__(self, weight: Tensor, candidates: Sequence[int], settings: QuantizerSettings = LSQ) -> None:
        """Initialise the scales from `weight` `[out, in, ...]` according to `settings`.

        `candidates` are precisions in bits, in the order of the scales and lambdas.

        Raises:
            UserError: no candidate, a repeated one, or one outside 1..8.
        """
        super().__init__()
        self.candidates = tuple(candidates)
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise UserError(f"candidates {list(candidates)} must be at least one precision, each named once.")
        self.granularity = settings.granularity
        self.grids = tuple(grid_of(bits, settings.centred) for bits in self.candidates)
        scales = [starting_scale(weight, grid, settings.granularity, settings.clipping) for grid in self.grids]
        self.log_scales = nn.Parameter(torch.stack(scales).log(), requires_grad=weight.requires_grad)
        self.lambdas = self.now = None
        self._frozen: int | None = None

    @property
    def bits(self) -> int | None:
        """The precision in bits, or None while it is still a mixture."""
        return self.candidates[0] if len(self.candidates) == 1 else self._frozen

    def freeze(self, bits: int) -> None:
        """Choose one candidate; from then on the others and the lambdas are ignored.

        Raises:
            UserError: `bits` is not among the candidates.
        """
        self._check_candidate(bits)
        self._frozen = bits
        self.lambdas = None

    def keep(self, bits: int) -> Self:
        """Drop all candidates but one, with their scales, and return this quantizer; `log_scales` is a new parameter.

        Raises:
            UserError: `bits` is not among the candidates.
        """
        self._check_candidate(bits)
        row = self.candidates.index(bits)
        self.candidates, self.grids = (bits,), (self.grids[row],)
        kept = self.log_scales.detach()[row : row + 1].clone()
        self.log_scales = nn.Parameter(kept, requires_grad=self.log_scales.requires_grad)
        self.lambdas = None
        return self

    def resize(self, bits: int) -> None:
        """Change the one precision and keep the scale: the same weights if their codes fit in `bits` bits.

        Raises:
            UserError: there are several candidates, or the levels of `bits` are not whole steps like those of now.
        """
        before, after = self.grids[0], grid_of(bits, centred=False)
        if len(self.grids) > 1 or before.offset != after.offset:
            raise UserError(f"a quantizer with candidates {list(self.candidates)} can't be resized to {bits} bits.")
        self.candidates, self.grids = (bits,), (after,)

    def scale(self, bits: int) -> Tensor:
        """Return the scale of one candidate, positive, `[1 or out, 1, ...]`.

        Raises:
            UserError: `bits` is not among the candidates.
        """
        self._check_candidate(bits)
        return self.log_scales[self.candidates.index(bits)].exp()

    def grid(self, bits: int) -> Grid:
        """Return the grid of one candidate.

        Raises:
            UserError: `bits` is not among the candidates.
        """
        self._check_candidate(bits)
        return self.grids[self.candidates.index(bits)]

    def forward(self, weight: Tensor) -> Tensor:
        """Return the fake-quantized weight, `[out, in, ...]` like `weight`.

        Raises:
            RuntimeError: there are several candidates and neither `lambdas` nor a frozen precision.
        """
        bits = self.bits if self.now is None else self.now
        if bits == FLOAT_BITS:
            return weight
        if bits is not None:
            return fake_quantize(weight, self.scale(bits), self.grid(bits))
        if self.lambdas is None:
            raise RuntimeError(
                f"a quantizer with candidates {self.candidates} was used before its precision was chosen: "
                "set `lambdas` (a precision search does) or call `freeze(bits)`"
            )
        return mixture(weight, self.log_scales.exp(), self.lambdas, self.grids)

    def get_extra_state(self) -> Tensor:
        """Return the frozen precision in bits, 0 for none, as a tensor, so that any format for weights can store it."""
        return torch.tensor(self._frozen or 0, dtype=torch.int8)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore what `get_extra_state` returned."""
        self._frozen = None
        if int(state) != 0:
            self.freeze(int(state))

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        return f"candidates={self.candidates}, bits={self.bits}, granularity={self.granularity}"

    def _check_candidate(self, bits: int) -> None:
        if bits not in self.candidates:
            raise UserError(f"{bits} bits is not a candidate here: choose one of {list(self.candidates)}.")
