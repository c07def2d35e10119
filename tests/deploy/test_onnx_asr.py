"""onnx-asr, a program that is not ours, reads an exported Whisper; skipped where it is not installed."""

import pytest
from packed_whisper import packed_whisper, recordings

from mpq.deploy.onnx_export import export
from mpq.deploy.runtime_seq2seq import OnnxWhisper

onnx_asr = pytest.importorskip("onnx_asr")


def test_its_texts_are_ours(tmp_path, rng):
    """Of a multilingual model without suppressed tokens: onnx-asr has only that prompt, and suppresses none."""
    packed_whisper(tmp_path / "packed", (2, 3, 4), multilingual=True)
    folder = export(tmp_path / "packed", tmp_path / "onnx", "memory")
    theirs = onnx_asr.load_model("whisper", folder)
    theirs.asr._decoding.__func__.__defaults__ = (24,)  # the model's positions, where onnx-asr takes 448
    ours = OnnxWhisper(folder, language="en", threads=1, silence=30)
    for waveform in recordings(rng, 1.2, 3.4):
        wanted = ours.transcribe([waveform])[0]
        assert wanted
        assert theirs.recognize(waveform, language="en") == wanted.removeprefix(" ")
