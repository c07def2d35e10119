"""Inference, ours beside whichever peers are installed."""

import importlib.util

import pytest

from mpq.bench import inference, measuring
from mpq.bench.models import Files, load_model, quantize_at
from mpq.bench.systems import all_systems
from mpq.errors import UserError
from mpq.quant.sites import find_sites

SYSTEMS = ("ours_speed_3.5bit", "ours_torch_packed_3.5bit", "openvino_int8")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What one test has made, the next need not: an export takes seconds."""
    return tmp_path_factory.mktemp("files")


def test_each_system_computes_its_models_logits_and_is_measured(kept):
    settings = {"rounds": 2, "threads": 1, "repeats": 0, "files": str(kept)}
    options = inference.Options(seconds=(0.5, 1.0), systems=SYSTEMS, **settings)
    rows = inference.run(options)
    good = [row for row in rows if "problem" not in row]
    names = {"torch_float32", *SYSTEMS} - (set() if importlib.util.find_spec("openvino") else {"openvino_int8"})
    assert {(row["system"], row["audio_seconds"]) for row in good} == {(n, s) for n in names for s in (0.5, 1.0)}
    for row in good:
        assert row["ratio"]["low"] > 0 and row["seconds"]["median"] > 0
        assert row["logit_error"] < 0.05
    if "openvino_int8" not in names:
        (absent,) = [row for row in rows if "problem" in row]
        assert absent["system"] == "openvino_int8" and "not installed" in absent["problem"]
    sizes = {row["system"]: row["file_bytes"] for row in good}
    assert sizes["torch_float32"] == (kept / "float" / "model.safetensors").stat().st_size
    assert sizes["ours_torch_packed_3.5bit"] == (kept / "packed_3.5_minmax" / "model.safetensors").stat().st_size
    assert sizes["ours_speed_3.5bit"] == (kept / "ours_3.5_speed.onnx").stat().st_size


def test_a_system_alone_tells_its_memory(kept):
    """ONNX Runtime, since it starts without torch."""
    name = "ours_speed_3.5bit"
    path = all_systems()[name].make(Files("tiny_wav2vec2", kept))
    found = measuring.measure(name, path, 0.5, 1)
    assert 0 < found.libraries_bytes <= found.loaded_bytes <= found.peak_bytes < 2**30
    assert found.load_seconds > 0
    with pytest.raises(RuntimeError, match="missing"):
        measuring.measure(name, kept / "missing.onnx", 0.5, 1)


@pytest.mark.parametrize("options", [{"systems": ("no_such",)}, {"rounds": 0}, {"seconds": (0.0,)}])
def test_what_can_not_be_measured_is_refused(options):
    with pytest.raises(UserError):
        inference.run(inference.Options(**options))


def test_an_unknown_model_is_refused_with_the_choices():
    with pytest.raises(UserError, match=r"no_such.*tiny_hubert"):
        load_model("no_such")


@pytest.mark.parametrize("bits", [2.0, 3.5, 8.0])
def test_a_model_is_quantized_at_the_average_asked_for(bits):
    model = load_model("tiny_wav2vec2")[0]
    quantizers = quantize_at(model, bits)
    searched = {site.name: site.numel for site in find_sites(model) if site.searched}
    average = sum(quantizers[name].bits * numel for name, numel in searched.items()) / sum(searched.values())
    assert {quantizer.bits for name, quantizer in quantizers.items() if name not in searched} == {8}
    assert average <= bits and average == pytest.approx(bits, abs=0.05)
