"""The bit budget, met by construction: one multiplier for all sites, solved for at every update.

A penalty on the expected bits needs a coefficient, and under Adam, which moves every logit at the same speed, it can
push all sites to the lowest candidate before the task's gradient has any effect. Here the probabilities are instead

    lambda_l = softmax((a_l + g_l - nu * b) / T),  with the one nu at which sum_l n_l lambda_l . b / sum_l n_l = target,

so that the expected average is the target at every temperature, and a site gains bits only where others give some up.
`nu` is a smooth function of the logits, and its gradient (implicit function theorem) is part of theirs. The target may
change from update to update (`descended`). Where the budget counts coded bits, b differs from site to site: it is what
the site's codes take, a weight.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_POINTS = 7  # a round evaluates 7 multipliers at once and narrows the bracket 8-fold: few launches, little arithmetic
_ROUNDS = 19  # 8^-19 = 2^-57: beyond the resolution of float64
_LEAST_GAP = 0.01  # bits between two candidates of a site; coded ones may take the same, and no multiplier parts them


def solve(
    logits: Tensor,
    sizes: Tensor,
    candidates: Sequence[int] | Tensor,
    target: float,
    temperature: float,
    noise: Tensor | None = None,
) -> Tensor:
    """Return the probabilities `lambda` [S, C] whose expected average bits equal `target`, differentiable in `logits`.

    Args:
        logits: `a` [S, C], one row per site, one column per candidate; -inf forbids a candidate at a site.
        sizes: parameter counts `n` [S].
        candidates: bits `b`, C of them, or bits a weight of each site at each candidate [S, C].
        target: average bits, weighted by `sizes`, within the range that the allowed candidates span.
        temperature: `T`.
        noise: Gumbel noise `g` [S, C], or None for the probabilities without noise.
    """
    noisy = logits if noise is None else logits + noise
    return log_solve(noisy, sizes, candidates, target, temperature).exp().to(logits.dtype)


def descended(start: float, target: float, progress: float) -> float:
    """Return the average bits after a share `progress` of the way down from `start` to `target`, linear in bits."""
    return target if progress >= 1 else start + (target - start) * progress


def log_solve(
    logits: Tensor, sizes: Tensor, candidates: Sequence[int] | Tensor, target: float, temperature: float | Tensor
) -> Tensor:
    """Return log `lambda` [S, C] of `solve` in float64: in float32 the multiplier would miss the target at low T."""
    scaled = (logits.double() / temperature).t().contiguous()  # [C, S]: a softmax over dim 0 is 7 times faster on CPUs
    bits = torch.as_tensor(candidates, dtype=torch.float64, device=logits.device)
    bits = bits[:, None] if bits.ndim == 1 else bits.t().contiguous()  # [C, 1] or [C, S]
    shares = sizes.double() / sizes.double().sum()
    with torch.no_grad():
        nu = _root(scaled, shares, bits, target)
        probabilities = _probabilities(scaled, bits, nu)
        mean = (bits * probabilities).sum(dim=0)
        slope = ((bits - mean) ** 2 * probabilities).sum(dim=0) @ shares  # -dB/dnu: the mean variance
    # The value of nu stays the root; one Newton term adds its gradient, -(dB/da) / (dB/dnu). If every site is one-hot,
    # both derivatives are zero, and the floor avoids a NaN from 0/0.
    average = (bits * _probabilities(scaled, bits, nu)).sum(dim=0) @ shares
    nu = nu + (average - average.detach()) / slope.clamp_min(1e-30)
    return torch.log_softmax(scaled - bits * nu, dim=0).t()


def _probabilities(scaled: Tensor, bits: Tensor, nu: Tensor) -> Tensor:
    """Return the softmax over candidates of `scaled` - nu b, for one multiplier [C, S] or for P of them [C, P, S]."""
    if nu.ndim == 0:
        return torch.softmax(scaled - bits * nu, dim=0)
    return torch.softmax(scaled[:, None] - bits[:, None] * nu[:, None], dim=0)


def _root(scaled: Tensor, shares: Tensor, bits: Tensor, target: float) -> Tensor:
    """Return the root of B(nu) = target by sectioning; B decreases in nu, and no round synchronises with the device."""
    allowed = ~torch.isneginf(scaled)
    highest, lowest = scaled.amax(dim=0), scaled.where(allowed, torch.inf).amin(dim=0)
    gap = bits.diff(dim=0).abs().amin() if len(bits) > 1 else bits.new_ones(())
    gap = gap.clamp_min(_LEAST_GAP)
    high = ((highest - lowest).amax() + 40.0) / gap  # here each site's lowest candidate has all but exp(-40)
    low = -high  # and here its highest candidate has
    steps = torch.arange(1, _POINTS + 1, dtype=torch.float64, device=scaled.device)
    for _ in range(_ROUNDS):
        step = (high - low) / (_POINTS + 1)
        averages = (bits[:, None] * _probabilities(scaled, bits, low + step * steps)).sum(dim=0) @ shares  # [P]
        low = low + step * (averages > target).sum()
        high = low + step
    return (low + high) / 2
