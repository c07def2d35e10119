"""One chapter of the embedded corpus: a speaker's sentences, their synthesis, and the way to the microphone."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpq.data import grammar, voices
from mpq.data.espeak import Voice, speak
from mpq.record.atomic import replacing

RATE = 16_000  # Hz
CHAPTER = 25  # utterances
SPLITS = ("train", "dev-clean", "dev-other", "test-clean", "test-other")


@dataclass(frozen=True)
class Chapter:
    """What a worker needs to make one chapter."""

    split: str
    number: int
    utterances: int
    voice: Voice
    seed: tuple[int, int, int]

    @property
    def folder(self) -> str:
        """Its place in the corpus: split, speaker, number."""
        return f"{self.split}/{self.voice.speaker}/{self.number}"


def plan(utterances: Mapping[str, int], seed: int) -> Iterator[Chapter]:
    """The chapters of a corpus: speakers take turns, heard ones in train and "clean", unheard ones in "other"."""
    speakers_of = {"train": voices.HEARD, "clean": voices.CLEAN, "other": voices.UNHEARD}
    for index, split in enumerate(SPLITS):
        speakers = speakers_of[split.rpartition("-")[2]]
        count = utterances.get(split, 0)
        for number in range(-(-count // CHAPTER)):
            size = min(CHAPTER, count - number * CHAPTER)
            yield Chapter(split, number, size, speakers[number % len(speakers)], (seed, index, number))


def _microphone(audio: np.ndarray, split: str, rng: np.random.Generator) -> np.ndarray:
    """Noise and echo: light on "clean", more on "other", in between and varied on the training set."""
    if split.endswith("clean"):
        return voices.add_noise(audio, rng.uniform(20, 40), rng)
    if split.endswith("other"):
        audio = voices.add_echo(audio, rng.uniform(0.15, 0.35), RATE, rng)
        return voices.add_noise(audio, rng.uniform(12, 25), rng)
    if rng.random() < 0.3:
        audio = voices.add_echo(audio, rng.uniform(0.1, 0.35), RATE, rng)
    return voices.add_noise(audio, rng.uniform(12, 40), rng)


def make_chapter(root: Path, chapter: Chapter) -> str:
    """Write one chapter; return the hash of its content."""
    import soundfile
    from scipy.signal import resample_poly

    folder = root / chapter.folder
    if not folder.is_dir():
        rng = np.random.default_rng(chapter.seed)
        prefix = f"{chapter.voice.speaker}-{chapter.number}"
        lines = []
        with replacing(folder) as temporary:
            temporary.mkdir()
            for number in range(chapter.utterances):
                text = grammar.sentence(rng)
                speed = round(chapter.voice.speed * rng.uniform(0.9, 1.15))
                audio, rate = speak(text, chapter.voice, speed, chapter.voice.pitch + int(rng.integers(-8, 9)))
                audio = resample_poly(audio, RATE // 50, rate // 50)
                audio = _microphone(audio, chapter.split, rng)
                audio *= rng.uniform(0.2, 0.9) / np.abs(audio).max()
                soundfile.write(temporary / f"{prefix}-{number:04d}.flac", audio, RATE, subtype="PCM_16")
                lines.append(f"{prefix}-{number:04d} {text}\n")
            (temporary / f"{prefix}.trans.txt").write_text("".join(lines), encoding="utf-8")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
