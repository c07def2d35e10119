"""Transcribe audio files of any length, sample rate and number of channels.

A file that can't be read gets one line on standard error and makes the exit status 1; the others are transcribed. Write
a file name with "=" as ./a=b.wav.

example: python scripts/transcribe.py talk.wav more/*.flac model=FOLDER json=true
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpq.cli import command, option, positional, tell_unused
from mpq.conf import REPOSITORY


@dataclass(frozen=True)
class Options:
    """Which files to transcribe, and with which model."""

    audio: tuple[Path, ...] = positional("wav, flac, ogg, opus or mp3; with ffmpeg installed, m4a, webm and others")
    model: str | None = option(
        None,
        "a folder that mpq or transformers wrote, a name on the Hub (NAME or NAME@REVISION), or what "
        "scripts/export.py wrote (an .onnx or .onnx.zst file, for a Whisper a folder); default: "
        "the shipped tiny_wav2vec2, which is trained only on the 473 words of the embedded corpus",
    )
    json: bool = option(False, "print one JSON object per line: file, seconds, text, times of words or segments")
    chunk_seconds: float = option(30.0, "length of the chunks into which longer recordings are split")
    margin_seconds: float = option(
        5.0,
        "seconds dropped at each end of a chunk where it was split; Whisper's chunks don't overlap but end in a pause "
        "in their last two margins",
    )
    silence_seconds: float = option(
        10.0, "silence that a Whisper hears after a recording; less saves time, but short recordings may come out wrong"
    )
    language: str | None = option(None, "spoken in the recordings; only for a multilingual model, which needs it")
    fallback: bool = option(
        True, "decode a text of a Whisper that repeats itself again, at rising temperatures, as OpenAI does"
    )
    device: Literal["auto", "cpu", "gpu"] = option("auto", "where PyTorch computes")


@command(Options)
def main(chosen: Options) -> int:
    """Transcribe file after file; return the exit status."""
    from mpq.deploy.transcribe import check_exist, open_recognizer, transcribe_files  # here: takes a while

    check_exist(chosen.audio)
    model = chosen.model or str(REPOSITORY / "mpq" / "models" / "tiny_wav2vec2")
    given = chosen.language, chosen.json, chosen.silence_seconds, chosen.fallback
    recognizer = open_recognizer(model, chosen.device, *given)
    if hasattr(recognizer, "step"):
        tell_unused(chosen, ("silence_seconds", "fallback"), "only for a Whisper")
    if getattr(recognizer, "step", 0) is None:
        tell_unused(chosen, ("chunk_seconds", "margin_seconds"), "this model hears each recording whole")
    bad = transcribe_files(recognizer, chosen.audio, chosen.json, chosen.chunk_seconds, chosen.margin_seconds)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
