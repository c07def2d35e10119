"""How much a model's predictions mind errors in each weight tensor, from audio without transcripts.

To second order, an error e in the weights moves the posteriors by KL = e' F e / 2 nats, F the Fisher information. Its
trace over a tensor, divided by the number of weights, tells what a unit of squared error costs there if errors are
independent, as rounding errors nearly are. One backward pass a draw gives it for all tensors at once, whereas measured
divergences take a forward pass a tensor and precision (`mpq.search.kl`).

The labels are drawn from the model's own posteriors, one a position: with the transcripts' the squared gradient would
be the "empirical" Fisher, which measures errors of the model, too (Kunstner et al., NeurIPS 2019).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.quant.calibration import Calibration

_DRAWS = 4  # of labels for each batch


def fisher_traces(calibration: Calibration, weights: Sequence[nn.Parameter], seed: int) -> Tensor:
    """Return the trace of the Fisher information of the posteriors over each of `weights`, float64 `[S]`.

    In nats per position and squared weight, averaged over the positions of the calibration's batches.

    Args:
        calibration: the model and its audio; the model is left unchanged.
        weights: plain parameters of the model.
        seed: of the drawn labels.

    Raises:
        UserError: a gradient is not finite.
    """
    needed = [weight.requires_grad for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    traces, count = torch.zeros(len(weights), dtype=torch.float64), 0
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            for batch in calibration.track(calibration.batches, "Sensitivities", "batches"):
                positions = calibration.positions(batch)
                logs = calibration.logits(batch).float().log_softmax(-1)
                real = torch.arange(logs.shape[1], device=logs.device) < positions[:, None]
                for _ in range(_DRAWS):
                    likelihood = logs[real].gather(-1, _drawn(logs[real], generator)[:, None]).sum()
                    gradients = torch.autograd.grad(
                        likelihood, weights, retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                    traces += torch.stack([gradient.double().square().sum().cpu() for gradient in gradients])
                count += _DRAWS * int(positions.sum())
    finally:
        for weight, before in zip(weights, needed, strict=True):
            weight.requires_grad_(before)
    if not traces.isfinite().all():
        raise UserError("the model's outputs on the recordings are not finite: sensitivities can't be measured")
    return traces / count


@torch.no_grad()
def _drawn(logs: Tensor, generator: torch.Generator) -> Tensor:
    """Return one label `[N]` for each row of log-probabilities `[N, vocabulary]`, the same on every device."""
    cumulative = logs.double().exp().cumsum(-1)
    uniform = torch.rand(len(logs), 1, generator=generator, dtype=torch.float64).to(logs.device)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:]).clamp_max_(logs.shape[-1] - 1)[:, 0]
