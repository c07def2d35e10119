"""Every way in which a packed folder can be wrong is told in one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_packed import edit_config, make_processor, quantized, tiny_model

from mpq.checkpoint.packed import load_packed, save_packed
from mpq.errors import UserError

SITE = "wav2vec2.encoder.layers.0.attention.q_proj.weight"


def refused(folder, match):
    with pytest.raises(UserError, match=match) as caught:
        load_packed(folder)
    assert "\n" not in str(caught.value)


def edit_tensors(folder, change, resign=True):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if resign:
        edit_config(folder, lambda config: None)


def sites(config):
    return config["quantization_config"]["sites"]


def test_missing_folder_and_files(tmp_path, packed):
    refused(tmp_path / "nothing", "is not a folder")
    (packed / "config.json").rename(tmp_path / "config.json")
    refused(packed, r"config\.json is missing")
    (tmp_path / "config.json").rename(packed / "config.json")
    (packed / "model.safetensors").unlink()
    refused(packed, r"model\.safetensors is missing")


def test_other_kinds_of_folder(packed):
    text = (packed / "config.json").read_text()
    edit_config(packed, lambda config: config["quantization_config"].update(quant_method="gptq"))
    refused(packed, "must be 'mpq', but is 'gptq'")
    edit_config(packed, lambda config: config.pop("quantization_config"))
    refused(packed, "not a packed model")
    for content in ("", "[1, 2]", "{", "[" * 100_000, text[: len(text) // 2]):
        (packed / "config.json").write_text(content)
        refused(packed, "damaged")


@pytest.mark.parametrize("version", [3, 0, "1", True, None])
def test_other_format_versions(packed, version):
    edit_config(packed, lambda config: config["quantization_config"].update(format_version=version))
    refused(packed, "newer mpq" if version == 3 else "version must be 1 or 2")


def test_truncated_and_lengthened_files(packed):
    data = (packed / "model.safetensors").read_bytes()
    for wrong in (b"", data[:4], data[:100], data[: len(data) // 2], data[:-1], data + b"\0"):
        (packed / "model.safetensors").write_bytes(wrong)
        refused(packed, "damaged or truncated")


def test_bit_flips(packed):
    data = bytearray((packed / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (packed / "model.safetensors").write_bytes(data)
    refused(packed, "checksum")


def test_a_changed_config(packed):
    edit_config(packed, lambda config: config.update(num_attention_heads=3), resign=False)
    refused(packed, "changed or damaged")


def test_a_changed_site_when_only_the_config_is_signed_again(packed):
    """As transformers leaves it when it saves a model again: no digest over the config, but the tensors' one holds."""

    def change(config):
        del config["quantization_config"]["config_sha256"]
        site = next(site for site in sites(config).values() if site["bits"] == 2)
        site["offset"] = 0.0

    edit_config(packed, change, resign=False)
    refused(packed, "checksum")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"bits": 9}, "1 to 8 bits"),
        ({"bits": 0}, "1 to 8 bits"),
        ({"bits": True}, "1 to 8 bits"),
        ({"bits": "4"}, "1 to 8 bits"),
        ({"bits": 7, "offset": 0.0}, "must hold 324 codes of 7 bits"),
        ({"shape": [17, 18]}, "must hold 306 codes"),
        ({"shape": [9, 36]}, r"must be torch.float32 of shape \(18, 18\)"),
        ({"shape": [1 << 30, 1 << 30, 1 << 30]}, "must hold"),
        ({"shape": [-18, -18]}, "positive whole numbers"),
        ({"shape": [18.0, 18]}, "positive whole numbers"),
        ({"shape": []}, "1 to 8 dimensions"),
        ({"shape": [1] * 9 + [324]}, "1 to 8 dimensions"),
        ({"shape": None}, "1 to 8 dimensions"),
        ({"offset": 0.25}, "offset of"),
        ({"offset": 0}, "offset of"),
        ({"colour": "red"}, "exactly the fields"),
    ],
)
def test_sites_that_do_not_fit(packed, fields, match):
    edit_config(packed, lambda config: sites(config)[SITE].update(fields))
    refused(packed, match)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"hidden_size": 10**12}, "justifies at most"),
        ({"num_hidden_layers": 10**9}, "justifies at most"),
        ({"num_hidden_layers": 100}, "lacks tensors"),
        ({"num_hidden_layers": 1}, "tensors that the model lacks"),
        ({"conv_dim": [8] * 5000}, "justifies at most"),
        ({"intermediate_size": 36}, "must be torch.float32 of shape"),
        ({"hidden_size": "18"}, "transformers can build"),
        ({"hidden_act": "explode"}, "transformers can build"),
        ({"model_type": "wave2vec"}, "model type 'wave2vec'"),
        ({"model_type": "bert"}, "not a speech recognition model"),
        ({"architectures": ["Wav2Vec2ForSequenceClassification"]}, "not a speech recognition model"),
    ],
)
def test_configs_that_do_not_fit(packed, fields, match):
    edit_config(packed, lambda config: config.update(fields))
    refused(packed, match)


@pytest.mark.parametrize("field", ["sites", "tied"])
def test_a_block_without_its_objects(packed, field):
    edit_config(packed, lambda config: config["quantization_config"].pop(field))
    refused(packed, "objects 'sites' and 'tied'")


@pytest.mark.parametrize(
    ("tied", "match"),
    [
        ({"lm_head.bias": "lm_head.weight"}, "more than one form"),
        ({"lm_head.extra": "lm_head.nothing"}, "not a parameter in the file"),
        ({"lm_head.extra": "lm_head.bias"}, "tensors that the model lacks"),
        ({"lm_head.extra": 3}, "must map"),
    ],
)
def test_ties_that_do_not_fit(packed, tied, match):
    edit_config(packed, lambda config: config["quantization_config"].update(tied=tied))
    refused(packed, match)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0])
def test_scales_that_are_no_scales(packed, scale):
    edit_tensors(packed, lambda tensors: tensors[f"{SITE}_scale"].fill_(scale))
    refused(packed, "positive and finite")


@pytest.mark.parametrize(
    ("name", "tensor", "match"),
    [
        (f"{SITE}_scale", torch.ones(2, 1), r"float32 of shape \(1, 1\) or \(18, 1\)"),
        (f"{SITE}_scale", torch.ones(1, 1, dtype=torch.float64), "float32 of shape"),
        (f"{SITE}_scale", None, f"{SITE}_scale is missing"),
        (f"{SITE}_packed", None, f"{SITE}_packed is missing"),
        (f"{SITE}_packed", torch.zeros(3, dtype=torch.uint8), "must hold 324 codes"),
        (SITE, torch.ones(18, 18), "more than one form"),
        ("lm_head.bias", None, "lacks tensors"),
        ("lm_head.bias", torch.ones(14), r"lm_head.bias must be torch.float32 of shape \(13,\)"),
        ("lm_head.bias", torch.ones(13, dtype=torch.float16), "lm_head.bias must be torch.float32"),
        ("surprise", torch.ones(1), "tensors that the model lacks: surprise"),
    ],
)
def test_tensors_that_do_not_fit(packed, name, tensor, match):
    edit_tensors(packed, lambda tensors: tensors.pop(name) if tensor is None else tensors.update({name: tensor}))
    refused(packed, match)


def test_nothing_that_the_folder_names_is_executed(packed, tmp_path):
    """A class of the folder's own, as `trust_remote_code` would import it, is never touched."""
    witness = tmp_path / "executed"
    (packed / "evil.py").write_text(f"open({str(witness)!r}, 'w')\nclass Evil: pass\n")
    edit_config(
        packed, lambda config: config.update(auto_map={"AutoModelForCTC": "evil.Evil", "AutoConfig": "evil.Evil"})
    )
    (packed / "processor_config.json").write_text(json.dumps({"auto_map": {"AutoProcessor": "evil.Evil"}}))
    refused(packed, "processor's files")
    (packed / "processor_config.json").unlink()
    load_packed(packed)
    assert not witness.exists()


def test_damaged_processor_files(tmp_path):
    save_packed(tmp_path / "packed", quantized(tiny_model("hubert_group")), make_processor(tmp_path))
    (tmp_path / "packed" / "vocab.json").write_text("{")
    refused(tmp_path / "packed", "processor's files")
