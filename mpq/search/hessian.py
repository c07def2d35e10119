"""Second-order sensitivity: the loss's mean curvature in a site's weights times the squared quantization error.

The Hessian is never formed. Its products with a vector are central differences of gradients, since neither torch's CTC
loss nor its fused attention can be differentiated twice (2.13: "derivative for _ctc_loss_backward is not implemented").
A difference needs the memory of one training step, whereas a graph of the gradient would need several times that. Its
step is as large as the errors of fine quantization, so it measures the curvature that matters for quantization.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from mpq.quant.calibration import Calibration
from mpq.search.measured import MeasuredSearch
from mpq.search.rules import check_measured

_STEP = 0.01  # of the weights' root mean square: about the error of 8 bits


@final
class HessianSensitivity(MeasuredSearch):
    """HAWQ-V2: (trace of the loss's Hessian / number of weights) * ||Q_b(W) - W||^2.

    Dong et al., NeurIPS 2020, eq. 2.11 of arXiv 1911.03852. A negative estimate, which can result from sampling or a
    non-convex loss, counts as zero curvature. The cost is 2 * probes gradients over the utterances, regardless of the
    numbers of sites and candidates.
    """

    def __init__(
        self,
        candidates: Sequence[int] = (2, 4, 8),
        utterances: int = 32,
        share: str = "tensor",
        probes: int = 32,
    ) -> None:
        """See `MeasuredSearch`; `probes` random vectors estimate the traces.

        Raises:
            UserError: a value that can't be used.
        """
        check_measured(utterances, share, probes)
        super().__init__(candidates, utterances, share)
        self._probes = probes

    def _measure(self, calibration: Calibration) -> Tensor:
        weights = [calibration.weight(site) for site in self.sites]
        traces = hessian_traces(
            lambda: calibration.gradient(weights),
            weights,
            calibration.track(range(self._probes), "Hessian traces", "probes"),
            self.seed,
        )
        result = torch.zeros(len(self.units), len(self._candidates), dtype=torch.float64, device=traces.device)
        for site, unit, weight, trace in zip(self.sites, self.unit_of.tolist(), weights, traces, strict=True):
            stored = calibration.quantized(site, self._candidates)
            errors = torch.stack([(value - weight.detach()).double().square().sum() for value in stored])
            result[unit] += trace.clamp_min(0) / site.numel * errors
        return result


@torch.no_grad()
def hessian_traces(
    gradient: Callable[[], Sequence[Tensor]],
    weights: Sequence[nn.Parameter],
    probes: Iterable[int],
    seed: int,
    step: float = _STEP,
) -> Tensor:
    """Return Hutchinson's estimate of the Hessian's trace in each of `weights` [S], as the mean over `probes`.

    A probe is one vector v of +1 and -1 (Rademacher) over all weights: the part of v * (H v) that belongs to a tensor
    sums to the trace of its block plus terms of mean 0. H v is (gradient(W + e v) - gradient(W - e v)) / 2 e, where e
    is `step` times the root mean square of all weights. The weights are restored bit for bit.

    Args:
        gradient: returns the loss's gradient for each of `weights` at their current values.
        weights: changed in place while this runs.
        probes: numbers of the probes; probe k is drawn by (seed, k), the same on every device.
        seed: not negative.
        step: relative size of the differences.
    """
    originals = [weight.detach().clone() for weight in weights]
    squares = sum(weight.double().square().sum() for weight in originals)
    size = step * float(squares / sum(weight.numel() for weight in originals)) ** 0.5
    traces = []
    try:
        for probe in probes:
            signs = _signs(weights, seed, probe)
            _shift(weights, originals, signs, size)
            above = gradient()
            _shift(weights, originals, signs, -size)
            below = gradient()
            parts = [(s * (a - b)).double().sum() for s, a, b in zip(signs, above, below, strict=True)]
            traces.append(torch.stack(parts) / (2 * size))
    finally:
        _shift(weights, originals, originals, 0.0)
    return torch.stack(traces).mean(dim=0)


def _signs(weights: Sequence[Tensor], seed: int, probe: int) -> list[Tensor]:
    """Return Rademacher vectors shaped like the weights, from NumPy's generator: the same on every machine."""
    rng = np.random.default_rng([seed, probe])
    drawn = (torch.from_numpy(rng.integers(0, 2, tuple(weight.shape), dtype=np.int8)) for weight in weights)
    return [(bits * 2 - 1).to(weight.device, weight.dtype) for bits, weight in zip(drawn, weights, strict=True)]


def _shift(weights: Sequence[Tensor], originals: Sequence[Tensor], directions: Sequence[Tensor], size: float) -> None:
    for weight, original, direction in zip(weights, originals, directions, strict=True):
        weight.copy_(torch.add(original, direction, alpha=size))
