"""From frames to text and the times of its words."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Word:
    """One word, and when it is said: seconds from the beginning of the recording."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """What was said; `words` is None where the model's tokenizer can't tell where a word begins."""

    text: str
    words: tuple[Word, ...] | None


def transcript(characters: np.ndarray, tokenizer: Any, frame_seconds: float) -> Transcript:
    """The text of the likeliest characters `[frames]`, one frame every `frame_seconds` (0: times are not known).

    A word lasts from the first frame of its first character to the last of its last: CTC models are sure of a character
    for a frame or two, so these times are where a word is recognised, within its sound.
    """
    from transformers import Wav2Vec2CTCTokenizer

    if not frame_seconds or not isinstance(tokenizer, Wav2Vec2CTCTokenizer):
        return Transcript(_spaced(tokenizer.decode(characters)), None)
    decoded: Any = tokenizer.decode(characters, output_word_offsets=True)
    words = tuple(
        Word(
            found["word"], _seconds(found["start_offset"], frame_seconds), _seconds(found["end_offset"], frame_seconds)
        )
        for found in decoded.word_offsets
    )
    return Transcript(_spaced(decoded.text), words)


def _seconds(frames: int, frame_seconds: float) -> float:
    return round(int(frames) * frame_seconds, 3)


def _spaced(text: str) -> str:
    return " ".join(text.split())  # a pause can be two word boundaries
