"""The starting scale against a brute-force grid search."""

import pytest
import torch

from mpq.errors import UserError
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.grid import grid
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.scales import initial_scale

DISTRIBUTIONS = {
    "normal": torch.distributions.Normal(0.0, 0.03),
    "shifted": torch.distributions.Normal(0.02, 0.03),
    "heavy": torch.distributions.StudentT(3.0),
    "flat": torch.distributions.Uniform(-2.0, 2.0),
}


def squared_error(rows, scale, grid):
    return (rows - fake_quantize(rows, scale, grid)).square().sum(dim=1)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("shape", "granularity"),
    [((3, 500, 10), "per_channel"), ((64, 60), "per_tensor"), ((160, 16, 10), "per_tensor")],
)
def test_it_is_near_the_best_of_a_brute_force_search(bits, kind, shape, granularity):
    weight, g = DISTRIBUTIONS[kind].sample(shape), grid(bits)
    scale = initial_scale(weight, g, granularity)
    assert scale.dtype == torch.float32
    assert scale.shape == (shape[0] if granularity == "per_channel" else 1, *[1] * (weight.dim() - 1))
    rows = weight.flatten(1) if granularity == "per_channel" else weight.reshape(1, -1)
    widest = 1.1 * rows.abs().amax(dim=1, keepdim=True) / g.top
    trials = [squared_error(rows, widest * ratio, g) for ratio in torch.logspace(-2.5, 0, 300)]
    least = torch.stack(trials).amin(dim=0)
    assert (squared_error(rows, scale.reshape(-1, 1), g) <= 1.03 * least).all()


def test_one_bit_is_the_mean_magnitude():
    weight = torch.randn(32, 40)
    scale = initial_scale(weight, grid(1), "per_tensor")
    torch.testing.assert_close(fake_quantize(weight, scale, grid(1)), weight.sign() * weight.abs().mean())


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_zeros_and_tiny_weights(bits):
    for weight in (torch.zeros(3, 4), torch.randn(3, 4) * 1e-12):
        scale = initial_scale(weight, grid(bits), "per_channel")
        assert (scale > 0).all() and scale.log().isfinite().all()
        assert fake_quantize(weight, scale, grid(bits)).abs().max() < 1e-10


def test_a_grid_is_its_own_best_scale():
    g = grid(4)
    codes = torch.cat([torch.arange(-8, 8), torch.randint(-8, 8, (2000,))]).float()[None]
    torch.testing.assert_close(initial_scale(codes * 0.037, g, "per_tensor"), torch.tensor([[0.037]]))


def test_unknown_granularity():
    with pytest.raises(UserError, match="granularity=per_row must be one of per_tensor, per_channel"):
        QuantizerSettings("per_row")
