"""Audio in the formats of phones, browsers and films, which soundfile does not read: ffmpeg decodes them."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".webm", ".mkv", ".mka"),
    *(".wma", ".amr", ".ac3", ".avi", ".mp2", ".aif", ".aiff", ".caf"),  # soundfile knows the last three itself
)


class ConversionError(Exception):
    """What to do, or what ffmpeg said."""


def is_foreign(path: Path, file: BinaryIO) -> bool:
    """Whether a file is of such a format by its name or, as MP4 and Matroska (WebM) are, by its first bytes."""
    file.seek(0)
    head = file.read(12)
    return path.suffix.lower() in SUFFIXES or head[4:8] == b"ftyp" or head[:4] == b"\x1a\x45\xdf\xa3"


def to_wav(path: Path, folder: Path) -> Path:
    """Decode the first audio track of `path` to a wav file in `folder`, with its own rate and channels.

    Raises: ConversionError.
    """
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        command = shlex.join(["ffmpeg", "-i", str(path), "-ar", "16000", str(path.with_suffix(".wav"))])
        raise ConversionError(f"is of a format that takes ffmpeg: install it, or convert the file with `{command}`")
    made = folder / "decoded.wav"
    # -xerror: what can't be decoded to its end is an error; file: keeps a name with a colon from being a protocol
    words = ["-nostdin", "-v", "error", "-xerror", "-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_s16le"]
    done = subprocess.run([ffmpeg, *words, str(made)], capture_output=True, text=True, errors="replace")
    if done.returncode or not made.is_file():
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ConversionError(f"is not readable audio: ffmpeg says {said}")
    return made
