import noise_speech
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_speech import speech_of
from torch import nn

from mpq.errors import UserError
from mpq.quant.calibration import Calibration, draw_batches
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.grid import grid
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.scales import initial_scale
from mpq.quant.sites import find_sites
from mpq.search.hessian import HessianSensitivity, hessian_traces


@pytest.fixture
def seed():
    value = int(np.random.default_rng().integers(2**31))
    print("seed:", value)
    return value


class SmallModel:
    """Two layers with a tanh between them under cross-entropy, in float64, with the exact Hessian of its weights."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.x, self.y = normal(32, 4), torch.randint(0, 3, (32,), generator=generator)
        self.weights = [nn.Parameter(normal(5, 4)), nn.Parameter(normal(3, 5))]
        flat = torch.cat([weight.detach().flatten() for weight in self.weights])
        self.hessian = torch.autograd.functional.hessian(
            lambda w: self.loss([w[:20].view(5, 4), w[20:].view(3, 5)]), flat
        )
        self.parts = [slice(0, 20), slice(20, 35)]

    def loss(self, weights):
        return F.cross_entropy((self.x @ weights[0].T).tanh() @ weights[1].T, self.y)

    def gradient(self):
        with torch.enable_grad():
            return torch.autograd.grad(self.loss(self.weights), self.weights)

    def traces(self):
        return torch.stack([self.hessian[part, part].trace() for part in self.parts])

    def variance(self):
        """Of one probe's estimate for each weight: twice the squares off the diagonal of its block, plus the rest."""
        squares = self.hessian.square()
        own = torch.stack([squares[p, p].sum() - squares[p, p].diagonal().sum() for p in self.parts])
        return 2 * own + squares[self.parts[0], self.parts[1]].sum()


def test_one_probe_is_the_product_with_the_exact_hessian(seed):
    model = SmallModel(seed)
    before = [weight.detach().clone() for weight in model.weights]
    rng = np.random.default_rng([seed, 3])
    v = torch.from_numpy(np.concatenate([rng.integers(0, 2, w.shape, dtype=np.int8).ravel() for w in model.weights]))
    v = 2.0 * v.double() - 1
    want = torch.stack([(v * (model.hessian @ v))[part].sum() for part in model.parts])
    got = hessian_traces(model.gradient, model.weights, [3], seed, step=1e-4)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(weight, old) for weight, old in zip(model.weights, before, strict=True))


def test_the_estimate_converges_as_one_over_the_root_of_the_samples(seed):
    model, runs = SmallModel(seed), 40
    for samples in (4, 16, 64):
        estimates = [hessian_traces(model.gradient, model.weights, range(samples), seed + k) for k in range(runs)]
        squared = (torch.stack(estimates) - model.traces()).square().mean(dim=0)
        ratio = squared / (model.variance() / samples)  # chi-squared over 40
        assert (ratio > 0.3).all() and (ratio < 2.5).all(), (samples, ratio)


@pytest.fixture
def calibration(tmp_path, seed):
    batches = draw_batches(
        noise_speech.dataset(tmp_path, 5, seed), 5, 1.2, seed, torch.device("cpu")
    )  # of unequal sizes
    assert len(batches) > 1
    return Calibration(speech_of(noise_speech.model(seed, layers=1)), batches, QuantizerSettings("per_tensor"))


def mean_ctc(model, batches):
    """The loss, one utterance after the other."""
    losses = []
    for batch in batches:
        for row, length, labels in zip(model(batch.inputs).logits, batch.lengths, batch.labels, strict=True):
            labels = labels[labels >= 0]
            row = row[: model._get_feat_extract_output_lengths(length)].log_softmax(-1)
            losses.append(F.ctc_loss(row, labels, [len(row)], [len(labels)], zero_infinity=True))  # type: ignore
    return torch.stack(losses).mean()


def test_the_gradient_is_that_of_the_mean_ctc_loss(calibration):
    model = calibration.model
    weights = [calibration.weight(site) for site in find_sites(model) if site.searched]
    want = torch.autograd.grad(mean_ctc(model, calibration.batches), weights)
    torch.testing.assert_close(calibration.gradient(weights), list(want), rtol=1e-3, atol=1e-6)


def test_sensitivity_is_mean_curvature_times_squared_error(calibration, seed):
    model = calibration.model
    sites = [site for site in find_sites(model) if site.searched]
    weights = [calibration.weight(site) for site in sites]
    traces = hessian_traces(lambda: calibration.gradient(weights), weights, range(3), seed)
    heard = calibration.audio_seconds
    search = HessianSensitivity((2, 4), utterances=4, probes=3)
    search.bind(sites, 3.0, seed)
    search.measure(calibration)
    assert calibration.audio_seconds == pytest.approx(2 * heard)
    assert heard == pytest.approx(6 * sum(batch.seconds for batch in calibration.batches))
    for site, weight, trace, row in zip(sites, weights, traces, search.sensitivity, strict=True):
        for bits, value in zip((2, 4), row, strict=True):
            stored = fake_quantize(weight, initial_scale(weight, grid(bits), "per_tensor"), grid(bits))
            want = max(0.0, float(trace)) / weight.numel() * float((stored - weight).detach().square().sum())
            assert float(value) == pytest.approx(want, rel=1e-3, abs=1e-12), site.name

    shared = HessianSensitivity((2, 4), utterances=4, share="block", probes=3)
    shared.bind(sites, 3.0, seed)
    shared.measure(calibration)
    torch.testing.assert_close(shared.sensitivity, search.sensitivity.sum(dim=0, keepdim=True))


def test_single_precision_serves(calibration, seed):
    """The differences' step drowns no curvature in rounding: float32 gives float64's traces to a few percent."""
    model = calibration.model
    sites = [site for site in find_sites(model) if site.searched]

    def traces():
        weights = [calibration.weight(site) for site in sites]
        return hessian_traces(lambda: calibration.gradient(weights), weights, range(2), seed).double()

    single = traces()
    model.double()
    for batch in calibration.batches:
        object.__setattr__(batch, "inputs", batch.inputs.double())
    double = traces()
    assert (single - double).abs().max() < 0.03 * double.abs().max(), (single, double)


def test_refusals():
    with pytest.raises(UserError, match="probes=0"):
        HessianSensitivity(probes=0)
