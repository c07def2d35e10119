"""The figures of the size accounting at the true dimensions; nothing of that size is ever run or made."""

import json
from functools import cache

import pytest
import torch
from safetensors.torch import save_file
from tiny_packed import FAMILIES, quantized, tiny_model
from tiny_speech import ARCHITECTURE
from transformers import HubertConfig, HubertForCTC, PreTrainedModel, Wav2Vec2Config, Wav2Vec2ForCTC

from mpq.checkpoint import packed as stored
from mpq.checkpoint.format import PackedSite, complete_config, make_block, packed_name, scale_name
from mpq.checkpoint.packed import save_packed
from mpq.checkpoint.size import bits_and_size, file_bytes, searched_average, size_of
from mpq.checkpoint.tensors import count_parameters, stored_tensors
from mpq.errors import UserError
from mpq.models import loading
from mpq.quant.sites import Site, attach, find_sites, fold_weight_norm, quantizers_of

# total, searched, other modules with their norms and biases, the rest; and the ideal ratio at 3.5 bits
TRUE_SIZES = {
    "wav2vec2_base": (94_396_320, 84_934_656, 9_339_552, 122_112, 8.034),
    "hubert_large": (315_471_520, 301_989_888, 13_159_072, 322_560, 8.607),
}


def tensor_bytes(parameters, sites, bits, per_channel):
    """The bytes of all tensors in the file, from the shapes alone: codes, scales, float32 for the rest."""
    quantized = sum(site.numel for site in sites)
    codes = sum(-(-site.numel * bits[site.name] // 8) for site in sites)  # rounded up
    scales = sum(site.shape[0] if per_channel else 1 for site in sites)
    return codes + 4 * (scales + parameters - quantized)


def true_model(name: str) -> PreTrainedModel:
    """Return the model on the meta device: shapes only."""
    with torch.device("meta"):
        if name == "wav2vec2_base":
            return Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=32))
        return HubertForCTC(
            HubertConfig(
                vocab_size=32,
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                intermediate_size=4096,
                conv_bias=True,
                feat_extract_norm="layer",
                do_stable_layer_norm=True,
            )
        )


@cache
def three_and_a_half_bits(name: str) -> tuple[PreTrainedModel, int, list[Site], dict[str, int]]:
    """Return model, parameters, sites, and a mix of exactly 3.5 bits."""
    model = true_model(name)
    parameters = count_parameters(model)
    sites = find_sites(model)
    mix = (8, 2, 2, 2, 4, 4, 4, 2)  # each half alone too: base has 12 layers
    seen: dict[tuple[int, ...], int] = {}
    bits = {}
    for site in sites:
        index = seen[site.shape] = seen.get(site.shape, -1) + 1
        bits[site.name] = mix[index % 8] if site.searched else 8
    return model, parameters, sites, bits


@pytest.mark.parametrize("name", TRUE_SIZES)
def test_parameter_counts(name):
    total, searched, others, rest, _ = TRUE_SIZES[name]
    model, parameters, sites, _ = three_and_a_half_bits(name)
    assert parameters == total == searched + others + rest
    assert sum(site.numel for site in sites if site.searched) == searched
    in_encoder = [
        parameter.numel()
        for key, parameter in model.named_parameters()
        if (".encoder." in key and "pos_conv" not in key) or "masked_spec_embed" in key
    ]
    assert sum(in_encoder) - searched == rest


@pytest.mark.parametrize("name", TRUE_SIZES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_ratios_at_true_dimensions(name, per_channel, tmp_path):
    model, parameters, sites, bits = three_and_a_half_bits(name)
    fold_weight_norm(model)
    by_name = {site.name: site for site in sites}
    packed_sites, stored = {}, {}
    for key, tensor in stored_tensors(model)[0].items():
        if key in by_name:
            site = packed_sites[key] = PackedSite(bits[key], 0.5 if bits[key] == 2 else 0.0, by_name[key].shape)
            stored[packed_name(key)] = torch.zeros(site.packed_bytes, dtype=torch.uint8)
            stored[scale_name(key)] = torch.ones(site.scale_shapes[int(per_channel)])
        else:
            stored[key] = torch.zeros(tensor.shape)
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = complete_config(model, make_block(packed_sites, {}) | {"sha256": "0" * 64})
    (tmp_path / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))

    report = size_of(parameters, sites, bits, file_bytes(tmp_path))
    assert searched_average(sites, bits) == 3.5
    assert report.ideal_ratio == pytest.approx(TRUE_SIZES[name][-1], abs=0.0005)
    assert report.file_ratio == pytest.approx(report.ideal_ratio, rel=0.01)
    expected = tensor_bytes(count_parameters(model), sites, bits, per_channel)
    assert sum(tensor.numel() * tensor.element_size() for tensor in stored.values()) == expected


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if "batch" not in family])
def test_predicted_bytes_are_those_on_disk(family, granularity, tmp_path):
    model = tiny_model(family)
    parameters, sites = count_parameters(model), find_sites(model)
    assert parameters == model.num_parameters()
    quantized(model, FAMILIES[family], granularity)
    save_packed(tmp_path / "packed", model, coding="none")
    bits = {name: quantizer.bits for name, quantizer in quantizers_of(model).items()}
    data = (tmp_path / "packed" / "model.safetensors").read_bytes()
    on_disk = len(data) - 8 - int.from_bytes(data[:8], "little")
    assert on_disk == tensor_bytes(count_parameters(model), sites, bits, granularity == "per_channel")

    report = size_of(parameters, sites, bits, file_bytes(tmp_path / "packed"))
    config_bytes = (tmp_path / "packed" / "config.json").stat().st_size
    assert report.file_bytes == len(data) + config_bytes == file_bytes(tmp_path / "packed")
    assert report.file_ratio == parameters * 4 / report.file_bytes
    in_sites = sum(site.numel for site in sites)
    ideal = sum(site.numel * bits[site.name] for site in sites) + 32 * (parameters - in_sites)
    assert report.ideal_bits == ideal and report.ideal_ratio == 32 * parameters / ideal


def test_no_file_and_no_bits(tmp_path):
    sites = [Site("a.weight", (4, 4), 16, searched=True), Site("b.weight", (4, 2), 8, searched=False)]
    bits = {"a.weight": 2, "b.weight": 8}
    assert size_of(30, sites, bits, 60).ideal_bits == 16 * 2 + 8 * 8 + 6 * 32
    assert searched_average(sites, bits) == 2.0 and searched_average(sites[1:], bits) is None
    with pytest.raises(UserError, match="no bits are given"):
        size_of(30, sites, {"a.weight": 2}, 60)
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        file_bytes(tmp_path)


SEARCHED = "*encoder.layers.*"


@pytest.fixture
def model():
    return loading.from_scratch(ARCHITECTURE, seed=0)


def test_a_plain_model_has_32_bits_and_no_target(model, tmp_path):
    network, processor = model
    stored.save_model(tmp_path / "model", network, processor)
    bits, size = bits_and_size(network, SEARCHED, 3.5, count_parameters(network), tmp_path / "model")
    assert (bits.target, bits.average) == (None, 32.0)
    assert size.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert (size.ideal_bits, size.ideal_ratio) == (32 * size.parameters, 1.0)
    files = [tmp_path / "model" / name for name in ("model.safetensors", "config.json")]
    assert size.file_bytes == sum(path.stat().st_size for path in files) > 4 * size.parameters


def test_a_packed_model_is_counted_site_by_site(model, tmp_path):
    network, processor = model
    parameters = count_parameters(network)
    sites = find_sites(network, SEARCHED)
    quantizers = attach(network, sites, (2, 4, 8))
    searched = [site for site in sites if site.searched]
    for number, site in enumerate(searched):
        quantizers[site.name].freeze((2, 4, 8)[number % 3])
    stored.save_model(tmp_path / "model", network, processor)
    bits, size = bits_and_size(network, SEARCHED, 5.0, parameters, tmp_path / "model")
    want = sum(site.numel * (2, 4, 8)[number % 3] for number, site in enumerate(searched))
    assert (bits.target, bits.average) == (5.0, want / sum(site.numel for site in searched))
    fixed = sum(8 * site.numel for site in sites if not site.searched)
    assert size.ideal_bits == want + fixed + 32 * (parameters - sum(site.numel for site in sites))
    assert size.ideal_ratio == 32 * parameters / size.ideal_bits
    assert size.file_ratio == 4 * parameters / size.file_bytes


def test_what_is_not_decided_or_not_searched_has_no_size(model, tmp_path):
    network, processor = model
    stored.save_model(tmp_path / "model", network, processor)
    with pytest.raises(UserError, match="names no layer"):
        bits_and_size(network, "", 3.5, 1, tmp_path / "model")
    attach(network, find_sites(network, SEARCHED), (2, 4))
    with pytest.raises(UserError, match="has no precision yet"):
        bits_and_size(network, SEARCHED, 3.5, 1, tmp_path / "model")


@pytest.mark.parametrize("damage", ["missing", "no folder", "no json"])
def test_a_damaged_model_folder_is_refused(model, tmp_path, damage):
    network, processor = model
    folder = tmp_path / "model"
    if damage != "no folder":
        stored.save_model(folder, network, processor)
        if damage == "missing":
            (folder / "config.json").unlink()
        else:
            (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not a model's folder"):
        stored.load_model(folder)
