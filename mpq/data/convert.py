"""Decodes, with ffmpeg, the audio formats of phones, browsers and films that soundfile does not read."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".webm", ".mkv", ".mka"),
    *(".wma", ".amr", ".ac3", ".avi", ".mp2", ".aif", ".aiff", ".caf"),  # soundfile knows the last three itself
)
_CUT = "ended prematurely"


class ConversionError(Exception):
    """The file can't be converted; the message says what to do, or what ffmpeg reported."""


def is_foreign(path: Path, file: BinaryIO) -> bool:
    """Return whether a file has such a format, by its suffix or (MP4, Matroska, WebM) its first bytes."""
    file.seek(0)
    head = file.read(12)
    return path.suffix.lower() in SUFFIXES or head[4:8] == b"ftyp" or head[:4] == b"\x1a\x45\xdf\xa3"


def to_wav(path: Path, folder: Path) -> Path:
    """Decode the first audio track of `path` to a wav file in `folder`, keeping its rate and channels.

    Raises: ConversionError.
    """
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        command = shlex.join(["ffmpeg", "-i", str(path), "-ar", "16000", str(path.with_suffix(".wav"))])
        raise ConversionError(f"has a format that needs ffmpeg: install it, or convert the file with `{command}`")
    made = folder / "decoded.wav"
    # -xerror: a file that can't be decoded to its end is an error; file: a colon in the name is not a protocol
    words = ["-nostdin", "-v", "error", "-xerror", "-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_s16le"]
    done = subprocess.run([ffmpeg, *words, str(made)], capture_output=True, text=True, errors="replace")
    lines = done.stderr.strip().splitlines()
    if cut := next((line for line in lines if _CUT in line), None):  # Matroska and WebM, with exit status 0
        raise ConversionError(f"is truncated: ffmpeg says {cut}")
    if done.returncode or not made.is_file():
        said = (lines or [f"exit status {done.returncode}"])[-1]
        raise ConversionError(f"is not readable audio: ffmpeg says {said}")
    return made
