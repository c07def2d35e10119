"""The runtime on a hand-made file, whose logits are known: padding, normalisation, masks, lengths, text."""

import gc
import json
import sys
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
import soundfile
import zstandard
from onnx import TensorProto, helper

from mpq.deploy import compressed
from mpq.deploy.runtime import METADATA_KEY, Description, OnnxRecognizer
from mpq.errors import UserError
from mpq.models.processor import letters_processor

PROCESSOR = letters_processor()
TOKENS = PROCESSOR.tokenizer.convert_ids_to_tokens(list(range(32)))
PLAIN = Description("memory", 16_000, False, False, TOKENS, "<pad>", "|", False, [(1, 1)], "0")


def write(path, description, text=None):
    """A file whose logits are, in every frame, the sample (plus 100 times the mask) times 0, 1, 2 ... 31."""
    inputs = [helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["b", "t"])]
    nodes = []
    if description.attention_mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["b", "t"]))
        nodes += [helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Mul", ["m", "hundred"], ["m100"])]
        nodes += [helper.make_node("Add", ["input_values", "m100"], ["x"])]
    nodes += [helper.make_node("Unsqueeze", ["x" if nodes else "input_values", "axis"], ["column"])]
    nodes += [helper.make_node("Mul", ["column", "numbers"], ["logits"])]
    constants = {"axis": np.array([-1]), "numbers": np.arange(32, dtype=np.float32), "hundred": np.float32(100)}
    graph = helper.make_graph(
        nodes,
        "known",
        inputs,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "t", 32])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: text or json.dumps(asdict(description))})
    onnx.save(model, path)
    return path


def waveforms(*lengths):
    return [np.random.default_rng().standard_normal(length).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("mask", [False, True])
def test_logits_are_each_recordings_own_frames(mask, tmp_path):
    recognizer = OnnxRecognizer(write(tmp_path / "a.onnx", replace(PLAIN, attention_mask=mask)), threads=1)
    heard = waveforms(9, 5, 7)
    for found, waveform in zip(recognizer.logits(heard), heard, strict=True):
        np.testing.assert_allclose(found, (waveform + 100 * mask)[:, None] * np.arange(32), rtol=1e-6)
    assert recognizer.logits([]) == []


def test_normalisation_is_the_feature_extractors(tmp_path):
    recognizer = OnnxRecognizer(write(tmp_path / "a.onnx", replace(PLAIN, do_normalize=True)), threads=1)
    heard = [3 + 5 * waveform for waveform in waveforms(900, 500)]
    for found, waveform in zip(recognizer.logits(heard), heard, strict=True):
        wanted = PROCESSOR.feature_extractor(waveform, sampling_rate=16_000).input_values[0]
        np.testing.assert_allclose(found[:, 1], wanted, atol=1e-5)


def test_threads_and_memory_are_as_asked_for(tmp_path):
    recognizer = OnnxRecognizer(write(tmp_path / "a.onnx", PLAIN), threads=1)
    options = recognizer._session.get_session_options()
    assert (options.intra_op_num_threads, options.enable_mem_pattern) == (1, False)


def test_frames_are_counted_step_by_step():
    description = replace(PLAIN, frame_steps=[(10, 5), (3, 2)])
    assert [description.frames(samples) for samples in (5, 10, 20, 21, 100)] == [0, 0, 1, 1, 9]


@pytest.mark.parametrize(("lower", "between"), [(False, " "), (True, " "), (False, ""), (True, "-")])
def test_text_is_the_tokenizers(lower, between, tmp_path, monkeypatch):
    monkeypatch.setattr(PROCESSOR.tokenizer, "do_lower_case", lower)
    monkeypatch.setattr(PROCESSOR.tokenizer, "replace_word_delimiter_char", between)
    described = replace(PLAIN, lower_case=lower, between_words=between)
    recognizer = OnnxRecognizer(write(tmp_path / "a.onnx", described), threads=1)
    rng = np.random.default_rng()
    for _ in range(200):
        characters = rng.choice([0, 0, 4, 4, *range(32)], rng.integers(0, 30)).repeat(rng.integers(1, 3))
        assert recognizer.text(characters) == PROCESSOR.tokenizer.decode(characters)


def test_transcribe_takes_the_likeliest_character(tmp_path):
    recognizer = OnnxRecognizer(write(tmp_path / "a.onnx", PLAIN), threads=1)
    # Positive samples make the last token likeliest, negative ones the first, which is the blank.
    assert recognizer.transcribe([np.array([1, 1, -1, 1], dtype=np.float32)]) == [TOKENS[31] * 2]


def same(frame, content):
    """Whether a changed frame has the same content: a few bits of the format mean nothing."""
    try:
        stated = zstandard.frame_content_size(frame)  # first, since a flipped size may ask for any memory
        return stated == len(content) and zstandard.decompress(frame) == content
    except zstandard.ZstdError:
        return False


def test_a_compressed_file_is_the_same_model_and_its_mutants_are_refused(tmp_path, monkeypatch):
    plain = write(tmp_path / "a.onnx", PLAIN).read_bytes()
    path = tmp_path / "a.onnx.zst"
    path.write_bytes(frame := compressed.compress(plain))
    assert zstandard.ZstdDecompressor().decompress(frame) == plain
    recognizer, (heard,) = OnnxRecognizer(path, threads=1), waveforms(9)
    np.testing.assert_allclose(recognizer.logits([heard])[0], heard[:, None] * np.arange(32), rtol=1e-6)
    assert plain not in gc.get_referents(recognizer._session.__dict__)  # the buffer is given back

    rng = np.random.default_rng()
    unstated = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
    zeros = zstandard.ZstdCompressor().compress(bytes(10**6))
    cases = [(frame[:size], "is damaged") for size in (0, 3, 20, len(frame) - 1)]
    cases += [(frame + b"x", "is damaged"), (frame + frame, "is damaged"), (unstated, "states an unstated number")]
    cases += [(zeros, "of 50 bytes must hold at most 3200, but states 1000000")]
    for place in rng.choice(len(frame), 200):
        mutant = frame[:place] + bytes([frame[place] ^ int(rng.integers(1, 256))]) + frame[place + 1 :]
        if not same(mutant, plain):
            cases.append((mutant, None))
    assert len(cases) > 190
    for mutant, told in cases:
        path.write_bytes(mutant)
        with pytest.raises(UserError, match=told) as caught:
            compressed.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="compress=false writes a plain one"):
        compressed.compress(bytes(10**6))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match=r"need zstandard: pip install zstandard, or restore them with zstd -d"):
        OnnxRecognizer(path)


def test_what_is_not_ours_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "text.onnx").write_text("this is no model")
    cases = {
        tmp_path / "none.onnx": "is not a file",
        tmp_path: "is not a file",
        tmp_path / "text.onnx": "not an ONNX file that can be loaded",
        write(tmp_path / "foreign.onnx", PLAIN, "{}"): "not written by this version of mpq",
        write(tmp_path / "newer.onnx", replace(PLAIN, version=PLAIN.version + 1)): "not written by this version of mpq",
    }
    for path, told in cases.items():
        with pytest.raises(UserError, match=told) as caught:
            OnnxRecognizer(path)
        assert "\n" not in str(caught.value)
    recognizer = OnnxRecognizer(write(tmp_path / "a.onnx", PLAIN), threads=1)
    uncertain = [np.zeros(9, kind) for kind in (np.uint8, np.int8, np.int64, bool)]  # what their full scale is
    for bad in (np.zeros((2, 3)), np.zeros(0), np.array([0.1, np.nan, 0.2, 0.3]), np.full(9, np.inf), *uncertain):
        with pytest.raises(UserError, match=r"a waveform (must be|holds NaN or infinite values)"):
            recognizer.logits([bad])


def test_whole_numbers_are_read_at_their_full_scale(tmp_path):
    recognizer = OnnxRecognizer(write(tmp_path / "a.onnx", PLAIN), threads=1)
    samples = np.random.default_rng().integers(-(2**15), 2**15, 50).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="PCM_16")
    read, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    for kind, factor in ((np.int16, 1), (np.int32, 2**16)):
        given = samples.astype(kind) * kind(factor)
        np.testing.assert_array_equal(recognizer.logits([given])[0], recognizer.logits([read])[0])
