"""Every family through transformers' own from_pretrained and save_pretrained."""

import pytest
import torch
from tiny_families import FAMILIES, logits, quantized, random_input, tiny_family
from transformers import AutoModelForCTC

from mpq.checkpoint.hf import MpqConfig
from mpq.checkpoint.packed import save_packed

FILES = ("config.json", "model.safetensors")


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize("family", FAMILIES)
def test_from_pretrained_gives_the_same_logits_and_save_pretrained_the_same_bytes(family, tmp_path):
    model = tiny_family(family)
    quantized(model)
    inputs = random_input(model)
    want = logits(model, inputs)
    save_packed(tmp_path / "packed", model)
    for keep_packed in (False, True):
        loaded, report = AutoModelForCTC.from_pretrained(
            tmp_path / "packed", quantization_config=MpqConfig(keep_packed=keep_packed), output_loading_info=True
        )
        assert torch.equal(logits(loaded, inputs), want)
        assert not any(report.values())  # no key missing, unexpected or of another shape
        loaded.save_pretrained(tmp_path / "saved")
        for file in FILES:
            assert (tmp_path / "saved" / file).read_bytes() == (tmp_path / "packed" / file).read_bytes()
