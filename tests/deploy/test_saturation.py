"""8-bit products are added exactly, whatever the processor: against integers, and ONNX's reference implementation."""

import random

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from mpq.checkpoint.packed import save_packed
from mpq.deploy import runtime
from mpq.deploy.onnx_export import export
from mpq.models.processor import letters_processor
from mpq.quant.sites import attach, find_sites

SIZES = {
    "vocab_size": 32,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "conv_dim": (12, 16),
    "conv_kernel": (10, 4),
    "conv_stride": (8, 4),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
}


def product(codes=None):
    """A model that is one MatMulInteger, with `codes` as its constant weight or none."""
    inputs = [helper.make_tensor_value_info("a", TensorProto.UINT8, None)]
    constants = []
    if codes is None:
        inputs.append(helper.make_tensor_value_info("b", TensorProto.INT8, None))
    else:
        constants.append(onnx.numpy_helper.from_array(codes, "b"))
    outputs = [helper.make_tensor_value_info("c", TensorProto.INT32, None)]
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["c"])], "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5).SerializeToString()


def test_the_probe_is_one_integer_product():
    assert product() == runtime._PROBE


@pytest.mark.parametrize("rows", [1, 7])
def test_the_probe_tells_of_this_processor_and_the_option_mends_it(rows, rng):
    import onnxruntime

    inputs = rng.integers(0, 256, (rows, 96)).astype(np.uint8)
    codes = rng.integers(-128, 128, (96, 32)).astype(np.int8)
    wanted = inputs.astype(np.int64) @ codes
    plain = onnxruntime.InferenceSession(product(codes)).run(None, {"a": inputs})[0]
    assert np.array_equal(plain, wanted) != runtime.saturates()
    options = onnxruntime.SessionOptions()
    runtime.add_exactly(options)
    exact = onnxruntime.InferenceSession(product(codes), options).run(None, {"a": inputs})[0]
    assert np.array_equal(exact, wanted)


class MultiHeadAttention(OpRun):
    """ONNX Runtime's own operator, in the branch for recordings longer than the one here."""

    op_domain = "com.microsoft"

    def _run(self, *inputs, num_heads=None, scale=None):
        raise AssertionError("a short recording took the branch of long ones")


@pytest.fixture(scope="module")
def speed(tmp_path_factory):
    """The file for speed of a random model at 8 bits, random audio, and ONNX's reference logits of it."""
    torch.manual_seed(seed := int(np.random.SeedSequence().entropy) % 2**63)
    kind = random.Random(seed).choice(["wav2vec2", "hubert"])  # an export takes seconds
    print("seed:", seed, kind)
    folder = tmp_path_factory.mktemp("speed")
    norm = {"feat_extract_norm": "layer", "conv_bias": True} if kind == "hubert" else {}
    model = transformers.AutoModelForCTC.from_config(transformers.AutoConfig.for_model(kind, **SIZES, **norm))
    for quantizer in attach(model.eval(), find_sites(model), (8,)).values():
        quantizer.freeze(8)
    processor = letters_processor()
    processor.feature_extractor.return_attention_mask = False
    save_packed(folder / "packed", model, processor)
    path = export(folder / "packed", folder / "model.onnx", "speed")
    audio = np.random.default_rng(seed).standard_normal(1_500).astype(np.float32)
    normalized = runtime.OnnxRecognizer(path, threads=1).description.do_normalize
    heard = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7) if normalized else audio
    reference = ReferenceEvaluator(onnx.load(path), new_ops=[MultiHeadAttention])
    (wanted,) = reference.run(None, {"input_values": heard[None]})[0]
    return path, audio, wanted


@pytest.mark.parametrize("saturates", [True, None])
def test_a_file_for_speed_adds_exactly(speed, saturates, monkeypatch):
    """Also where this processor has no need of the option: the file must be one that bears it."""
    if saturates is not None:
        monkeypatch.setattr(runtime, "saturates", lambda: saturates)
    path, audio, wanted = speed
    (found,) = runtime.OnnxRecognizer(path, threads=1).logits([audio])
    # A value on the border of two 8-bit steps may fall to either side; cut-off sums are 0.05 away.
    assert np.sqrt(((found - wanted) ** 2).mean()) < 2e-3 * wanted.std()
