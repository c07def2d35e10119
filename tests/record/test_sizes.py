import pytest
from tiny_speech import ARCHITECTURE

from mpq.checkpoint import packed as stored
from mpq.checkpoint.size import bits_and_size
from mpq.checkpoint.tensors import count_parameters
from mpq.errors import UserError
from mpq.models import ctc
from mpq.quant.sites import attach, find_sites

SEARCHED = "*encoder.layers.*"


@pytest.fixture
def model():
    return ctc.from_scratch(ARCHITECTURE, seed=0)


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
