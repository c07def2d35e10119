"""scripts/transcribe.py with a packed Whisper: pieces of long recordings, the JSON, and what it refuses."""

import json
import runpy
import sys

import numpy as np
import pytest
import soundfile
import transformers
from packed_whisper import packed_whisper
from tiny_whisper import GREEDY, tiny_whisper

import mpq
from mpq.checkpoint.packed import save_model, save_packed
from mpq.deploy.onnx_export import export
from mpq.deploy.pauses import pieces
from mpq.deploy.runtime_seq2seq import OnnxWhisper
from mpq.settings import REPOSITORY

RATE = 16_000


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper") / "packed"
    model, processor = tiny_whisper()
    mpq.quantize(model, 4)
    save_packed(folder, model, processor)
    return folder


def here(monkeypatch, *words):
    """Run the script in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["transcribe.py", *map(str, words), "device=cpu"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(REPOSITORY / "scripts" / "transcribe.py"), run_name="__main__")
    return stop.value.code


def refused(monkeypatch, capsys, *words):
    assert here(monkeypatch, *words) == 1
    return capsys.readouterr().err.splitlines()[-1]


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def test_a_long_recording_is_the_texts_of_its_pieces(monkeypatch, capsys, packed, tmp_path, rng):
    samples = (0.3 * rng.standard_normal(7 * RATE) * (np.arange(7 * RATE) % RATE > RATE // 2)).astype(np.float32)
    recognize = transformers.pipeline("automatic-speech-recognition", model=str(packed), generate_kwargs=GREEDY)
    parts = list(pieces([samples], len(samples), 3 * RATE, RATE // 2, RATE))
    want = " ".join(recognize(part)["text"] for part in parts).split()
    path = write(tmp_path / "long.wav", samples)
    words = [path, f"model={packed}", "chunk_seconds=3", "margin_seconds=0.5", "silence_seconds=30"]
    capsys.readouterr()
    assert here(monkeypatch, *words) == 0
    assert len(parts) == 3 and capsys.readouterr().out.split() == want
    assert here(monkeypatch, *words, "json=true") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"file": str(path), "seconds": 7.0, "text": " ".join(want), "words": None, "segments": None}


def test_what_cannot_be_transcribed_is_one_sentence(monkeypatch, capsys, packed, tmp_path, rng):
    path = write(tmp_path / "a.wav", rng.standard_normal(RATE))
    sentence = refused(monkeypatch, capsys, path, f"model={packed}", "chunk_seconds=40")
    assert sentence == "error: chunk_seconds=40 must be at most 30, all that the model takes"
    sentence = refused(monkeypatch, capsys, path, f"model={packed}", "silence_seconds=-1")
    assert sentence == "error: silence_seconds=-1 must be at least 0"
    model, processor = tiny_whisper()
    model.proj_out.weight.data[3, 5] = float("nan")
    save_model(tmp_path / "nan", model, processor)
    sentence = refused(monkeypatch, capsys, path, f"model={tmp_path / 'nan'}")
    assert "embed_tokens.weight holds NaN or infinite values" in sentence


def test_a_multilingual_model_is_told_the_language(monkeypatch, capsys, tmp_path, rng):
    model, processor = tiny_whisper()
    token = processor.tokenizer.convert_tokens_to_ids
    model.generation_config.is_multilingual = True
    model.generation_config.lang_to_id = {"<|en|>": token("<|en|>")}
    model.generation_config.task_to_id = {"transcribe": token("<|transcribe|>")}
    save_model(tmp_path / "many", model, processor)
    path = write(tmp_path / "a.wav", rng.standard_normal(RATE))
    words = [path, f"model={tmp_path / 'many'}"]
    assert "language= for the other scripts" in refused(monkeypatch, capsys, *words)
    assert "must be one of en, but is xx" in refused(monkeypatch, capsys, *words, "language=xx")
    assert here(monkeypatch, *words, "language=en") == 0
    assert len(capsys.readouterr().out) > 5


def test_an_exported_model_writes_the_same_texts_and_times_of_segments(monkeypatch, capsys, tmp_path, rng):
    packed_whisper(tmp_path / "packed", (2, 3, 4))
    folder = export(tmp_path / "packed", tmp_path / "onnx", "memory")
    samples = (0.3 * rng.standard_normal(7 * RATE) * (np.arange(7 * RATE) % RATE > RATE // 2)).astype(np.float32)
    path = write(tmp_path / "long.wav", samples)
    words = [path, "chunk_seconds=3", "margin_seconds=0.5"]
    capsys.readouterr()
    assert here(monkeypatch, *words, f"model={tmp_path / 'packed'}") == 0
    want = capsys.readouterr().out
    assert here(monkeypatch, *words, f"model={folder}") == 0
    assert capsys.readouterr().out == want and len(want) > 5
    assert here(monkeypatch, *words, f"model={folder}", "json=true") == 0
    found = json.loads(capsys.readouterr().out)
    recognizer = OnnxWhisper(folder, threads=1)
    parts = list(pieces([samples], len(samples), 3 * RATE, RATE // 2, RATE))
    begins = np.cumsum([0, *map(len, parts)]) / RATE
    segments = [
        {"text": " ".join(one.text.split()), "start": round(b + one.start, 2), "end": round(b + one.end, 2)}
        for part, b in zip(parts, begins, strict=False)
        for one in recognizer.segments([part])[0]
    ]
    assert found["segments"] == segments and len(parts) == 3
    assert found["text"] == " ".join(one["text"] for one in segments if one["text"]) and found["words"] is None
    sentence = refused(monkeypatch, capsys, path, f"model={folder / 'encoder_model.onnx'}")
    assert sentence.endswith("is one of the two files of a Whisper: name its folder")
    (folder / "decoder_model_merged.onnx").unlink()
    sentence = refused(monkeypatch, capsys, path, f"model={folder}")
    assert "lacks decoder_model_merged.onnx: export the model again" in sentence
