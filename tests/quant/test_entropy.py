"""The entropy of codes: against numpy's histogram, and its gradient against finite differences."""

import numpy as np
import pytest
import torch

from mpq.quant.entropy import GRID, RAMP, code_counts, entropy, smooth_entropy
from mpq.quant.fake_quantize import quantize

GRANULARITIES = ["per_tensor", "per_channel"]


def scale_of(weight, granularity, codes=3.0):
    """Steps at which the standard deviation of the weights is so many codes."""
    rows = weight.reshape(weight.shape[0] if granularity == "per_channel" else 1, -1)
    return (rows.std(dim=1) / codes).reshape(-1, *[1] * (weight.dim() - 1))


def bits_of(codes):
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / counts.sum()
    return -(shares * np.log2(shares)).sum()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_counts_and_entropy_are_those_of_the_codes(granularity):
    weight = torch.randn(24, 5, 7) * torch.rand(24, 1, 1)
    scale = scale_of(weight, granularity, codes=60.0)  # some weights are beyond the grid
    codes = quantize(weight, scale, GRID).numpy()
    counts = code_counts(weight, scale)
    assert counts.tolist() == [int((codes == code).sum()) for code in range(-128, 128)]
    assert float(entropy(counts)) == pytest.approx(bits_of(codes), rel=1e-12)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("tails", ["normal", "laplace"])
@pytest.mark.parametrize("codes", [0.5, 1.0, 2.0, 6.0])
def test_the_smooth_entropy_is_within_two_percent(granularity, tails, codes):
    """From about one bit on; `codes` 0.5 has 1 to 1.3 bits."""
    drawn = np.random.default_rng(torch.seed() % 2**32).laplace(size=(96, 384))
    weight = torch.randn(96, 384) if tails == "normal" else torch.from_numpy(drawn).float()
    weight *= torch.rand(96, 1) + 0.5
    scale = scale_of(weight, granularity, codes)
    exact = bits_of(quantize(weight, scale, GRID).numpy())
    assert exact <= float(smooth_entropy(weight, scale)) * 1.001
    assert float(smooth_entropy(weight, scale)) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_gradient_is_that_of_finite_differences(granularity):
    weight = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    scale = scale_of(weight.detach(), granularity, codes=1.5).requires_grad_()
    # Away from the ends of the ramps, where the slope jumps.
    for _ in range(3):
        within = (weight / scale).frac().abs() - 0.5
        at_an_end = (within.abs() - RAMP / 2).abs() < 0.01
        weight = (weight.detach() + 0.03 * at_an_end * scale.detach()).requires_grad_()
    for inputs in ((weight, scale.detach()), (weight.detach(), scale)):
        assert torch.autograd.gradcheck(smooth_entropy, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)
    by_weight, by_scale = torch.autograd.grad(smooth_entropy(weight, scale), (weight, scale))
    assert (by_weight != 0).double().mean() == pytest.approx(RAMP, abs=0.25)
    assert (by_scale != 0).any()


def test_beyond_the_grid_nothing_changes():
    weight = torch.tensor([[-500.0, -3.0, 3.0, 500.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(smooth_entropy(weight, torch.ones(1, 1)), weight)
    assert gradient.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_bits_are_lost_as_the_logarithm_of_the_step():
    """At high rates a step twice as large costs one bit (Gish and Pierce 1968)."""
    weight = torch.randn(500, 1000)
    log_scale = scale_of(weight, "per_tensor", codes=8.0).log().requires_grad_()
    (slope,) = torch.autograd.grad(smooth_entropy(weight, log_scale.exp()), log_scale)
    assert float(slope) * np.log(2) == pytest.approx(-1, abs=0.02)
