import copy

import noise_speech
import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tiny_speech import speech_of
from tiny_whisper import tiny_whisper

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models.seq2seq import Seq2SeqModel
from mpq.models.speech import Choices
from mpq.quant.calibration import Calibration, draw_batches
from mpq.quant.fake_quantize import dequantize, quantize
from mpq.quant.grid import grid
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.scales import initial_scale
from mpq.quant.sites import find_sites
from mpq.search.kl import KLSensitivity

CANDIDATES = (1, 3, 6)


@pytest.fixture
def seed():
    value = int(np.random.default_rng().integers(2**31))
    print("seed:", value)
    return value


@pytest.fixture
def calibration(tmp_path, seed):
    dataset = noise_speech.dataset(tmp_path, 5, seed)
    batches = draw_batches(dataset, 4, 1.5, seed, torch.device("cpu"))
    assert len(batches) > 1 and sum(len(batch.ids) for batch in batches) == 4
    return Calibration(speech_of(noise_speech.model(seed)), batches, QuantizerSettings("per_tensor"))


def test_recordings_that_cannot_be_heard_are_told(tmp_path, seed, caplog):
    dataset = noise_speech.dataset(tmp_path, 5, seed)
    dataset.stop = False
    for number, utterance in enumerate(dataset.utterances):
        if number == 2:
            batches = draw_batches(dataset, 5, 1.5, seed, torch.device("cpu"))
            assert sum(len(batch.ids) for batch in batches) == 3
            told = [record.getMessage() for record in caplog.records]
            assert len(told) == 2 and all(message.startswith("left out: ") for message in told)
        utterance.path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 5 recordings to calibrate with can be read; the first: .*empty"):
        draw_batches(dataset, 5, 1.5, seed, torch.device("cpu"))


def searched(model):
    return [site for site in find_sites(model) if site.searched]


def posteriors(model, calibration):
    """Log-posteriors [frames, vocabulary] of one utterance after the other, as padded in its batch."""
    for batch in calibration.batches:
        counts = model._get_feat_extract_output_lengths(batch.lengths)
        for row, count in zip(model(batch.inputs).logits, counts, strict=True):
            yield log_softmax(row[:count].detach().double().numpy(), axis=-1)


def directly(model, calibration, names, bits):
    """Quantize the tensors `names` of a copy, run it, compare; NumPy, frame by frame."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name in names:
            weight = changed.get_parameter(name)
            scale = initial_scale(weight, grid(bits), "per_tensor")
            weight.copy_(dequantize(quantize(weight, scale, grid(bits)), scale, grid(bits)))
    frames = []
    for p, q in zip(posteriors(model, calibration), posteriors(changed, calibration), strict=True):
        frames += list((np.exp(p) * (p - q)).sum(-1))
    return np.mean(frames)


@pytest.mark.parametrize("share", ["tensor", "block", "group"])
def test_sensitivity_is_a_direct_computation(calibration, seed, share):
    model, before = calibration.model, copy.deepcopy(calibration.model.state_dict())
    search = KLSensitivity(CANDIDATES, utterances=4, share=share)
    search.bind(searched(model), 3.0, seed)
    search.measure(calibration)
    want = [
        [directly(model, calibration, [site.name for site in unit.sites], bits) for bits in CANDIDATES]
        for unit in search.units
    ]
    assert np.min(want) > 0
    np.testing.assert_allclose(search.sensitivity.numpy(), want, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(-search.scores(), search.sensitivity)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    heard = sum(batch.seconds for batch in calibration.batches)
    assert calibration.audio_seconds == pytest.approx(heard * (len(search.units) * len(CANDIDATES) + 1))


def test_what_runs_before_a_unit_runs_once(seed, monkeypatch):
    """On a Whisper with all weights searched: the same numbers, bit for bit, as with all computed each time."""
    torch.manual_seed(seed)
    speech = Seq2SeqModel(*tiny_whisper(seed), Choices(margin_seconds=0.2))
    labels = torch.randint(97, 123, (2, 5))
    batches = [Batch(["a", "b"], torch.randn(2, 3000, 80), torch.tensor([40, 30]), labels, 0.7, []) for _ in range(2)]
    sites = [site for site in find_sites(speech.model, "*") if site.searched]
    encoder, runs, found = speech.model.get_encoder(), [], []
    encoder.conv1.register_forward_hook(lambda *_: runs.append(1))
    inside = sum(site.name.startswith("model.encoder.") for site in sites)
    for front in (encoder, None):
        monkeypatch.setattr(Seq2SeqModel, "front", front)
        runs.clear()
        search = KLSensitivity((2, 8), utterances=4)
        search.bind(sites, 3.0, seed)
        search.measure(Calibration(speech, batches))
        assert len(runs) == 2 * (1 + 2 * (inside if front else len(sites)))
        found.append(search.sensitivity)
    assert 0 < inside < len(sites) and (found[1] > 0).all()
    assert torch.equal(*found)


def test_padding_does_not_count(calibration, seed):
    search = KLSensitivity((2,), utterances=4)
    search.bind(searched(calibration.model), 2.0, seed)
    search.measure(calibration)
    first = search.sensitivity.clone()
    model = calibration.model
    inner = model.forward

    def spoilt(**inputs):  # what a model says about padding is anything
        output = inner(**inputs)
        lengths = next(b.lengths for b in calibration.batches if any(b.inputs is value for value in inputs.values()))
        counts = model._get_feat_extract_output_lengths(lengths)
        padded = torch.arange(output.logits.shape[1]) >= counts[:, None]
        output.logits = output.logits + padded[..., None] * torch.randn_like(output.logits) * 50
        return output

    model.forward = spoilt
    search.measure(calibration)
    torch.testing.assert_close(search.sensitivity, first)


def test_one_candidate_needs_no_choice_but_a_target_within_it(calibration, seed):
    search = KLSensitivity((4,), utterances=1)
    sites = searched(calibration.model)
    search.bind(sites, 4.0, seed)
    search.measure(calibration)
    assert search.assignment() == {site.name: 4 for site in sites}
    with pytest.raises(UserError, match=r"target_bits=3\.0"):
        KLSensitivity((4,), utterances=1).bind(sites, 3.0, seed)


def test_equal_sensitivities_leave_no_budget_unused(calibration, seed):
    search = KLSensitivity((2, 4, 8), utterances=1)
    sites = searched(calibration.model)
    search.bind(sites, 5.0, seed)
    search.sensitivity = torch.zeros_like(search.sensitivity)
    bits = search.assignment()
    average = sum(bits[site.name] * site.numel for site in sites) / sum(site.numel for site in sites)
    assert 4.9 < average <= 5.0


def test_refusals(calibration, seed):
    with pytest.raises(UserError, match="utterances=0"):
        KLSensitivity(utterances=0)
    with pytest.raises(UserError, match="share=layer must be one of tensor, block, group"):
        KLSensitivity(share="layer")
    search = KLSensitivity()
    search.bind(searched(calibration.model), 3.0, seed)
    with pytest.raises(RuntimeError, match="measure"):
        search.assignment()
    with torch.no_grad():
        calibration.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="outputs"):
        search.measure(calibration)
