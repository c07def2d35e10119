"""Sites on plain modules: the rule, ties, names, errors, and taking quantizers off again."""

import copy

import pytest
import torch
from tiny_whisper import whisper
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mpq.errors import UserError
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import Site, attach, detach, find_sites, fold_weight_norm, quantizers_of


class Tied(nn.Module):
    """An embedding whose matrix is the output layer's too, with a convolution between."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.conv = weight_norm(nn.Conv1d(6, 6, 3, padding=1), dim=2)
        self.gate = nn.Parameter(torch.randn(1, 6, 1))
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head((self.conv(self.embedding(tokens).mT) * self.gate).mT)


TOKENS = torch.arange(22).remainder(11).view(2, 11)


def test_the_rule():
    assert find_sites(Tied(), searched="head") == [
        Site("embedding.weight", (11, 6), 66, True),
        Site("conv.weight", (6, 6, 3), 108, False),
    ]
    assert not any(site.searched for site in find_sites(Tied(), searched=""))


class OwnForward(nn.Conv1d):
    def forward(self, frames):
        return super().forward(frames.mT).mT


def test_pointwise_convolutions_are_searched_like_linear_layers():
    kinds = {
        "linear": nn.Linear(4, 6),
        "pointwise": nn.Conv1d(4, 6, 1),
        "normed": weight_norm(nn.Conv1d(4, 6, 1)),
        "wide": nn.Conv1d(4, 6, 3),
        "strided": nn.Conv1d(4, 6, 1, stride=2),
        "grouped": nn.Conv1d(4, 6, 1, groups=2),
        "own_forward": OwnForward(4, 6, 1),  # whose inputs may be arranged otherwise
        "two_dimensions": nn.Conv2d(4, 6, 1),
    }
    model = nn.ModuleDict(kinds)
    plain = find_sites(model, "*")
    assert {site.name for site in plain if site.searched} == {f"{x}.weight" for x in ("linear", "pointwise", "normed")}
    attach(model, plain, (4,))
    assert find_sites(model, "*") == plain


def test_tied_stay_tied():
    model = Tied()
    quantizers = attach(model, find_sites(model, "head"), (4,))
    assert list(quantizers) == ["embedding.weight", "conv.weight"]
    assert torch.equal(model.embedding.weight, model.head.weight)
    matrices = [p for p in model.parameters() if p.shape == (11, 6)]
    assert len(matrices) == 1
    assert torch.equal(model.head.weight, quantizers["embedding.weight"](matrices[0]))
    with torch.no_grad():
        matrices[0].mul_(-1)
    want = quantizers["embedding.weight"](matrices[0])
    assert torch.equal(model.embedding.weight, want) and torch.equal(model.head.weight, want)
    detach(model)
    assert model.embedding.weight is model.head.weight is matrices[0]
    assert torch.equal(matrices[0], want)


def test_detach_keeps_the_outputs_and_leaves_plain_modules():
    model = Tied()
    plain = copy.deepcopy(model)
    fold_weight_norm(plain)
    attach(model, find_sites(model, "head"), (2,), QuantizerSettings(fixed_bits=5))
    before = model(TOKENS)
    assert not torch.equal(before, plain(TOKENS))
    detach(model)
    assert torch.equal(model(TOKENS), before)
    assert type(model.conv) is nn.Conv1d and type(model.head) is nn.Linear
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_detach_refuses_an_open_mixture_and_changes_nothing():
    model = Tied()
    quantizers = attach(model, find_sites(model, "head"), (2, 4))
    original = model.head.parametrizations.weight.original.clone()
    with pytest.raises(RuntimeError, match="freeze"):
        detach(model)
    assert torch.equal(model.head.parametrizations.weight.original, original)
    quantizers["embedding.weight"].freeze(4)
    detach(model)


def test_names_do_not_depend_on_what_is_attached():
    model = Tied()
    sites = find_sites(model, "head")
    quantizers = attach(model, sites, (2, 4))
    assert find_sites(model, "head") == sites
    assert quantizers_of(model) == quantizers


def test_folding_and_detaching_a_copy_spares_the_original():
    """A deep copy shares the class that carries a parametrized module's property."""
    model = Tied()
    copied = copy.deepcopy(model)
    want = model(TOKENS)
    fold_weight_norm(copied)
    assert torch.equal(model(TOKENS), want)
    attach(model, find_sites(model, "head"), (4,))
    quantized = model(TOKENS)
    copied = copy.deepcopy(model)
    detach(copied)
    assert torch.equal(model(TOKENS), quantized) and torch.equal(copied(TOKENS), quantized)


@pytest.mark.parametrize("trained", [True, False])
def test_folded_weight_stays_a_parameter(trained):
    model = Tied().requires_grad_(trained)
    with torch.no_grad():
        fold_weight_norm(model)
    assert model.get_parameter("conv.weight").requires_grad == trained


def test_weights_are_float32():
    model = Tied().double()
    attach(model, find_sites(model, "head"), (4,))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_fixed_bits_and_candidates_go_to_their_sites():
    model = Tied()
    quantizers = attach(model, find_sites(model, "head"), (1, 3), QuantizerSettings(centred=False, fixed_bits=6))
    assert quantizers["embedding.weight"].candidates == (1, 3)
    conv = quantizers["conv.weight"]
    assert conv.candidates == (6,)
    original = model.conv.parametrizations.weight.original
    assert torch.equal(model.conv.weight, fake_quantize(original, conv.scale(6), conv.grid(6)))


def test_refusals():
    with pytest.raises(UserError, match="no parameter to quantize"):
        find_sites(nn.LayerNorm(5))
    with pytest.raises(UserError, match=r"'\*decoder\*' matches no linear layer.*head"):
        find_sites(Tied(), "*decoder*")
    model = Tied()
    sites = find_sites(model, "head")
    with pytest.raises(UserError, match="list of sites is empty"):
        attach(model, [], (4,))
    for candidates in [(0, 4), (4, 9), ()]:
        with pytest.raises(UserError):
            attach(model, sites, candidates)
    with pytest.raises(UserError, match=r"no parameter 'other\.weight'"):
        attach(model, [Site("other.weight", (2, 2), 4, True)], (4,))
    assert not quantizers_of(model)  # a refused attach leaves no quantizer behind
    attach(model, sites, (4,))
    with pytest.raises(UserError, match="detach"):
        attach(model, sites, (4,))
    with pytest.raises(UserError, match=r"weight_ih_l0 belongs to a recurrent layer"):
        attach(nn.LSTM(3, 4), find_sites(nn.LSTM(3, 4), ""), (4,))
    broken = Tied()
    nn.init.constant_(broken.head.weight, torch.nan)
    with pytest.raises(UserError, match=r"embedding\.weight holds NaN"):
        attach(broken, sites, (4,))


def test_the_sites_of_whisper():
    """The embedding, tied to the output layer, is one site; its positions and norms are none."""
    model, _ = whisper()
    sites = {site.name: site for site in find_sites(model, "*coder.layers.*")}
    assert [name for name in sites if "positions" in name or "norm" in name] == []
    embedding = "model.decoder.embed_tokens.weight"
    others = [name for name, site in sites.items() if not site.searched]
    assert others == ["model.encoder.conv1.weight", "model.encoder.conv2.weight", embedding]
    layers = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name != "proj_out"]
    assert sum(site.numel for site in sites.values() if site.searched) == sum(m.weight.numel() for m in layers)
    assert {site.name for site in find_sites(model, "*") if site.searched} == {*sites} - {*others[:2]}
    attach(model, sites.values(), (4,))
    assert torch.equal(model.proj_out.weight, model.model.decoder.embed_tokens.weight)
    assert {site.name for site in find_sites(model, "*coder.layers.*")} == {*sites}
