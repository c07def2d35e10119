"""Predicted sizes against the bytes of files that were written."""

import math

import pytest
import torch
from safetensors.torch import save_file
from tiny_packed import FAMILIES, quantized, tiny_model

from mpq.checkpoint.packed import save_packed
from mpq.checkpoint.prediction import float_file_bytes, packed_file_bytes, safetensors_bytes
from mpq.checkpoint.size import file_bytes
from mpq.quant.activations import attach_activations
from mpq.quant.sites import find_sites, quantizers_of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_float_model(family, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    assert float_file_bytes(model) == file_bytes(tmp_path)


@pytest.mark.parametrize(("family", "granularity"), zip(FAMILIES, ["per_tensor", "per_channel"] * 3, strict=False))
def test_a_packed_model(family, granularity, tmp_path):
    model = tiny_model(family)
    sites = find_sites(model)
    quantized(model, FAMILIES[family], granularity)
    bits = {name: quantizer.bits for name, quantizer in quantizers_of(model).items()}
    save_packed(tmp_path / "packed", model, coding="none")
    assert packed_file_bytes(model, sites, bits, granularity == "per_channel") == file_bytes(tmp_path / "packed")


def test_a_packed_model_with_dynamic_activations(tmp_path):
    model = tiny_model("hubert_layer")
    sites = find_sites(model)
    quantized(model, FAMILIES["hubert_layer"], "per_channel")
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    attach_activations(model, dict.fromkeys(linear))
    bits = {name: quantizer.bits for name, quantizer in quantizers_of(model).items()}
    save_packed(tmp_path / "packed", model, coding="none")
    assert packed_file_bytes(model, sites, bits, dynamic_activations=True) == file_bytes(tmp_path / "packed")


def test_the_header_of_any_tensors(tmp_path):
    generator = torch.Generator().manual_seed(torch.seed() % 2**31)
    kinds = {"F32": torch.float32, "U8": torch.uint8, "I64": torch.int64}
    tensors, shapes = {}, {}
    for number in range(40):
        kind = list(kinds)[number % 3]
        size = torch.randint(1, 40, (number % 4,), generator=generator).tolist()
        if math.prod(size) < 20_000:
            tensors[f"name.{number}"], shapes[f"name.{number}"] = (
                torch.zeros(size, dtype=kinds[kind]),
                (kind, tuple(size)),
            )
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert safetensors_bytes(shapes) == (tmp_path / "x.safetensors").stat().st_size
