"""mixture against the same sum composed of differentiable operations, and what it keeps in memory."""

import pytest
import torch

from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.grid import grid
from mpq.quant.mixture import mixture

CANDIDATES = (1, 2, 4, 8)
GRIDS = [grid(bits) for bits in CANDIDATES]


def random_inputs(channels, dtype=torch.float64):
    weight = torch.randn(6, 9, dtype=dtype, requires_grad=True)
    levels = torch.tensor([2.0**bits for bits in CANDIDATES]).to(dtype)
    scales = ((1 + torch.rand(4, channels, 1, dtype=dtype)) / levels[:, None, None]).requires_grad_()
    logits = torch.randn(4, dtype=dtype, requires_grad=True)
    return weight, scales, logits


@pytest.mark.parametrize("block", [1, 2**16], ids=["a_row_at_a_time", "all_at_once"])
@pytest.mark.parametrize("channels", [1, 6])
def test_value_and_gradients_equal_the_composition(channels, block, monkeypatch):
    monkeypatch.setattr("mpq.quant.fake_quantize._BLOCK", block)
    weight, scales, logits = random_inputs(channels)
    upstream = torch.randn(6, 9, dtype=torch.float64)
    lambdas = logits.softmax(0)
    composed = sum(lambdas[b] * fake_quantize(weight, scales[b], GRIDS[b]) for b in range(4))
    got = mixture(weight, scales, lambdas, GRIDS)
    torch.testing.assert_close(got, composed)
    inputs = (weight, scales, logits)
    want = torch.autograd.grad(composed, inputs, upstream, retain_graph=True)
    for ours, theirs in zip(torch.autograd.grad(got, inputs, upstream), want, strict=True):
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("channels", [1, 64])
def test_single_precision_is_precise_enough(channels):
    weight, upstream = torch.randn(64, 512), torch.randn(64, 512)
    scales = torch.tensor([2, 1, 1 / 4, 1 / 64])[:, None, None].repeat(1, channels, 1)  # powers: no tie is broken
    inputs = (weight, scales, torch.randn(4).softmax(0))
    single, double = (gradients(inputs, upstream, dtype) for dtype in (torch.float32, torch.float64))
    for ours, exact in zip(single, double, strict=True):
        assert (ours - exact).norm() < 1e-4 * exact.norm()


def gradients(inputs, upstream, dtype):
    leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    return torch.autograd.grad(mixture(*leaves, GRIDS), leaves, upstream.to(dtype))


def test_one_hot_is_the_candidate_itself():
    weight, scales, _ = random_inputs(1, torch.float32)
    for b in range(4):
        one_hot = torch.eye(4)[b]
        assert torch.equal(mixture(weight, scales, one_hot, GRIDS), fake_quantize(weight, scales[b], GRIDS[b]))


def saved_by(function):
    """Distinct tensors kept for the backward pass: address -> bytes."""
    saved = {}

    def pack(tensor):
        saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return saved


def test_keeps_weight_scales_and_lambdas_only():
    weight, scales, logits = random_inputs(6, torch.float32)
    lambdas = logits.softmax(0).detach().requires_grad_()
    saved = saved_by(lambda: mixture(weight, scales, lambdas, GRIDS))
    assert set(saved) == {weight.data_ptr(), scales.data_ptr(), lambdas.data_ptr()}
    assert sum(saved.values()) == 4 * (weight.numel() + scales.numel() + lambdas.numel())


def test_backward_recomputes():
    """A weight changed in place between forward and backward is noticed, so nothing derived from it was kept."""
    weight, scales, logits = random_inputs(1)
    total = mixture(weight, scales, logits.softmax(0), GRIDS).sum()
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
