"""Starting scales against closed forms, a plain restatement of TensorRT's search, and other libraries' integers."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from mpq.errors import UserError
from mpq.quant.fake_quantize import quantize
from mpq.quant.grid import grid
from mpq.quant.quantizer import QuantizerSettings, WeightQuantizer
from mpq.quant.scales import BINS, PERCENTILE, STEP, initial_scale, starting_scale

CLIPPINGS = ("mse", "minmax", "percentile", "entropy")


def heavy(*shape):
    return torch.distributions.StudentT(3.0).sample(shape) * 0.03


def tensorrt_share(magnitudes, g):
    """Migacz's pseudo-code over bins in 0..1, a loop over cells, with the cells of our grid."""
    counts = np.bincount(np.minimum((magnitudes * BINS).astype(int), BINS - 1), minlength=BINS)
    divergences = {}
    for kept in range(max(STEP, g.high + 1), BINS + 1, STEP):
        p = counts[:kept].astype(float)
        p[-1] += counts[kept:].sum()
        units = (np.arange(kept) + 0.5) / kept * (g.top + 0.5)
        cells = np.clip(np.round(units - g.offset), g.low, g.high)
        q = np.zeros(kept)
        for cell in set(cells):
            filled = (cells == cell) & (p > 0)
            if filled.any():
                q[filled] = counts[:kept][cells == cell].sum() / filled.sum()
        divergences[kept] = entropy(p, q) if q.sum() else np.inf
    return min(divergences, key=divergences.__getitem__) / BINS


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_minmax_and_percentile(bits, granularity):
    weight, g = heavy(4, 700, 2), grid(bits)
    rows = weight.flatten(1) if granularity == "per_channel" else weight.reshape(1, -1)
    shape = (len(rows), 1, 1)
    peak = rows.abs().amax(dim=1).reshape(shape)
    torch.testing.assert_close(starting_scale(weight, g, granularity, "minmax"), peak / (g.top + 0.5))
    relative = rows.abs() / peak.reshape(-1, 1)
    share = float(np.percentile(relative.numpy(), PERCENTILE, method="inverted_cdf"))
    got = starting_scale(weight, g, granularity, "percentile")
    torch.testing.assert_close(got, peak * share / (g.top + 0.5))
    assert got.dtype == torch.float32 and (got < peak / (g.top + 0.5)).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("centred", [True, False])
def test_entropy_is_tensorrts_search(bits, centred):
    g = grid(bits, centred)
    weight = heavy(2, 5_000)
    peak = weight.abs().amax(dim=1, keepdim=True)
    for granularity, magnitudes in (("per_tensor", weight.abs() / peak.max()), ("per_channel", weight.abs() / peak)):
        scale = starting_scale(weight, g, granularity, "entropy") * (g.top + 0.5)
        share = scale / (peak if granularity == "per_channel" else peak.max())
        torch.testing.assert_close(share, share[:1].expand_as(share))
        assert float(share[0]) == pytest.approx(tensorrt_share(magnitudes.double().flatten().numpy(), g), rel=1e-5)


def test_entropy_clips_a_far_outlier_and_keeps_an_even_spread():
    even = torch.linspace(-1, 1, 50_001)[None]
    assert starting_scale(even, grid(4), "per_tensor", "entropy") == pytest.approx(1 / 7.5, rel=0.02)
    outlier = torch.cat([torch.randn(1, 50_000), torch.tensor([[100.0]])], dim=1)
    assert starting_scale(outlier, grid(4), "per_tensor", "entropy") < 8 / 7.5


def test_mse_is_the_initial_scale():
    weight = heavy(8, 60)
    assert torch.equal(starting_scale(weight, grid(3), "per_channel"), initial_scale(weight, grid(3), "per_channel"))


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_zeros_and_tiny_weights(clipping, bits):
    for weight in (torch.zeros(3, 40), torch.randn(3, 40) * 1e-12, torch.eye(3, 2000)):
        scale = starting_scale(weight, grid(bits), "per_channel", clipping)
        assert scale.shape == (3, 1) and (scale > 0).all() and scale.log().isfinite().all()


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_quantizer_starts_from_it(clipping):
    weight = heavy(6, 300)
    quantizer = WeightQuantizer(weight, (2, 4), QuantizerSettings(clipping=clipping))
    torch.testing.assert_close(quantizer.scale(4), starting_scale(weight, grid(4), "per_channel", clipping))


def test_unknown_names():
    with pytest.raises(UserError, match="clipping=max must be one of mse, minmax, percentile, entropy"):
        QuantizerSettings(clipping="max")
    with pytest.raises(UserError, match=r"quantizer\.granularity=per_row must be one of per_tensor, per_channel"):
        QuantizerSettings("per_row", clipping="minmax")


def assert_same_integers(ours, theirs, units):
    """Equal, but where a weight lies half-way between two codes to float32's precision (they multiply by 1 / scale)."""
    tie = ((units - units.floor()) - 0.5).abs() < 1e-4
    assert torch.equal(ours[~tie].int(), theirs[~tie].int())
    assert (ours.int() - theirs.int()).abs().max() <= 1 and tie.float().mean() < 0.05  # the largest of a row is one


@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_round_to_nearest_gives_pytorchs_integers(bits, granularity):
    """The integers of `torch.fake_quantize_per_*` at the scale of PyTorch's own observer."""
    observers = pytest.importorskip("torch.ao.quantization.observer")
    weight, g = heavy(24, 50), grid(bits)
    per_tensor = granularity == "per_tensor"
    settings = {"dtype": torch.qint8, "quant_min": g.low, "quant_max": g.high}
    if per_tensor:
        observer = observers.MinMaxObserver(qscheme=torch.per_tensor_symmetric, **settings)
    else:
        observer = observers.PerChannelMinMaxObserver(ch_axis=0, qscheme=torch.per_channel_symmetric, **settings)
    observer(weight)
    want, zero = observer.calculate_qparams()
    scale = starting_scale(weight, g, granularity, "minmax")
    torch.testing.assert_close(scale.flatten(), want)
    if per_tensor:
        theirs = torch.fake_quantize_per_tensor_affine(weight, float(want), 0, g.low, g.high)
    else:
        theirs = torch.fake_quantize_per_channel_affine(weight, want, zero.int(), 0, g.low, g.high)
    theirs = (theirs / want.reshape(-1, 1)).round()
    assert_same_integers(quantize(weight, scale, g), theirs, weight / scale)


@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_round_to_nearest_gives_torchaos_integers(bits, granularity):
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    weight, g = heavy(24, 50), grid(bits)
    block = tuple(weight.shape) if granularity == "per_tensor" else (1, weight.shape[1])
    want, zero = primitives.choose_qparams_affine(
        weight, primitives.MappingType.SYMMETRIC, block, torch.int8, g.low, g.high, eps=1e-9
    )
    scale = starting_scale(weight, g, granularity, "minmax")
    torch.testing.assert_close(scale.flatten(), want.flatten())
    theirs = primitives.quantize_affine(weight, block, want, zero, torch.int8, g.low, g.high)
    assert_same_integers(quantize(weight, scale, g), theirs, weight / scale)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_our_integers_at_any_scale_are_quantos(clipping):
    quanto = pytest.importorskip("optimum.quanto")
    weight = heavy(24, 64)
    scale = starting_scale(weight, grid(8), "per_channel", clipping)
    theirs = quanto.quantize_weight(weight, quanto.qint8, 0, scale, optimized=False)
    assert_same_integers(quantize(weight, scale, grid(8)), theirs._data, weight / scale)
