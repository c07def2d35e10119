"""`mpq.quantize` on models that have nothing to do with speech."""

import copy

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

import mpq
from mpq.errors import UserError
from mpq.quant.fake_quantize import dequantize, quantize
from mpq.quant.grid import grid
from mpq.quant.scales import initial_scale


class Block(nn.Module):
    """A residual block with a depthwise convolution, as torchvision's networks have."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)

    def forward(self, images):
        return images + self.pointwise(torch.relu(self.norm(self.depthwise(images))))


def small_cnn():
    body = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), Block(8), Block(8)]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


CONVOLUTIONS = ["0.weight", "3.depthwise.weight", "3.pointwise.weight", "4.depthwise.weight", "4.pointwise.weight"]


@torch.no_grad()
def run(model, inputs):
    outputs = model(inputs)
    return outputs if isinstance(outputs, torch.Tensor) else outputs.logits


@torch.no_grad()
def rounded_by_hand(model, bits, granularity):
    """A copy of the model with the named weights on the grid of their bits."""
    model = copy.deepcopy(model)
    for name, precision in bits.items():
        weight, levels = model.get_parameter(name), grid(precision)
        scale = initial_scale(weight, levels, granularity)
        weight.copy_(dequantize(quantize(weight, scale, levels), scale, levels))
    return model


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"bits": 4}, dict.fromkeys([*CONVOLUTIONS, "7.weight"], 4)),
        ({"bits": 3, "searched": "*wise"}, dict.fromkeys(CONVOLUTIONS[1:], 3) | {"0.weight": 8, "7.weight": 8}),
        ({"bits": 2, "searched": "7", "fixed_bits": None}, {"7.weight": 2}),
        (
            {"bits": {"0.weight": 8, "3.pointwise.weight": 2, "7.weight": 1}, "fixed_bits": 5},
            {**dict.fromkeys(CONVOLUTIONS, 5), "0.weight": 8, "3.pointwise.weight": 2, "7.weight": 1},
        ),
    ],
)
def test_a_convolutional_network(arguments, expected, granularity):
    model, images = small_cnn(), torch.randn(2, 3, 16, 16)
    want = run(rounded_by_hand(model, expected, granularity), images)
    quantizers = mpq.quantize(model, granularity=granularity, **arguments)
    torch.testing.assert_close({name: quantizer.bits for name, quantizer in quantizers.items()}, expected)
    # Not equal: a learned scale is kept as its logarithm, whose exponential is within a rounding error of it.
    torch.testing.assert_close(run(model, images), want, rtol=1e-4, atol=1e-4)
    quantized = run(model, images)
    mpq.detach(model)
    assert torch.equal(run(model, images), quantized)
    assert not any("parametrizations" in name for name in model.state_dict())


def test_more_bits_are_closer():
    model, images = small_cnn(), torch.randn(16, 3, 16, 16)
    errors = []
    for bits in (2, 8):
        quantized = copy.deepcopy(model)
        mpq.quantize(quantized, bits)
        errors.append((run(quantized, images) - run(model, images)).norm().item())
    assert 0 < errors[1] < errors[0] / 4


def test_a_quantized_network_trains():
    model, images = small_cnn(), torch.randn(8, 3, 16, 16)
    want = run(model, images)
    mpq.quantize(model, 2)
    before = (run(model, images) - want).square().mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    # Down to zero: at a constant rate weights keep crossing a rounding boundary, and a draw can end on the wrong side.
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 60)
    for _ in range(60):
        optimizer.zero_grad()
        (model(images) - want).square().mean().backward()
        optimizer.step()
        decay.step()
    assert (run(model, images) - want).square().mean() < before


def small_bert():
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    model = BertForMaskedLM(BertConfig(vocab_size=40, max_position_embeddings=12, type_vocab_size=2, **sizes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


class Tokens(nn.Module):
    """Two sentences in one input, so that every embedding is used."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(input_ids=tokens, token_type_ids=torch.arange(tokens.shape[1]) // 6 * torch.ones_like(tokens))


def test_a_text_transformer_with_tied_embeddings(tmp_path):
    model, tokens = small_bert(), torch.randint(0, 40, (2, 12))
    quantizers = mpq.quantize(model, 4, searched="*encoder.layer.*")
    embedding = "bert.embeddings.word_embeddings.weight"
    assert {q.bits for name, q in quantizers.items() if ".encoder.layer." in name} == {4}
    assert len(quantizers) == 2 * 6 + 3 + 1 and quantizers[embedding].bits == 8
    word_embeddings, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    assert torch.equal(word_embeddings.weight, decoder.weight)
    assert word_embeddings.parametrizations.weight.original is decoder.parametrizations.weight.original

    want = run(Tokens(model), tokens)
    for name in quantizers:
        path, leaf = name.rsplit(".", 1)
        weight = model.get_submodule(path).parametrizations[leaf].original
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
        assert not torch.equal(run(Tokens(model), tokens), want), name
        with torch.no_grad():
            weight.copy_(kept)

    mpq.detach(model)
    assert word_embeddings.weight is decoder.weight
    model.save_pretrained(tmp_path)
    assert torch.equal(run(Tokens(BertForMaskedLM.from_pretrained(tmp_path)), tokens), want)


def test_a_tied_weight_is_matched_by_either_name():
    model = small_bert()
    quantizers = mpq.quantize(model, 3, searched="cls.predictions.decoder", fixed_bits=None)
    assert {name: q.bits for name, q in quantizers.items()} == {"bert.embeddings.word_embeddings.weight": 3}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"bits": 9}, "1 to 8"),
        ({"bits": 4, "searched": "encoder.*"}, r"glob 'encoder\.\*' matches no weight.*0\.weight"),
        ({"bits": {"8.weight": 4}}, r"no weight '8\.weight'.*0\.weight"),
        ({"bits": {}}, "assignment names no weight"),
        ({"bits": 3.5}, "3.5 must be a whole number"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises(UserError, match=match):
        mpq.quantize(small_cnn(), **arguments)


def test_a_recurrent_layer_can_be_left_out():
    model = nn.ModuleDict({"rnn": nn.LSTM(4, 4), "head": nn.Linear(4, 3)})
    with pytest.raises(UserError, match="recurrent"):
        mpq.quantize(copy.deepcopy(model), 4, searched="head")
    assert list(mpq.quantize(model, 4, searched="head", fixed_bits=None)) == ["head.weight"]
