"""Quantized activations survive the packed file, through our loader and through transformers'."""

import json

import pytest
import torch
from tiny_packed import edit_config, logits, quantized, tiny_model
from torch import nn
from transformers import AutoModelForCTC

from mpq.checkpoint.hf import MpqConfig
from mpq.checkpoint.packed import load_packed, save_packed
from mpq.checkpoint.size import bits_and_size
from mpq.errors import UserError
from mpq.quant.activations import activation_quantizers_of, attach_activations


def with_activations(kind, family="wav2vec2_group"):
    model = tiny_model(family)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    scales = {name: torch.rand(1) * 0.05 + 0.01 if kind == "static" else None for name in layers}
    attach_activations(model, scales)
    return quantized(model)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("family", ["wav2vec2_group", "hubert_layer"])
def test_the_file_gives_the_same_logits(kind, family, tmp_path):
    model = with_activations(kind, family)
    plain = quantized(tiny_model(family))
    save_packed(tmp_path / "packed", model)
    loaded, _ = load_packed(tmp_path / "packed")
    assert torch.equal(logits(loaded), logits(model)) and not torch.equal(logits(loaded), logits(plain))
    assert set(activation_quantizers_of(loaded)) == set(activation_quantizers_of(model))
    bits, _ = bits_and_size(model, "*encoder.layers.*", 4, 30_000, tmp_path / "packed")
    assert bits.activations == 8
    save_packed(tmp_path / "plain", plain)
    assert bits_and_size(plain, "*encoder.layers.*", 4, 30_000, tmp_path / "plain")[0].activations == 32
    assert "activations" not in json.loads((tmp_path / "plain" / "config.json").read_text())["quantization_config"]


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("keep_packed", [False, True])
def test_transformers_gives_the_same_logits_and_the_same_file(kind, keep_packed, tmp_path):
    model = with_activations(kind)
    save_packed(tmp_path / "packed", model)
    loaded = AutoModelForCTC.from_pretrained(
        tmp_path / "packed", quantization_config=MpqConfig(keep_packed=keep_packed)
    )
    assert torch.equal(logits(loaded), logits(model))
    loaded.save_pretrained(tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "packed" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    floats = loaded.dequantize()
    assert not activation_quantizers_of(floats)
    floats.save_pretrained(tmp_path / "float")
    assert not any("activation" in name for name in AutoModelForCTC.from_pretrained(tmp_path / "float").state_dict())


def test_a_mixture_of_kinds_or_a_broken_scale_is_refused(tmp_path):
    model = with_activations("static")
    with torch.no_grad():
        model.lm_head.activation_quantizer.log_scales.fill_(float("nan"))
    with pytest.raises(UserError, match="inputs of lm_head is not a finite number"):
        save_packed(tmp_path / "packed", model)
    model.lm_head.activation_quantizer.log_scales = None
    with pytest.raises(UserError, match="all static or all dynamic"):
        save_packed(tmp_path / "packed", model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 4}, "must be dynamic or static at 8 bits"),
        ({"kind": "learned"}, "must be dynamic or static at 8 bits"),
        ({"kind": "dynamic"}, "the file has tensors that the model lacks"),
        ({"layers": ["lm_head"]}, "the file has tensors that the model lacks"),
        ({"layers": ["lm_head", "lm_head"]}, "twice"),
        ({"layers": ["nowhere"]}, "nowhere must be a linear layer"),
        ({"layers": ["wav2vec2.encoder"]}, "must be a linear layer"),
        ({"layers": "lm_head"}, "must be a list of names"),
        ({"layers": [3]}, "must be a list of names"),
        ({"more": 1}, "must have exactly the fields"),
    ],
)
def test_malformed_entries_are_refused(change, message, tmp_path):
    save_packed(tmp_path / "packed", with_activations("static"))
    edit_config(tmp_path / "packed", lambda config: config["quantization_config"]["activations"].update(change))
    with pytest.raises(UserError, match=message):
        load_packed(tmp_path / "packed")


def test_taking_the_entry_away_is_noticed(tmp_path):
    save_packed(tmp_path / "packed", with_activations("dynamic"))

    def change(config):
        del config["quantization_config"]["activations"], config["quantization_config"]["config_sha256"]

    edit_config(tmp_path / "packed", change, resign=False)
    with pytest.raises(UserError, match="checksum"):
        load_packed(tmp_path / "packed")
