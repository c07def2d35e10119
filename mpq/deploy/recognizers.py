"""What turns a recording into text, for both kinds of models.

They differ in how they take a long recording: the frames of a CTC model are joined across overlapping chunks
(`chunks`); a sequence-to-sequence model writes the texts of pieces that end in pauses (`pauses`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpq.data.audio import Recording
from mpq.deploy.chunks import MARGIN, SECONDS, chunked_logits
from mpq.deploy.pauses import pieces
from mpq.deploy.timestamps import Segment
from mpq.errors import UserError


@dataclass(frozen=True)
class Word:
    """One word and its time, in seconds from the beginning of the recording."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """The text of a recording, and times.

    `words` is None if the model's tokenizer does not report where words begin, `segments` if the model writes no times
    or none were asked for.
    """

    text: str
    words: tuple[Word, ...] | None
    segments: tuple[Segment, ...] | None = None


def transcript(characters: np.ndarray, tokenizer: Any, frame_seconds: float) -> Transcript:
    """The text of the likeliest characters `[frames]`, one frame every `frame_seconds` (0: unknown, no word times).

    A word lasts from the first frame of its first character to the last frame of its last one. CTC models emit a
    character for a frame or two only, so these times lie within the spoken word rather than at its boundaries.
    """
    from transformers import Wav2Vec2CTCTokenizer

    from mpq.models.processor import decode

    if not frame_seconds or not isinstance(tokenizer, Wav2Vec2CTCTokenizer):
        return Transcript(_spaced(decode(tokenizer, characters)), None)
    decoded: Any = tokenizer.decode(characters, output_word_offsets=True)
    words = tuple(
        Word(
            found["word"].lower() if tokenizer.do_lower_case else found["word"],  # transformers forgets that
            _seconds(found["start_offset"], frame_seconds),
            _seconds(found["end_offset"], frame_seconds),
        )
        for found in decoded.word_offsets
    )
    return Transcript(_spaced(decoded.text), words)


def _seconds(frames: int, frame_seconds: float) -> float:
    return round(int(frames) * frame_seconds, 3)


def _spaced(text: str) -> str:
    return " ".join(text.split())  # a pause can produce two word delimiters


class Recognizer(Protocol):
    """Whatever turns a recording of one channel at `rate` Hz into text."""

    @property
    def rate(self) -> int:
        """The sampling rate that it takes, in Hz."""
        ...

    def transcribe(self, recording: Recording, seconds: float = SECONDS, margin: float = MARGIN) -> Transcript:
        """Transcribe a recording at `rate`, a long one in parts of at most `seconds`; see the classes for `margin`."""
        ...


@dataclass(frozen=True)
class FrameRecognizer:
    """`logits` maps samples `[time]` at `rate` Hz to frames `[frames, vocabulary]`, one frame every `step` samples.

    If `step` is None (unknown), recordings are not split into chunks.
    """

    logits: Callable[[np.ndarray], np.ndarray]
    tokenizer: Any
    rate: int
    step: int | None

    def transcribe(self, recording: Recording, seconds: float = SECONDS, margin: float = MARGIN) -> Transcript:
        """Transcribe a recording at `rate` in chunks of `seconds` that overlap by two margins of `margin` seconds.

        Raises: UserError if the two margins fill the chunk; BadAudioError if the recording can't be used.
        """
        if self.step is None:
            parts = iter([self.logits(np.concatenate(list(recording.blocks)))])
        else:
            size, inner = (round(min(length, 1e9) * self.rate) for length in (seconds, margin))  # infinite: one chunk
            parts = chunked_logits(self.logits, recording.blocks, recording.samples, size, inner, self.step)
        characters = np.concatenate([_not_nan(frames).argmax(-1) for frames in parts])
        return transcript(characters, self.tokenizer, (self.step or 0) / self.rate)


@dataclass(frozen=True)
class TextRecognizer:
    """A model that writes the text of at most `longest` seconds (None: of any length): `text` maps samples to it.

    `segments` maps samples to the segments of their text; None if the text is to have no times.
    """

    text: Callable[[np.ndarray], str]
    rate: int
    longest: float | None
    segments: Callable[[np.ndarray], list[Segment]] | None = None

    def transcribe(self, recording: Recording, seconds: float = SECONDS, margin: float = MARGIN) -> Transcript:
        """Transcribe a recording at `rate` in pieces of `seconds`, which end in a pause in their last two margins.

        Raises: UserError if a piece is longer than the model takes, or not longer than two margins; BadAudioError if
        the recording can't be used.
        """
        if self.longest is not None and seconds > self.longest:
            raise UserError(f"chunk_seconds={seconds:g} must be at most {self.longest:g}, all that the model takes")
        size, inner = round(seconds * self.rate), round(margin * self.rate)
        parts = pieces(recording.blocks, recording.samples, size, inner, self.rate)
        if self.segments is None:
            return Transcript(_spaced(" ".join(self.text(piece) for piece in parts)), None)
        found: list[Segment] = []
        begin = 0.0
        for piece in parts:
            found += [
                Segment(_spaced(one.text), round(begin + one.start, 2), round(begin + one.end, 2))
                for one in self.segments(piece)
            ]
            begin += len(piece) / self.rate
        return Transcript(" ".join(one.text for one in found if one.text), None, tuple(found))


def _not_nan(frames: np.ndarray) -> np.ndarray:
    """The frames; raises UserError for NaN, which argmax would silently turn into an empty text."""
    if np.isnan(frames).any():
        raise UserError("the model's outputs are NaN: its weights are damaged, so download or train the model again")
    return frames
