"""One step for a weight: its errors and bytes, and which steps are kept."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mpq.checkpoint.coding import stored_bytes
from mpq.quant.steps import narrowest, roundings, step_quantizer


def cost(codes, bits):
    return stored_bytes(codes.numpy(), bits)


def weight(heavy, shape=(24, 40)):
    made = torch.randn(shape, dtype=torch.float64)
    return (made * made.abs() if heavy else made).float() * float(torch.empty(()).uniform_(1e-4, 10))


@pytest.mark.parametrize("heavy", [False, True])
def test_errors_and_bytes_are_those_of_the_codes_that_a_quantizer_stores(heavy):
    values = weight(heavy)
    for one in roundings(values, cost, (2, 4, 8)):
        low, high = -(2 ** (one.bits - 1)), 2 ** (one.bits - 1) - 1
        quantizer = step_quantizer(values, one.log_step, one.bits)
        scale = float(quantizer.scale(one.bits))
        assert scale == pytest.approx(np.exp(one.log_step), rel=1e-6) and quantizer.scale(one.bits).numel() == 1
        codes = np.clip(np.round(values.numpy().astype(np.float64) / scale), low, high)
        assert one.error == pytest.approx(float(((codes * scale - values.numpy()) ** 2).sum()), rel=1e-3)
        stored = (quantizer(values) / scale).round().to(torch.int8)
        assert np.abs(stored.numpy() - codes).sum() <= 1 and one.taken == cost(stored, one.bits)


@pytest.mark.parametrize("heavy", [False, True])
def test_for_every_price_of_a_byte_one_of_them_is_about_the_best_there_is(heavy):
    """Against a much finer series of steps, at all widths.

    Three steps an octave miss those at which all codes just fit a width: at most 11 % were lost in 24 draws of this
    size, 20 % in 60 draws of a tenth of it.
    """
    values = weight(heavy, (48, 200))
    kept = roundings(values, cost, (2, 4, 8))
    assert all(a.taken < b.taken and a.error > b.error for a, b in pairwise(kept))
    finer = []
    for step in float(values.square().mean().sqrt()) * np.geomspace(2**-6, 4, 120):
        for bits in (2, 4, 8):
            codes = (values / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            finer.append((cost(codes.to(torch.int8), bits), float((codes * step - values).square().sum())))
    for price in np.geomspace(kept[-1].error, kept[0].error, 30) / values.numel():
        best = min(error + price * taken for taken, error in finer)
        assert min(one.error + price * one.taken for one in kept) <= 1.25 * best


def test_the_narrowest_grid():
    for bits in range(2, 9):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        assert narrowest(torch.tensor([0, high])) == bits and narrowest(torch.tensor([low])) == bits
    assert narrowest(torch.tensor([400])) == 8
