"""fake_quantize against LSQ's published formulas and against its own integer path."""

import pytest
import torch

from mpq.errors import UserError
from mpq.quant.fake_quantize import dequantize, fake_quantize, quantize
from mpq.quant.grid import grid

ALL_GRIDS = [grid(bits) for bits in range(1, 9)] + [grid(2, centred=False)]
SCALE_SHAPES = {"per_tensor": (1, 1, 1), "per_channel": (6, 1, 1)}


def random_weight_and_scale(grid, scale_shape, dtype):
    """A weight of which a good part lies beyond the grid."""
    weight = torch.randn(6, 7, 5, dtype=dtype)
    scale = (0.5 + torch.rand(scale_shape, dtype=dtype)) / abs(grid.low)
    return weight, scale


def lsq_by_the_paper(v, s, levels):
    """Equation 3 for one weight, over the grid's levels in units of s: (d vhat / d v, d vhat / d s)."""
    ratio = v / s
    if ratio <= levels[0]:
        return 0.0, levels[0]
    if ratio >= levels[-1]:
        return 0.0, levels[-1]
    return 1.0, -ratio + min(levels, key=lambda level: abs(level - ratio))


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=str)
@pytest.mark.parametrize("granularity", SCALE_SHAPES)
def test_gradient_is_equation_3(grid, granularity):
    weight, scale = random_weight_and_scale(grid, SCALE_SHAPES[granularity], torch.float64)
    upstream = torch.randn_like(weight)
    levels = [code + grid.offset for code in range(grid.low, grid.high + 1)]
    want_weight, want_scale = torch.zeros_like(weight), torch.zeros_like(scale)
    for i, j, k in torch.cartesian_prod(*[torch.arange(n) for n in weight.shape]).tolist():
        row = i if granularity == "per_channel" else 0
        through, slope = lsq_by_the_paper(weight[i, j, k].item(), scale[row, 0, 0].item(), levels)
        want_weight[i, j, k] = upstream[i, j, k] * through
        want_scale[row, 0, 0] += upstream[i, j, k] * slope
    weights_a_scale = 7 * 5 * (1 if granularity == "per_channel" else 6)
    want_scale /= (weights_a_scale * levels[-1]) ** 0.5  # section 2.2

    weight.requires_grad_(), scale.requires_grad_()
    fake_quantize(weight, scale, grid).backward(upstream)
    torch.testing.assert_close(weight.grad, want_weight)
    torch.testing.assert_close(scale.grad, want_scale)
    assert 0 < (want_weight == 0).sum() < weight.numel()  # both branches were seen


@pytest.mark.parametrize("grid", ALL_GRIDS, ids=str)
@pytest.mark.parametrize("granularity", SCALE_SHAPES)
def test_fake_is_dequantize_of_quantize_bit_for_bit(grid, granularity):
    weight, scale = random_weight_and_scale(grid, SCALE_SHAPES[granularity], torch.float32)
    weight.view(-1)[:4] = torch.tensor([0.0, -0.0, -1e-12, 1e9])
    codes = quantize(weight, scale, grid)
    got = fake_quantize(weight, scale, grid)
    assert codes.dtype == torch.int8
    assert torch.equal(got.view(torch.int32), dequantize(codes, scale, grid).view(torch.int32))


@pytest.mark.parametrize("granularity", SCALE_SHAPES)
def test_blocks_of_rows_change_nothing(granularity, monkeypatch):
    weight, scale = random_weight_and_scale(grid(2), SCALE_SHAPES[granularity], torch.float64)
    weight.requires_grad_(), scale.requires_grad_()
    found = []
    for size in (1, 4 * 35 / torch.get_num_threads(), 2**16):  # a row at a time, four and then two, all at once
        monkeypatch.setattr("mpq.quant.fake_quantize._BLOCK", int(size))
        value = fake_quantize(weight, scale, grid(2))
        found.append((value, *torch.autograd.grad(value, (weight, scale), torch.ones_like(weight))))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("centred", [True, False])
def test_nearest_level_of_the_whole_grid(bits, centred):
    g = grid(bits, centred)
    levels = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) + (0.5 if bits == 1 or (bits == 2 and centred) else 0)
    weight, scale = torch.randn(4096), torch.tensor([2.0 / 2**bits])
    least = (weight[:, None] - levels * scale).abs().amin(dim=1)
    torch.testing.assert_close((weight - fake_quantize(weight, scale, g)).abs(), least, rtol=0, atol=1e-6)
    assert quantize(torch.linspace(-9, 9, 9999), scale, g).unique().tolist() == list(range(g.low, g.high + 1))


def test_two_bit_grids():
    weight, scale = torch.linspace(-5, 5, 101), torch.tensor([1.0])
    assert fake_quantize(weight, scale, grid(2)).unique().tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert fake_quantize(weight, scale, grid(2, centred=False)).unique().tolist() == [-2, -1, 0, 1]
    assert fake_quantize(weight, scale, grid(1, centred=False)).unique().tolist() == [-0.5, 0.5]


def test_saves_weight_and_scale_only():
    weight, scale = torch.randn(64, 64, requires_grad=True), torch.tensor([[0.1]], requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fake_quantize(weight, scale, grid(4))
    assert sorted(t.data_ptr() for t in saved) == sorted([weight.data_ptr(), scale.data_ptr()])


@pytest.mark.parametrize("bits", [0, 9, -1, 2.5, True, "4"])
def test_refuses_other_precisions(bits):
    with pytest.raises(UserError, match="whole number from 1 to 8"):
        grid(bits)
