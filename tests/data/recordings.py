"""Recordings on disk for the tests of the readers: whole ones and every kind of bad one."""

from pathlib import Path

import numpy as np
import soundfile

FORMATS = {
    ".flac": {"format": "FLAC", "subtype": "PCM_16"},
    ".wav": {"format": "WAV", "subtype": "PCM_16"},
    ".ogg": {"format": "OGG", "subtype": "VORBIS"},
    ".opus": {"format": "OGG", "subtype": "OPUS"},
}


def tone(seconds: float, rate: int = 16_000, hertz: float = 300.0) -> np.ndarray:
    """A tone that swells and fades."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.4 * np.sin(2 * np.pi * hertz * time) * np.hanning(len(time))


def record(path: Path, audio: np.ndarray, rate: int = 16_000, **settings: str) -> Path:
    """Write `audio` in the format that the file's name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, **(settings or FORMATS[path.suffix]))
    return path


def label(chapter: Path, texts: dict[str, str]) -> None:
    """Write a chapter's transcripts."""
    chapter.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name} {text}\n" for name, text in texts.items())
    (chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt").write_text(lines, encoding="utf-8")


def split_of(root: Path, good: int = 2, split: str = "test") -> Path:
    """A split of `good` utterances 1-1-0000, ...; return its one chapter."""
    chapter = root / split / "1" / "1"
    for number in range(good):
        record(chapter / f"1-1-{number:04d}.flac", tone(0.5 + 0.1 * number))
    label(chapter, {f"1-1-{number:04d}": "A TEST" for number in range(good)})
    return chapter


def cut(path: Path, share: float) -> Path:
    """Keep the first `share` of a file's bytes."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path
