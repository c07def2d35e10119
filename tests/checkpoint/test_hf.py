"""Packed folders in transformers' own hands."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_packed import edit_config, logits, make_processor, quantized, tiny_model
from transformers.quantizers import auto as registry

from mpq import import_hooks
from mpq.checkpoint.hf import MpqConfig, MpqQuantizer
from mpq.checkpoint.packed import load_packed, save_packed
from mpq.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
QUERY = "wav2vec2.encoder.layers.{}.attention.q_proj.weight"


def load(folder, **options):
    return transformers.AutoModelForCTC.from_pretrained(folder, **options)


def load_both(folder):
    return load(folder), load(folder, quantization_config=MpqConfig(keep_packed=True))


def bytes_of(folder):
    return {file: (folder / file).read_bytes() for file in ("config.json", "model.safetensors")}


FIRST = """
import os, sys, mpq
assert not {"torch", "transformers"} & sys.modules.keys()
import torch  # most of the time, and once for both ways to register: by the hook, and by asking for the class
other = os.fork()
if other:
    assert mpq.MpqConfig
import transformers.quantizers.auto as registry
assert registry.AUTO_QUANTIZER_MAPPING["mpq"].__name__ == "MpqQuantizer"
assert registry.AUTO_QUANTIZATION_CONFIG_MAPPING["mpq"].__name__ == "MpqConfig"
assert not other or os.waitpid(other, 0)[1] == 0
"""


def test_importing_this_package_first_registers_without_importing_transformers():
    subprocess.run([sys.executable, "-c", FIRST], check=True)


def test_importing_this_package_second_registers_at_once(monkeypatch):
    for mapping in (registry.AUTO_QUANTIZER_MAPPING, registry.AUTO_QUANTIZATION_CONFIG_MAPPING):
        monkeypatch.delitem(mapping, "mpq")
    for _ in range(2):  # and the second time it is left as it is
        import_hooks.register_with_transformers()
    assert registry.AUTO_QUANTIZER_MAPPING["mpq"] is MpqQuantizer
    assert registry.AUTO_QUANTIZATION_CONFIG_MAPPING["mpq"] is MpqConfig


def test_packed_in_memory_is_as_small_as_the_file(packed):
    plain = load_packed(packed)[0].get_memory_footprint()
    unpacked, kept = load_both(packed)
    file = sum(tensor.nbytes for tensor in load_file(packed / "model.safetensors").values())
    assert kept.get_memory_footprint() == file < plain / 2
    scales = sum(buffer.nbytes for name, buffer in unpacked.named_buffers() if name.endswith("weight_scale"))
    assert unpacked.get_memory_footprint() == plain + scales


@pytest.mark.parametrize("keep_packed", [False, True])
def test_tied_weights_stay_tied(keep_packed, tmp_path):
    model = tiny_model("wav2vec2_group")
    layers = model.wav2vec2.encoder.layers
    layers[1].attention.q_proj.weight = layers[0].attention.q_proj.weight
    layers[1].attention.q_proj.bias = layers[0].attention.q_proj.bias
    save_packed(tmp_path / "packed", quantized(model))
    loaded, report = load(
        tmp_path / "packed", quantization_config=MpqConfig(keep_packed=keep_packed), output_loading_info=True
    )
    assert torch.equal(logits(loaded), logits(model)) and not report["missing_keys"]
    first, second = (layer.attention.q_proj for layer in loaded.wav2vec2.encoder.layers)
    assert first.bias is second.bias
    assert first.weight_packed is second.weight_packed if keep_packed else first.weight is second.weight
    loaded.save_pretrained(tmp_path / "saved")
    assert bytes_of(tmp_path / "saved") == bytes_of(tmp_path / "packed")


def test_a_saved_copy_goes_round_again(packed, tmp_path):
    for number, model in enumerate(load_both(packed)):
        model.save_pretrained(tmp_path / f"{number}")
        assert torch.equal(logits(load(tmp_path / f"{number}")), logits(model))
        assert torch.equal(logits(load_packed(tmp_path / f"{number}")[0]), logits(model))


def test_float_parts_may_be_trained_and_saved(packed, tmp_path):
    for number, model in enumerate(load_both(packed)):
        with torch.no_grad():
            model.lm_head.bias.add_(1)
        model.save_pretrained(tmp_path / f"{number}")
        assert torch.equal(logits(load_packed(tmp_path / f"{number}")[0]), logits(model))


def test_a_changed_weight_or_dtype_is_not_saved(packed, tmp_path):
    model = load(packed)
    with torch.no_grad():
        model.get_parameter(QUERY.format(0)).mul_(1.01)
    with pytest.raises(UserError, match="was changed after it was loaded"):
        model.save_pretrained(tmp_path / "saved")
    for model in load_both(packed):
        model.lm_head.half()
        with pytest.raises(UserError, match=r"lm_head\.\w+ (must be torch\.float32|was changed)"):
            model.save_pretrained(tmp_path / "saved")


def test_dequantizing_leaves_a_plain_model(packed, tmp_path):
    want = logits(load_packed(packed)[0])
    for number, model in enumerate(load_both(packed)):
        model.dequantize()
        torch.testing.assert_close(logits(model), want, rtol=1e-5, atol=1e-6)  # the weight norm is put back
        model.save_pretrained(tmp_path / f"{number}")
        assert "quantization_config" not in json.loads((tmp_path / f"{number}" / "config.json").read_text())
        again, report = load(tmp_path / f"{number}", output_loading_info=True)
        assert torch.equal(logits(again), logits(model)) and not any(report.values())


def test_another_dtype_waits_until_after_loading(packed, caplog):
    model = load(packed, dtype=torch.float16)
    assert model.dtype == torch.float32 and "loads as float32" in caplog.text
    assert torch.equal(logits(model), logits(load_packed(packed)[0]))


def test_the_speech_recognition_pipeline(tmp_path):
    model = quantized(tiny_model("wav2vec2_group"))
    save_packed(tmp_path / "packed", model, make_processor(tmp_path))
    audio = np.random.default_rng().normal(size=4000).astype(np.float32)
    loaded, processor = load_packed(tmp_path / "packed")
    features = processor(audio, sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        want = processor.batch_decode(loaded(features).logits.argmax(-1))[0]
    recognize = transformers.pipeline("automatic-speech-recognition", model=str(tmp_path / "packed"))
    assert recognize(audio)["text"] == want and want


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"format_version": 3}, "newer mpq"),
        ({"sites": None}, "objects 'sites' and 'tied'"),
        ({"sites": {}}, "lacks tensors"),
        ({"tied": {"lm_head.bias": "lm_head.weight"}}, "more than one form"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(packed, fields, match):
    edit_config(packed, lambda config: config["quantization_config"].update(fields))
    with pytest.raises(UserError, match=match):
        load(packed)


def test_damage_is_refused(packed):
    data = bytearray((packed / "model.safetensors").read_bytes())
    (packed / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(UserError, match="damaged or truncated"):
        load(packed)
    data[-1] ^= 1
    (packed / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="checksum"):
        load(packed)
    edit_config(packed, lambda config: config.update(num_attention_heads=3), resign=False)
    with pytest.raises(UserError, match="changed or damaged"):
        load(packed)


def test_another_shape_or_class_than_what_was_packed_is_refused(packed):
    with pytest.raises(UserError, match=r"lm_head\.\w+ must be .*\(14,"):
        load(packed, vocab_size=14)
    with pytest.raises(UserError, match=r"holds \['Wav2Vec2ForCTC'\], not Wav2Vec2Model"):
        transformers.Wav2Vec2Model.from_pretrained(packed)


@pytest.mark.parametrize("keep_packed", [False, True])
def test_masking_is_switched_on_and_off_as_fine_tuning_scripts_do(packed, keep_packed, tmp_path):
    options = {"quantization_config": MpqConfig(keep_packed=keep_packed)}
    plain = load(packed, mask_time_prob=0.0, **options)  # the packed model has masking on
    assert not hasattr(plain.wav2vec2, "masked_spec_embed")
    plain.save_pretrained(tmp_path / "plain")
    masking = load(tmp_path / "plain", mask_time_prob=0.3, attention_dropout=0.2, ctc_loss_reduction="mean", **options)
    assert masking.config.mask_time_prob == 0.3 and masking.wav2vec2.masked_spec_embed.isfinite().all()
    assert torch.equal(logits(masking), logits(load(packed)))
    masking.save_pretrained(tmp_path / "masking")
    assert torch.equal(load(tmp_path / "masking").wav2vec2.masked_spec_embed, masking.wav2vec2.masked_spec_embed)
    saved = [load_file(folder / "model.safetensors").keys() for folder in (tmp_path / "plain", packed)]
    assert saved[1] - saved[0] == {"wav2vec2.masked_spec_embed"}


def test_a_float_model_is_not_quantized_by_loading(tmp_path):
    tiny_model("wav2vec2_group").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"mpq\.quantize"):
        load(tmp_path, quantization_config=MpqConfig())


def test_a_small_shard_size_still_gives_one_file_that_loads(packed, tmp_path):
    for number, model in enumerate(load_both(packed)):
        model.save_pretrained(tmp_path / str(number), max_shard_size="1KB")
        assert [file.name for file in (tmp_path / str(number)).glob("*.safetensors")] == ["model.safetensors"]
        assert bytes_of(tmp_path / str(number)) == bytes_of(packed)


def test_a_variant_is_refused_before_anything_is_written(packed, tmp_path):
    with pytest.raises(UserError, match="variant='small'"):
        load(packed).save_pretrained(tmp_path / "again", variant="small")
    assert not (tmp_path / "again").exists()
