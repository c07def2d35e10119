"""A packed folder as an ONNX file, from end to end: the logits, the bits on disk, what is refused."""

import json
import random
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import transformers

from mpq.checkpoint.packed import load_packed, save_packed
from mpq.deploy import attention, compressed, onnx_export
from mpq.deploy.export_ctc import describe
from mpq.deploy.onnx_export import _check_beside, export
from mpq.deploy.runtime import OnnxRecognizer
from mpq.errors import UserError
from mpq.models import ctc
from mpq.models.ctc import CtcModel
from mpq.models.processor import letters_processor
from mpq.quant.activations import attach_activations
from mpq.quant.sites import attach, find_sites

SIZES = {
    "vocab_size": 32,
    "hidden_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 520,  # wide, and no multiple of a block
    "conv_dim": (12, 16),
    "conv_kernel": (10, 4),
    "conv_stride": (8, 4),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
}
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}


def packed_folder(folder, model_type, attention_mask, static_inputs=False, **settings):
    """A packed folder with all of 1, 2, 3, 4, 6 and 8 bits in it, its processor beside."""
    config = transformers.AutoConfig.for_model(model_type, **SIZES, **settings)
    model = transformers.AutoModelForCTC.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter) * 0.1)
    if static_inputs:
        layers = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        attach_activations(model, {name: 0.02 + 0.02 * torch.rand(1) for name in layers})
    for index, quantizer in enumerate(attach(model, find_sites(model), (1, 2, 3, 4, 6, 8)).values()):
        if quantizer.bits is None:
            quantizer.freeze((1, 2, 3, 4, 6, 8)[index % 6])
    processor = letters_processor()
    processor.feature_extractor.return_attention_mask = attention_mask
    save_packed(folder, model, processor)
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A HuBERT with layer norm, which is told where padding begins, and its file in layout memory."""
    folder = packed_folder(tmp_path_factory.mktemp("masked") / "packed", "hubert", True, **LAYER_NORM)
    return folder, export(folder, folder.parent / "memory" / "model.onnx", "memory")


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory):
    """A wav2vec2 with group norm, which hears padding, its inputs quantized, and its file in layout speed."""
    folder = packed_folder(tmp_path_factory.mktemp("unmasked") / "packed", "wav2vec2", False, static_inputs=True)
    return folder, export(folder, folder.parent / "speed" / "model.onnx", "speed")


def logits_and_text(folder, waveforms):
    """What the packed model gives in PyTorch."""
    model, processor = load_packed(folder)
    extractor = processor.feature_extractor
    heard = [torch.tensor(extractor(w, sampling_rate=16_000).input_values[0]) for w in waveforms]
    lengths = torch.tensor([len(waveform) for waveform in heard])
    batch = torch.nn.utils.rnn.pad_sequence(heard, batch_first=True)
    with torch.no_grad():
        logits = CtcModel(model, processor).logits(batch, lengths)
    frames = ctc.frames(model, lengths).tolist()
    logits = [row[:count].numpy() for row, count in zip(logits, frames, strict=True)]
    return logits, [processor.tokenizer.decode(row.argmax(-1)) for row in logits]


def difference(found, wanted):
    """The largest root mean square error of a recording's logits, relative to their spread."""
    return max(float(np.sqrt(((f - w) ** 2).mean()) / w.std()) for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("file", "tolerance"),
    [("masked", 5e-5), ("unmasked", 0.05)],  # 8-bit inputs of the convolutions, which PyTorch does not have
)
@pytest.mark.parametrize("lengths", [(3_000,), (4_321, 1_500, 2_222)])
def test_logits_and_texts_are_those_of_pytorch(file, tolerance, lengths, request):
    folder, path = request.getfixturevalue(file)
    waveforms = [0.1 * np.random.default_rng().standard_normal(length).astype(np.float32) for length in lengths]
    wanted, texts = logits_and_text(folder, waveforms)
    recognizer = OnnxRecognizer(path, threads=1)
    found = recognizer.logits(waveforms)
    assert [row.shape for row in found] == [row.shape for row in wanted]
    assert difference(found, wanted) < tolerance
    if tolerance < 1e-3:
        assert recognizer.transcribe(waveforms) == texts


@pytest.mark.parametrize("which", ["wavlm", "another"])
def test_other_model_types_give_pytorchs_logits_too(which, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "_LONG", 1)  # frames: so that these recordings are long ones
    others = ["data2vec-audio", "unispeech", "unispeech-sat"]  # much alike, and an export takes seconds
    print("type:", model_type := which if which == "wavlm" else random.Random().choice(others))
    folder = packed_folder(tmp_path / "packed", model_type, False)
    waveforms = [0.1 * np.random.default_rng().standard_normal(2_345).astype(np.float32)]
    name = f"model.onnx{random.Random().choice(['', compressed.SUFFIX])}"
    found = OnnxRecognizer(export(folder, tmp_path / name, "memory", name.endswith("zst")), threads=1).logits(waveforms)
    assert difference(found, logits_and_text(folder, waveforms)[0]) < 5e-5


def loops_in(graph):
    """The bodies of its loops and branches, and of theirs."""
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.g.node]
    return [*bodies, *(inner for body in bodies for inner in loops_in(body))]


@pytest.mark.parametrize("file", ["masked", "unmasked"])
def test_weights_are_at_their_bits_on_disk(file, request):
    folder, path = request.getfixturevalue(file)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    nodes = [node for graph in (model.graph, *loops_in(model.graph)) for node in graph.node]
    found = [node for node in nodes if node.op_type in ("MultiHeadAttention", "Attention", "Softmax")]
    blocks = ["MultiHeadAttention"] if file == "unmasked" else []  # of long recordings
    assert sorted(node.op_type for node in found) == ["Attention", *blocks]  # of the one layer, not spelled out
    assert all(len([name for name in node.input if name]) == 3 + (file == "masked") for node in found)
    assert "Transpose" not in {node.op_type for node in nodes if set(node.output) & set(found[0].input)}
    assert model.ir_version >= onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    assert "GroupNormalization" not in {node.op_type for node in model.graph.node}  # slow in ONNX Runtime
    sites = json.loads((folder / "config.json").read_text())["quantization_config"]["sites"]
    bits = {name: min(n for n in (2, 4, 8) if n >= site["bits"]) for name, site in sites.items()}
    tensors = [tensor for graph in (model.graph, *loops_in(model.graph)) for tensor in graph.initializer]
    sizes = {tensor.name: len(tensor.raw_data) for tensor in tensors}
    for name, site in sites.items():
        count = np.prod(site["shape"])
        stored = sizes.get(name) or sizes[f"{name}_codes"]  # the latter in blocks, filled up
        assert stored == -(-count * bits[name] // 8) or (name not in sizes and stored >= count * bits[name] / 8)
    largest = max(t for t in (len(x.raw_data) for x in tensors if x.data_type == 1))
    assert largest <= 4 * 520  # biases, norms, scales: nothing of a weight's size is float
    assert not [node for node in model.graph.node if node.doc_string or node.metadata_props]
    assert {file.name for file in path.parent.iterdir()} >= {"vocab.json", "tokenizer_config.json"}


def test_files_of_others_are_not_replaced(masked, tmp_path):
    folder, _ = masked
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match=r"vocab.json exists and is not this model's.*output=\S+/model/model.onnx"):
        export(folder, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["vocab.json"]

    def write(into):
        (into / "vocab.json").write_text('{"a": 0}')

    with pytest.raises(UserError, match=r"vocab.json exists"):
        _check_beside(tmp_path / "model.onnx", write)
    (tmp_path / "model.onnx").touch()
    _check_beside(tmp_path / "model.onnx", write)  # of an earlier export to the same file
    write(tmp_path)
    _check_beside(tmp_path / "other.onnx", write)  # the same content


def test_the_description_is_that_of_the_processor(masked):
    folder, path = masked
    found = OnnxRecognizer(path, threads=1).description
    assert found.attention_mask and found.do_normalize and found.sampling_rate == 16_000 and found.layout == "memory"
    assert found.source == json.loads((folder / "config.json").read_text())["quantization_config"]["sha256"]


def test_what_can_not_be_exported_is_refused_before_anything_is_written(masked, tmp_path, monkeypatch):
    folder, _ = masked
    bare = shutil.copytree(folder, tmp_path / "bare")
    for file in bare.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    (tmp_path / "file").write_text("in the way")
    before = sorted(tmp_path.iterdir())
    for source, output, layout, told in [
        (folder, tmp_path / "a.onnx", "fast", "layout=fast must be one of speed, memory"),
        (tmp_path, tmp_path / "a.onnx", "speed", "is not a packed model"),
        (bare, tmp_path / "a.onnx", "speed", "has no processor"),
        (folder, tmp_path, "speed", "is a folder"),
        (
            folder,
            tmp_path / "a.onnx.zst",
            "speed",
            r"a\.onnx\.zst must end in \.onnx\.zst with compress=true, and in \.onnx without",
        ),
        (
            folder,
            tmp_path / "a.bin",
            "speed",
            r"a\.bin must end in \.onnx\.zst with compress=true, and in \.onnx without",
        ),
        (folder, tmp_path / "file" / "a.onnx", "speed", "can't be written"),
    ]:
        with pytest.raises(UserError, match=told) as caught:
            export(source, output, layout)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(onnx_export, "_NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"no_such_package must be installed: pip install -e '\.\[onnx\]'"):
        export(folder, tmp_path / "a.onnx", "speed")
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_type_whose_logits_were_not_compared_is_refused():
    model = SimpleNamespace(config=transformers.AutoConfig.for_model("wav2vec2-conformer"))
    with pytest.raises(UserError, match=r"only for the model types wav2vec2, .*; this model is wav2vec2-conformer"):
        describe(model, letters_processor(), "memory", "0")


def test_the_script_says_what_it_wants(capsys, monkeypatch):
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    path = Path(__file__).parents[2] / "scripts" / "export.py"
    spec = spec_from_file_location("export_script", path)
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    for words, told in (
        (["modle=x"], "the arguments are model=, layout=, compress=, output="),
        ([], "model= must be given"),
    ):
        with pytest.raises(SystemExit, match="1"):
            script.main(words)
        assert told in capsys.readouterr().err
    script.main(["--help"])
    assert "usage: python scripts/export.py" in capsys.readouterr().out
    assert "onnxscript" in sys.modules  # by the exports above, not by the script's --help
