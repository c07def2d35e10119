"""WeightQuantizer: one candidate, mixture, frozen, and its state."""

from dataclasses import asdict

import pytest
import torch
from torch import nn

from mpq import conf
from mpq.errors import UserError
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.grid import grid
from mpq.quant.mixture import mixture
from mpq.quant.quantizer import QuantizerSettings, WeightQuantizer
from mpq.quant.scales import initial_scale


@pytest.fixture
def weight():
    return nn.Parameter(torch.randn(8, 5, 3))


@pytest.mark.parametrize(("granularity", "channels"), [("per_tensor", 1), ("per_channel", 8)])
def test_starts_at_the_least_squares_scales(weight, granularity, channels):
    quantizer = WeightQuantizer(weight, (2, 4, 8), QuantizerSettings(granularity, centred=False))
    assert quantizer.log_scales.shape == (3, channels, 1, 1)
    for bits in (2, 4, 8):
        want = initial_scale(weight, grid(bits, centred=False), granularity)
        torch.testing.assert_close(quantizer.scale(bits), want)


def test_one_candidate_is_plain_lsq(weight):
    quantizer = WeightQuantizer(weight, (3,))
    assert quantizer.bits == 3
    assert torch.equal(quantizer(weight), fake_quantize(weight, quantizer.scale(3), grid(3)))
    quantizer(weight).square().sum().backward()
    assert quantizer.log_scales.grad is not None and quantizer.log_scales.grad.abs().sum() > 0


def test_mixture_until_frozen(weight):
    quantizer = WeightQuantizer(weight, (2, 4, 8))
    assert quantizer.bits is None
    with pytest.raises(RuntimeError, match="lambdas"):
        quantizer(weight)
    quantizer.lambdas = torch.tensor([0.2, 0.5, 0.3])
    want = mixture(weight, quantizer.log_scales.exp(), quantizer.lambdas, quantizer.grids)
    assert torch.equal(quantizer(weight), want)
    quantizer.freeze(4)
    assert quantizer.bits == 4 and quantizer.lambdas is None
    assert torch.equal(quantizer(weight), fake_quantize(weight, quantizer.scale(4), grid(4)))


def test_scale_follows_the_weights_requires_grad(weight):
    assert WeightQuantizer(weight, (4, 8)).keep(8).log_scales.requires_grad
    frozen = WeightQuantizer(weight.requires_grad_(False), (4, 8))
    assert not frozen.log_scales.requires_grad
    assert not frozen.keep(8).log_scales.requires_grad


def test_frozen_precision_travels_in_the_state(weight):
    quantizer = WeightQuantizer(weight, (2, 4, 8))
    quantizer.freeze(2)
    state = quantizer.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    fresh = WeightQuantizer(torch.randn_like(weight), (2, 4, 8))
    fresh.load_state_dict(state)
    assert fresh.bits == 2
    assert torch.equal(fresh(weight), quantizer(weight))
    fresh.load_state_dict(WeightQuantizer(weight, (2, 4, 8)).state_dict())
    assert fresh.bits is None


@pytest.mark.parametrize("candidates", [(), (4, 4), (0, 4), (4, 9)])
def test_refuses_bad_candidates(weight, candidates):
    with pytest.raises(UserError):
        WeightQuantizer(weight, candidates)


def test_refuses_bits_that_are_not_a_candidate(weight):
    quantizer = WeightQuantizer(weight, (2, 4))
    for call in (quantizer.freeze, quantizer.scale, quantizer.grid):
        with pytest.raises(UserError, match=r"3 bits is not a candidate.*\[2, 4\]"):
            call(3)


def test_the_default_settings_are_those_of_the_config():
    configured = conf.read("quantizer", "lsq")
    assert asdict(QuantizerSettings()) == {key: configured[key] for key in asdict(QuantizerSettings())}
