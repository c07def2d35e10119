"""GPTQ: rounds the columns of a weight one after the other and lets the remaining ones compensate for each error.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (ICLR 2023, arXiv
2210.17323). It needs neither gradients nor labels: a layer's inputs show to which errors its outputs are sensitive.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mpq.errors import UserError
from mpq.quant.calibration import Calibration
from mpq.quant.fake_quantize import dequantize, quantize
from mpq.quant.grid import Grid
from mpq.quant.places import Place, tensor_places
from mpq.quant.rules import check_gptq
from mpq.quant.sites import block_name, is_linear

Fitting = Callable[[Place, Callable[[], Tensor]], Tensor]
"""Returns the int8 codes that a place's weight gets; it may set another scale before it calls for GPTQ's."""


class Gptq:
    """Rewrites the quantized weights of linear layers so that the layers' outputs change least on calibration audio.

    It goes through the encoder layer by layer, so that each layer is fitted to the outputs of the quantized layers
    before it. Scales stay as they are. Convolutions with a kernel larger than 1, and linear layers that are never
    called (WavLM reads `q_proj.weight` without calling `q_proj`), stay rounded to nearest.
    """

    def __init__(self, utterances: int, damping: float = 0.01, block: int = 128) -> None:
        """Take the number of training `utterances` to calibrate on; for `damping`, `block` see `compensated_codes`.

        Raises:
            UserError: a value that can't be used.
        """
        check_gptq(utterances, damping, block)
        self.utterances = utterances
        self.damping = damping
        self.block = block

    @torch.no_grad()
    def calibrate(self, calibration: Calibration, fitting: Fitting | None = None) -> None:
        """Fit the weights of the calibration's model in place; its quantizers' precisions must be chosen.

        Each quantized weight is replaced by its levels: quantizing it again gives the same codes. Takes one pass over
        the audio for each numbered layer and each linear layer outside them. `fitting` may change a weight's scale.

        Raises:
            UserError: a layer's inputs are not finite.
        """
        layers: dict[str, list[list[Place]]] = {}
        for places in tensor_places(calibration.model):
            if places[0].quantizer is not None and all(is_linear(place.module) for place in places):
                layers.setdefault(block_name(places[0].name), []).append(places)
        for sites in calibration.track(list(layers.values()), "GPTQ", "layers"):
            for places, hessian in zip(sites, _hessians(sites, calibration), strict=True):
                self._fit(places[0], hessian, fitting)

    def _fit(self, place: Place, hessian: Tensor, fitting: Fitting | None) -> None:
        quantizer = place.quantizer
        assert quantizer is not None and quantizer.bits is not None, "choose the precisions first"
        if not hessian.isfinite().all():
            raise UserError(f"the inputs of {place.name} on the calibration audio are not finite: check the model")
        bits, grid = quantizer.bits, quantizer.grid(quantizer.bits)

        def compensated() -> Tensor:
            matrix = place.weight.flatten(1)  # a pointwise convolution's has a third dimension
            scale = quantizer.scale(bits).flatten(1)
            return compensated_codes(matrix, scale, grid, hessian, self.damping, self.block)

        codes = compensated() if fitting is None else fitting(place, compensated)
        place.weight.copy_(dequantize(codes.view_as(place.weight), quantizer.scale(bits), grid))


def compensated_codes(
    weight: Tensor, scale: Tensor, grid: Grid, hessian: Tensor, damping: float = 0.01, block: int = 128
) -> Tensor:
    """Return int8 codes `[out, in]` that preserve `weight @ inputs` better than the nearest ones.

    GPTQ's algorithm 1, in float64. `weight` is `[out, in]`, `scale` `[1, 1]` or `[out, 1]`, `hessian` `[in, in]` is
    2 X X^T over the inputs X `[in, samples]`; `damping` times the mean of its diagonal is added to the diagonal.
    Columns are processed by decreasing diagonal: the most sensitive first, while most columns are left to compensate
    (the authors' `act-order`). `block` columns are finished before the rest is updated, which affects only speed. A
    column whose input was always zero is rounded to nearest.
    """
    order = hessian.diagonal().argsort(descending=True, stable=True)
    factor = _inverse_factor(hessian.double()[order][:, order], damping)
    scale = scale.double()
    rest = weight.double()[:, order]  # a copy
    codes = torch.empty_like(rest, dtype=torch.int8)
    for start in range(0, rest.shape[1], block):
        stop = min(start + block, rest.shape[1])
        errors = torch.zeros_like(rest[:, start:stop])
        for i in range(start, stop):
            column = rest[:, i : i + 1]
            codes[:, i : i + 1] = quantize(column, scale, grid)
            error = (column - dequantize(codes[:, i : i + 1], scale, grid)) / factor[i, i]
            rest[:, i + 1 : stop] -= error * factor[i, i + 1 : stop]
            errors[:, i - start : i - start + 1] = error
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
    return codes[:, order.argsort()]


def _inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Return the upper triangular U `[in, in]` with U^T U = (hessian + damping)^-1."""
    diagonal = hessian.diagonal().clone()
    damped = diagonal + damping * diagonal.mean()
    damped[diagonal == 0] = 1.0  # the input was always zero: so are its row and column, and any number here will do
    lower = torch.linalg.cholesky(hessian.diagonal_scatter(damped))
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def _hessians(sites: Sequence[Sequence[Place]], calibration: Calibration) -> list[Tensor]:
    """Return 2 X X^T `[in, in]`, float64, over each site's inputs; for a tied weight, over those of all its layers."""
    modules = [(number, place.module) for number, places in enumerate(sites) for place in places]
    hessians = []
    for places in sites:
        size = places[0].weight.shape[1]
        hessians.append(torch.zeros(size, size, dtype=torch.float64, device=places[0].weight.device))

    def add(index: int, rows: Tensor) -> None:
        hessians[modules[index][0]] += 2 * (rows.float().T @ rows.float())

    calibration.observe([module for _, module in modules], add)
    return hessians
