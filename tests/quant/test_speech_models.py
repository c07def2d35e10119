"""Sites of tiny wav2vec2 and HuBERT CTC models with random weights."""

import copy

import pytest
import torch
from transformers import HubertConfig, HubertForCTC, Wav2Vec2Config, Wav2Vec2ForCTC

from mpq.quant.sites import attach, detach, find_sites, fold_weight_norm

SIZE = dict(
    vocab_size=12,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    conv_dim=(8, 12),
    conv_kernel=(10, 4),
    conv_stride=(10, 8),
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
)
MODELS = {
    "wav2vec2": lambda: Wav2Vec2ForCTC(Wav2Vec2Config(**SIZE, feat_extract_norm="group")),
    "hubert": lambda: HubertForCTC(
        HubertConfig(**SIZE, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    model = MODELS[request.param]().eval()
    for parameter in model.parameters():  # transformers starts biases at 0, which hides some weights' effect
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def audio():
    return torch.randn(2, 8000)


@torch.no_grad()
def logits(model, audio):
    return model(audio).logits


def test_folding_the_positional_convolution_keeps_the_outputs(model, audio):
    want = logits(model, audio)
    fold_weight_norm(model)
    assert torch.equal(logits(model, audio), want)
    assert any(name.endswith("encoder.pos_conv_embed.conv.weight") for name, _ in model.named_parameters())


def test_sites_are_the_encoders_linear_weights_and_the_other_weights(model):
    body = model.base_model_prefix
    sites = {site.name: site for site in find_sites(model)}
    layer = [f"attention.{x}_proj" for x in "kvq"] + ["attention.out_proj"]
    layer += ["feed_forward.intermediate_dense", "feed_forward.output_dense"]
    searched = {f"{body}.encoder.layers.{i}.{name}.weight" for i in range(2) for name in layer}
    fixed = {f"{body}.feature_extractor.conv_layers.{i}.conv.weight" for i in range(2)} | {"lm_head.weight"}
    fixed |= {f"{body}.feature_projection.projection.weight", f"{body}.encoder.pos_conv_embed.conv.weight"}
    assert {name for name, site in sites.items() if site.searched} == searched
    assert {name for name, site in sites.items() if not site.searched} == fixed
    fold_weight_norm(model)
    for name, site in sites.items():
        assert (site.shape, site.numel) == (model.get_parameter(name).shape, model.get_parameter(name).numel())


def test_every_site_reaches_the_output(model, audio):
    quantizers = attach(model, find_sites(model), (2, 4, 8))
    for quantizer in quantizers.values():
        if quantizer.bits is None:
            quantizer.lambdas = torch.tensor([0.1, 0.3, 0.6])
    want = logits(model, audio)
    for name in quantizers:
        path, tensor_name = name.rsplit(".", 1)
        original = model.get_submodule(path).parametrizations[tensor_name].original
        kept = original.detach().clone()
        with torch.no_grad():
            original.zero_()
        assert not torch.equal(logits(model, audio), want), name
        with torch.no_grad():
            original.copy_(kept)
    assert torch.equal(logits(model, audio), want)


def test_gradients_reach_every_site_and_scale(model, audio):
    attach(model, find_sites(model), (2, 4, 8))
    for quantizer in (m for m in model.modules() if getattr(m, "candidates", ()) == (2, 4, 8)):
        quantizer.lambdas = torch.tensor([0.1, 0.3, 0.6])
    model(audio).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        if "parametrizations" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_frozen_state_travels_and_detach_bakes(model, audio):
    blank = copy.deepcopy(model)
    sites = find_sites(model)
    quantizers = attach(model, sites, (2, 4, 8))
    for quantizer, bits in zip(quantizers.values(), [2, 4, 8] * len(sites), strict=False):
        if quantizer.bits is None:
            quantizer.freeze(bits)
    with torch.no_grad():
        for quantizer in quantizers.values():
            quantizer.log_scales.add_(0.1 * torch.randn_like(quantizer.log_scales))
    want = logits(model, audio)

    restored = attach(blank, sites, (2, 4, 8))
    blank.load_state_dict(model.state_dict())
    assert {name: q.bits for name, q in restored.items()} == {name: q.bits for name, q in quantizers.items()}
    assert torch.equal(logits(blank, audio), want)
    detach(blank)
    assert torch.equal(logits(blank, audio), want)
    assert not any("parametrizations" in name for name in blank.state_dict())
