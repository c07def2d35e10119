"""8-bit inputs of linear layers: the numbers, the gradients, the calibration, and the packed file."""

import copy
import logging

import numpy as np
import pytest
import torch
from noise_batches import noise_batches, noise_model
from tiny_speech import speech_of
from torch import nn

from mpq.errors import UserError
from mpq.quant.activation_scales import Activations, static_scales
from mpq.quant.activations import ActivationQuantizer, activation_quantizers_of, attach_activations, detach_activations
from mpq.quant.calibration import Calibration
from mpq.quant.gptq import Gptq
from mpq.quant.sites import attach, find_sites


def hearing(model, batches):
    """What a stage gives: the calibration of this model."""
    return lambda utterances: Calibration(speech_of(model), batches)


def test_dynamic_is_each_tokens_own_scale():
    inputs = torch.randn(3, 5, 40) * torch.logspace(-3, 3, 5)[:, None]
    inputs[1, 2] = 0
    got = ActivationQuantizer()(inputs)
    step = inputs.abs().amax(dim=-1, keepdim=True) / 127.5
    want = (inputs / step).round().clamp(-128, 127).nan_to_num() * step
    torch.testing.assert_close(got, want)
    assert not got[1, 2].any() and len(got[0, 0].unique()) <= 256


def test_dynamic_gives_torchaos_int8_activations():
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    inputs = torch.randn(30, 64)
    scale, zero = primitives.choose_qparams_affine(
        inputs, primitives.MappingType.SYMMETRIC, (1, 64), torch.int8, -128, 127, eps=1e-9
    )
    codes = primitives.quantize_affine(inputs, (1, 64), scale, zero, torch.int8, -128, 127)
    difference = ActivationQuantizer()(inputs) - codes * scale.reshape(-1, 1)
    tie = (((inputs / scale.reshape(-1, 1)) % 1) - 0.5).abs() < 1e-4
    assert difference[~tie].abs().max() < 1e-6


def test_static_is_one_clipped_scale():
    inputs = torch.randn(2, 6, 30)
    scale = torch.tensor([0.01])
    want = torch.fake_quantize_per_tensor_affine(inputs, 0.01, 0, -128, 127)
    got = ActivationQuantizer(scale)(inputs)
    assert ((got - want).abs() > 1e-5).float().mean() < 0.01  # ties: PyTorch multiplies by 1 / scale
    assert got.max() <= 1.28 and got.min() >= -1.29


def test_gradients():
    inputs = (torch.randn(4, 30) * 2).requires_grad_()
    quantizer = ActivationQuantizer(torch.tensor([0.01]))
    quantizer(inputs).sum().backward()
    inside = (inputs > -1.28) & (inputs < 1.27)
    assert torch.equal(inputs.grad, inside.float())
    assert quantizer.log_scales.grad.abs() > 0  # learned, as LSQ's
    inputs.grad = None
    weights = torch.randn(4, 30)
    (ActivationQuantizer()(inputs) * weights).sum().backward()
    assert torch.equal(inputs.grad, weights)


def test_half_precision_keeps_its_type():
    for scale in (None, torch.tensor([0.02])):
        assert ActivationQuantizer(scale)(torch.randn(3, 8).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("percentile", [100.0, 99.0, 80.0])
def test_static_scales_are_percentiles_of_what_is_heard(percentile):
    model = noise_model("hubert", feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
    calibration = Calibration(speech_of(model, True), noise_batches(sizes=(2, 2), equal=False))
    layers = ["hubert.encoder.layers.1.feed_forward.output_dense", "lm_head"]
    seen = {name: [] for name in layers}
    calibration.observe(
        [model.get_submodule(name) for name in layers], lambda k, rows: seen[layers[k]].append(rows.abs().flatten())
    )
    for name, scale in static_scales(calibration, layers, percentile).items():
        magnitudes = torch.cat(seen.pop(name)).numpy()
        want = np.percentile(magnitudes, percentile, method="inverted_cdf")
        assert -1e-6 < float(scale) * 127.5 - want < 1.01 * magnitudes.max() / 2**14  # the bin's upper end
    assert not seen


def test_every_linear_layer_with_a_site_and_no_other():
    model = noise_model("wav2vec2")
    seconds = Activations("static", utterances=3).attach(model, find_sites(model), hearing(model, noise_batches()))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert set(activation_quantizers_of(model)) == linear and len(linear) > 12
    assert seconds == 2 * 3  # two passes over three seconds
    other = noise_model("wav2vec2")
    searched = [site for site in find_sites(other) if site.searched]
    assert Activations("dynamic").attach(other, searched, hearing(other, [])) == 0
    assert set(activation_quantizers_of(other)) == {site.name.removesuffix(".weight") for site in searched}
    plain = noise_model("wav2vec2")
    assert Activations("none").attach(plain, find_sites(plain), hearing(plain, [])) == 0
    assert not activation_quantizers_of(plain)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_each_layer_computes_with_quantized_inputs(kind):
    model, batches = noise_model("wav2vec2"), noise_batches()
    before = copy.deepcopy(model)
    Activations(kind, utterances=3).attach(model, find_sites(model), hearing(model, batches))
    layer = model.wav2vec2.encoder.layers[0].feed_forward.intermediate_dense
    inputs = torch.randn(2, 7, layer.in_features)
    torch.testing.assert_close(layer(inputs), layer.activation_quantizer(inputs) @ layer.weight.T + layer.bias)
    with torch.no_grad():
        first, second = before(batches[0].inputs).logits, model(batches[0].inputs).logits
    assert not torch.equal(first, second)
    detach_activations(model)
    with torch.no_grad():
        assert torch.equal(model(batches[0].inputs).logits, first)


def test_gptq_is_fitted_to_quantized_inputs():
    model, batches = noise_model("wav2vec2"), noise_batches()
    sites = find_sites(model)
    attach_activations(model, {"lm_head": torch.tensor([0.5])})  # coarse enough to see
    attach(model, sites, (3,))
    plain = copy.deepcopy(model)
    detach_activations(plain)
    seen = []
    Calibration(speech_of(model), batches).observe([model.lm_head], lambda _, rows: seen.append(rows))
    assert torch.equal(torch.cat(seen), (torch.cat(seen) / 0.5).round() * 0.5)
    for each in (model, plain):
        Gptq(utterances=3).calibrate(Calibration(speech_of(each), batches))
    assert not torch.equal(model.lm_head.weight, plain.lm_head.weight)
    assert torch.equal(
        model.wav2vec2.feature_projection.projection.weight, plain.wav2vec2.feature_projection.projection.weight
    )


def test_layers_that_are_never_called_stay_float(caplog):
    model = noise_model("wavlm", num_buckets=8, max_bucket_distance=16)
    with caplog.at_level(logging.WARNING):
        Activations("static", utterances=3).attach(model, find_sites(model), hearing(model, noise_batches()))
    assert "8 layers that are never called" in caplog.text and "q_proj" in caplog.text
    names = set(activation_quantizers_of(model))
    assert "wavlm.encoder.layers.0.feed_forward.output_dense" in names and not any("q_proj" in name for name in names)


def test_what_cannot_be_used_is_refused():
    for settings in ({"kind": "int8"}, {"percentile": 30}, {"percentile": 101}, {"utterances": 0}):
        with pytest.raises(UserError, match="must be"):
            Activations(**settings)
    model = noise_model("wav2vec2")
    attach_activations(model, {"lm_head": None})
    for name in ("lm_head", "nothing", "wav2vec2"):
        with pytest.raises(UserError, match="must be a linear layer"):
            attach_activations(model, {name: None})
    model = noise_model("wav2vec2")
    batches = noise_batches()
    batches[0].inputs[0, 0] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        static_scales(Calibration(speech_of(model), batches), ["lm_head"], 100)
