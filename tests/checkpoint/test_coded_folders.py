"""Folders of version 2, in which the codes of most weights are coded: what they hold is what version 1 holds."""

import json

import pytest
import torch
import zstandard
from safetensors.torch import load_file, save_file
from tiny_packed import edit_config, equal_states, logits, quantized, state, tiny_model, uneven
from transformers import AutoModelForCTC

from mpq.checkpoint.hf import MpqConfig
from mpq.checkpoint.packed import load_packed, save_packed
from mpq.checkpoint.requantize import load_quantized
from mpq.checkpoint.size import bits_and_size, file_bytes, packed_file_bytes
from mpq.errors import UserError
from mpq.quant.sites import find_sites, quantizers_of

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same model with all precisions, coded and only packed."""
    folder = tmp_path_factory.mktemp("both")
    model = quantized(uneven(tiny_model("hubert_layer")), (2, 3, 4, 8), "per_channel")
    save_packed(folder / "coded", model)
    save_packed(folder / "packed", model, coding="none")
    return folder / "coded", folder / "packed"


@pytest.fixture
def coded(both, tmp_path):
    """A coded folder to do anything with; and the name of a coded 4-bit weight."""
    tensors = load_file(both[0] / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((both[0] / "config.json").read_bytes())
    sites = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["sites"]
    return tmp_path, next(name for name, site in sites.items() if site["bits"] == 4 and f"{name}_coded" in tensors)


def version(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]["format_version"]


def bytes_of(folder):
    return {file: (folder / file).read_bytes() for file in ("config.json", "model.safetensors")}


def test_both_hold_the_same_weights(both):
    coded, packed = both
    assert (version(coded), version(packed)) == (2, 1)
    assert file_bytes(coded) < file_bytes(packed) == packed_file_bytes(coded) == packed_file_bytes(packed)
    names = load_file(coded / "model.safetensors").keys()
    assert sum(name.endswith("_coded") for name in names) > 10
    assert equal_states(state(load_packed(coded)[0]), state(load_packed(packed)[0]))


def test_the_average_of_the_codes_is_that_of_their_bytes(both):
    """In the file, without scales; and what is zero of the same weights."""
    coded, packed = both
    model, _ = load_quantized(coded)
    sites = [site for site in find_sites(model) if site.searched]
    tensors = load_file(coded / "model.safetensors")
    of_codes = [f"{site.name}_{end}" for site in sites for end in ("coded", "packed")]
    taken = sum(len(tensors[name]) for name in of_codes if name in tensors)
    weights = torch.cat([model.get_submodule(site.name.rpartition(".")[0]).weight.flatten() for site in sites])
    for folder, average in ((coded, 8 * taken / weights.numel()), (packed, None)):
        bits, _ = bits_and_size(model, "*encoder.layers.*", 4, 1_000_000, folder)
        assert bits.coded == average
        assert bits.zeros == pytest.approx(float((weights == 0).double().mean()))
    assert 8 * taken / weights.numel() < bits.average


@pytest.mark.parametrize("keep_packed", [False, True])
def test_transformers_reads_and_writes_both(both, keep_packed, tmp_path):
    want = logits(load_packed(both[1])[0])
    memory = []
    for number, folder in enumerate(both):
        loaded, report = AutoModelForCTC.from_pretrained(
            folder, quantization_config=MpqConfig(keep_packed=keep_packed), output_loading_info=True
        )
        assert not any(report.values()) and torch.equal(logits(loaded), want)
        memory.append(loaded.get_memory_footprint())
        loaded.save_pretrained(tmp_path / f"{number}")
        assert bytes_of(tmp_path / f"{number}") == bytes_of(folder)
    assert memory[0] == memory[1]


def test_tied_weights_stay_tied(tmp_path):
    model = uneven(tiny_model("wav2vec2_group"))
    layers = model.wav2vec2.encoder.layers
    layers[1].attention.q_proj.weight = layers[0].attention.q_proj.weight
    save_packed(tmp_path / "coded", quantized(model, (4,)))
    assert f"{'wav2vec2.encoder.layers.0.attention.q_proj'}.weight_coded" in load_file(
        tmp_path / "coded" / "model.safetensors"
    )
    for keep_packed in (False, True):
        options = {"quantization_config": MpqConfig(keep_packed=keep_packed)}
        loaded = AutoModelForCTC.from_pretrained(tmp_path / "coded", **options)
        assert torch.equal(logits(loaded), logits(model))


def test_quantizers_are_attached_again(both):
    quantizers = [quantizers_of(load_quantized(folder)[0]) for folder in both]
    assert quantizers[0].keys() == quantizers[1].keys()
    assert all(torch.equal(one.log_scales, quantizers[1][name].log_scales) for name, one in quantizers[0].items())


def test_the_same_model_gives_the_same_bytes(both, tmp_path):
    save_packed(tmp_path / "again", quantized(uneven(tiny_model("hubert_layer")), (2, 3, 4, 8), "per_channel"))
    assert bytes_of(tmp_path / "again") == bytes_of(both[0])


def test_an_unknown_coding_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="coding=zip must be one of zstd, none"):
        save_packed(tmp_path / "x", quantized(tiny_model("hubert_layer")), coding="zip")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def edit(folder, change):
    """Change the tensors and, as an attacker would, put the digests right again."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, lambda config: None)


def refused(folder, match):
    for read in (load_packed, AutoModelForCTC.from_pretrained):
        with pytest.raises(UserError, match=match) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_damaged_codes_are_refused_by_both_readers(coded):
    folder, site = coded
    edit(folder, lambda tensors: tensors.update({f"{site}_coded": tensors[f"{site}_coded"][:-1].clone()}))
    refused(folder, f"{site}_coded is damaged")


def test_a_bit_flip_is_found_by_the_checksum(coded):
    folder, site = coded
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{site}_coded"][20] ^= 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "checksum")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t, n: t.update({f"{n}_coded": t[f"{n}_coded"].float()}), "must be uint8 of one dimension"),
        (lambda t, n: t.update({f"{n}_coded": t[f"{n}_coded"][None].clone()}), "must be uint8 of one dimension"),
        (lambda t, n: t.update({f"{n}_packed": torch.zeros(162, dtype=torch.uint8)}), "in more than one form"),
        (lambda t, n: t.update({n: torch.zeros(18, 18)}), "in more than one form"),
        (lambda t, n: t.pop(f"{n}_coded"), "_packed is missing"),
        (lambda t, n: t.update({f"{n}_coded": torch.zeros(0, dtype=torch.uint8)}), "not a Zstandard frame"),
    ],
)
def test_tensors_that_do_not_fit(coded, change, match):
    folder, site = coded
    edit(folder, lambda tensors: change(tensors, site))
    refused(folder, match)


def test_version_1_has_no_coded_tensors(coded):
    folder, _ = coded
    edit_config(folder, lambda config: config["quantization_config"].update(format_version=1))
    refused(folder, "_packed is missing")


def test_a_declared_shape_that_the_model_lacks_is_refused_without_decoding(coded, monkeypatch):
    """The frame states what config.json declares, but both are a bomb."""
    folder, site = coded
    data = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 27))
    padded = torch.zeros(1 << 20, dtype=torch.uint8)  # so that its codes a byte pass
    padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    edit(folder, lambda tensors: tensors.update({f"{site}_coded": padded, f"{site}_scale": torch.ones(1, 1)}))
    edit_config(
        folder,
        lambda config: config["quantization_config"]["sites"][site].update(shape=[1 << 14, 1 << 14]),
    )
    monkeypatch.setattr(zstandard, "ZstdDecompressor", None)
    refused(folder, "in this model, but the file has")
