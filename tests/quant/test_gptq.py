"""GPTQ against a slow restatement from its origin (OBQ), and what it does to layers and to a model."""

import copy

import numpy as np
import pytest
import torch
from noise_batches import noise_batches, noise_model
from tiny_speech import speech_of

from mpq.checkpoint.packed import load_packed, save_packed
from mpq.errors import UserError
from mpq.models import ctc
from mpq.quant.calibration import Calibration
from mpq.quant.fake_quantize import dequantize, fake_quantize, quantize
from mpq.quant.gptq import Gptq, compensated_codes
from mpq.quant.grid import grid
from mpq.quant.places import tensor_places
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.scales import starting_scale
from mpq.quant.sites import attach, find_sites


def correlated(size, samples=400):
    """Inputs [in, samples] of a few directions and some noise."""
    return torch.randn(size, size // 4) @ torch.randn(size // 4, samples) + 0.3 * torch.randn(size, samples)


def problem(out, size, bits, granularity):
    weight, inputs, g = torch.randn(out, size) * 0.1, correlated(size), grid(bits)
    return weight, starting_scale(weight, g, granularity), g, 2 * inputs @ inputs.T, inputs


def obq_codes(weight, scale, g, hessian, damping):
    """Optimal Brain Quantization (Frantar and Alistarh 2022, eq. 3), rows in one order, inverses from scratch."""
    hessian = hessian.double().numpy()
    damped = hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))
    weight, scale = weight.double().numpy().copy(), scale.double().numpy()[:, 0]
    codes = np.zeros(weight.shape)
    remaining = list(np.argsort(-np.diag(hessian), kind="stable"))
    while remaining:
        inverse = np.linalg.inv(damped[np.ix_(remaining, remaining)])
        first = remaining[0]
        codes[:, first] = np.clip(np.round(weight[:, first] / scale - g.offset), g.low, g.high)
        error = weight[:, first] - (codes[:, first] + g.offset) * scale
        weight[:, remaining] -= np.outer(error / inverse[0, 0], inverse[0])
        remaining = remaining[1:]
    return torch.from_numpy(codes).to(torch.int8)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("block", [1, 5, 128])
def test_the_codes_are_obqs(bits, granularity, block):
    weight, scale, g, hessian, _ = problem(6, 17, bits, granularity)
    got = compensated_codes(weight, scale, g, hessian, damping=0.01, block=block)
    assert got.dtype == torch.int8
    assert torch.equal(got, obq_codes(weight, scale, g, hessian, damping=0.01))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_err_less_than_rounded_to_nearest(bits):
    weight, scale, g, hessian, inputs = problem(48, 64, bits, "per_channel")

    def error(codes):
        return ((dequantize(codes, scale, g) - weight) @ inputs).square().sum()

    nearest = error(quantize(weight, scale, g))
    assert error(compensated_codes(weight, scale, g, hessian)) < 0.7 * nearest
    unseen = correlated(64)
    other = 2 * unseen @ unseen.T
    assert error(compensated_codes(weight, scale, g, other)) > 0.7 * nearest  # it is these inputs that it fits


@pytest.mark.parametrize("diagonal", [torch.ones(20), torch.rand(20) + 0.1, torch.zeros(20), torch.arange(20.0)])
def test_independent_inputs_give_round_to_nearest(diagonal):
    weight, scale, g, _, _ = problem(7, 20, 3, "per_channel")
    assert torch.equal(compensated_codes(weight, scale, g, diagonal.diag()), quantize(weight, scale, g))


def test_an_input_that_is_always_zero():
    weight, scale, g, hessian, _ = problem(7, 20, 3, "per_tensor")
    hessian[4], hessian[:, 4] = 0, 0
    kept = [k for k in range(20) if k != 4]
    codes = compensated_codes(weight, scale, g, hessian)
    assert torch.equal(codes[:, 4], quantize(weight, scale, g)[:, 4])
    # The zero lowers the mean of the diagonal, hence the damping, from 19 inputs to 20.
    alone = compensated_codes(weight[:, kept], scale, g, hessian[kept][:, kept], damping=0.01 * 19 / 20)
    assert torch.equal(codes[:, kept], alone)


def quantized(model, bits=3, granularity="per_channel"):
    attach(model, find_sites(model), (bits,), QuantizerSettings(granularity))
    return model


def sites(model):
    return {places[0].name: places[0] for places in tensor_places(model) if places[0].quantizer is not None}


def codes_of(place):
    quantizer = place.quantizer
    return quantize(place.weight, quantizer.scale(quantizer.bits), quantizer.grid(quantizer.bits))


def test_a_model_is_fitted_layer_after_layer():
    model = quantized(noise_model("wav2vec2"))
    before = copy.deepcopy(model)
    calibration = Calibration(speech_of(model), noise_batches())
    Gptq(utterances=4).calibrate(calibration)
    changed = set()
    for (name, place), original in zip(sites(model).items(), sites(before).values(), strict=True):
        linear = isinstance(place.module, torch.nn.Linear)
        assert torch.equal(place.weight, place.value if linear else original.weight)  # its own levels, or untouched
        if not torch.equal(codes_of(place), codes_of(original)):
            changed.add(name)
    assert {name for name in sites(model) if ".layers." in name and "encoder" in name} <= changed
    assert not any("conv" in name for name in changed)
    # The head's inputs are now those of the fitted layers, and its codes are the ones for them.
    hessian = torch.zeros(16, 16)

    def see(_, rows):
        hessian.add_(2 * rows.T @ rows)

    calibration.observe([model.lm_head], see)
    head = sites(before)["lm_head.weight"]
    want = compensated_codes(head.weight, head.quantizer.scale(8), head.quantizer.grid(8), hessian)
    assert (codes_of(sites(model)["lm_head.weight"]) != want).float().mean() < 0.01  # float32 sums may tip a tie


def test_the_layers_outputs_err_less():
    model = quantized(noise_model("wav2vec2"), bits=2)
    original = {name: place.weight.clone() for name, place in sites(model).items()}
    calibration = Calibration(speech_of(model), noise_batches())
    Gptq(utterances=4).calibrate(calibration)
    layers = {n: p for n, p in sites(model).items() if isinstance(p.module, torch.nn.Linear) and ".layers." in n}
    errors = torch.zeros(2, len(layers))

    def see(number, rows):
        name, place = list(layers.items())[number]
        weight, quantizer = original[name], place.quantizer
        nearest = fake_quantize(weight, quantizer.scale(2), quantizer.grid(2))
        for row, value in enumerate((nearest, place.value)):
            errors[row, number] += (rows @ (value - weight).T).square().sum()

    with torch.no_grad():
        calibration.observe([place.module for place in layers.values()], see)
    # A greedy method on layers of 16 inputs: one may lose.
    assert (errors[1] < errors[0]).sum() >= len(layers) - 2 and errors[1].sum() < 0.9 * errors[0].sum()


def test_padding_plays_no_part():
    model = quantized(noise_model("hubert", feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True))
    batch = noise_batches(sizes=(2,), equal=False)[0]
    seen = []
    Calibration(speech_of(model, True), [batch]).observe([model.lm_head], lambda _, rows: seen.append(rows))
    counts = ctc.frames(model, batch.lengths)
    assert counts[0] != counts[1] and [len(rows) for rows in seen] == [int(counts.sum())]


def test_the_packed_file_gives_the_same_logits(tmp_path):
    model = quantized(noise_model("wav2vec2"), bits=4, granularity="per_tensor")
    batches = noise_batches()
    Gptq(utterances=4).calibrate(Calibration(speech_of(model), batches))
    save_packed(tmp_path / "packed", model)
    loaded, _ = load_packed(tmp_path / "packed")
    with torch.no_grad():
        for batch in batches:
            assert torch.equal(loaded(batch.inputs).logits, model(batch.inputs).logits)


def test_tied_layers_are_fitted_to_the_inputs_of_all():
    model = noise_model("wav2vec2")
    layers = model.wav2vec2.encoder.layers
    layers[1].attention.q_proj.weight = layers[0].attention.q_proj.weight
    Gptq(utterances=4).calibrate(Calibration(speech_of(quantized(model)), noise_batches()))
    assert torch.equal(layers[0].attention.q_proj.weight, layers[1].attention.q_proj.weight)


def test_layers_that_are_never_called_are_rounded_to_nearest():
    model = quantized(noise_model("wavlm", num_buckets=8, max_bucket_distance=16))
    before = copy.deepcopy(model)
    Gptq(utterances=4).calibrate(Calibration(speech_of(model), noise_batches()))
    layer, original = (m.wavlm.encoder.layers[0] for m in (model, before))
    assert torch.equal(layer.attention.q_proj.weight, original.attention.q_proj.weight)
    assert not torch.equal(layer.feed_forward.output_dense.weight, original.feed_forward.output_dense.weight)


class Pointwise(torch.nn.Module):
    """A linear layer as conformers have it: a convolution with a kernel of 1, over frames in the last dimension."""

    def __init__(self, linear):
        super().__init__()
        self.conv = torch.nn.Conv1d(linear.in_features, linear.out_features, 1)
        with torch.no_grad():
            self.conv.weight.copy_(linear.weight[:, :, None])
            self.conv.bias.copy_(linear.bias)

    def forward(self, hidden):
        return self.conv(hidden.mT).mT


def test_a_pointwise_convolution_is_fitted_as_a_linear_layer():
    model, batches, codes = noise_model("wav2vec2"), noise_batches(equal=False), []
    twin = copy.deepcopy(model)
    for layer in twin.wav2vec2.encoder.layers:
        layer.feed_forward.output_dense = Pointwise(layer.feed_forward.output_dense)
    rounded = quantized(copy.deepcopy(twin))
    for each in (model, twin):
        Gptq(utterances=4).calibrate(Calibration(speech_of(quantized(each)), batches))
    for each in (model, twin, rounded):
        places = [place for name, place in sites(each).items() if "output_dense" in name]
        codes.append(torch.cat([codes_of(place).flatten() for place in places]))
    linear, pointwise, nearest = codes
    assert (pointwise != linear).float().mean() < 0.01 < (pointwise != nearest).float().mean()


def test_what_cannot_be_used_is_refused():
    for settings in ({"utterances": 0}, {"utterances": 1, "damping": 0.0}, {"utterances": 1, "block": 0}):
        with pytest.raises(UserError, match="to be positive"):
            Gptq(**settings)
    model = quantized(noise_model("wav2vec2"))
    batches = noise_batches()
    batches[0].inputs[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        Gptq(utterances=4).calibrate(Calibration(speech_of(model), batches))
