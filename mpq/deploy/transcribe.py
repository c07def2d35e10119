"""Transcribes audio files with a model from a folder or the Hub (in PyTorch) or with an `.onnx` file (ONNX Runtime).

Models run on one recording at a time, without padding, so that no transcript depends on other files. A file that can't
be read gets an error message of one line, and the others are transcribed.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.data.audio import Recording
from mpq.deploy.chunks import MARGIN, SECONDS, chunked_logits
from mpq.errors import UserError

if TYPE_CHECKING:
    from mpq.deploy.runtime import Description
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mpq.data import audio


@dataclass(frozen=True)
class Word:
    """One word and its time, in seconds from the beginning of the recording."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """The text of a recording; `words` is None if the model's tokenizer does not report where words begin."""

    text: str
    words: tuple[Word, ...] | None


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


@dataclass(frozen=True)
class Recognizer:
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


def _not_nan(frames: np.ndarray) -> np.ndarray:
    """The frames; raises UserError for NaN, which argmax would silently turn into an empty text."""
    if np.isnan(frames).any():
        raise UserError("the model's outputs are NaN: its weights are damaged, so download or train the model again")
    return frames


def open_recognizer(model: str, accelerator: str = "auto") -> Recognizer:
    """The recognizer of a packed folder, another CTC model's folder, a Hub name, or an `.onnx` file.

    Raises: UserError if the model is missing, damaged, or not a CTC model.
    """
    return _onnx(Path(model)) if model.endswith(".onnx") else _torch(model, accelerator)


def _torch(name: str, accelerator: str) -> Recognizer:
    import torch

    from mpq.checkpoint import packed
    from mpq.models.ctc import CtcModel
    from mpq.models.loading import load

    local = Path(name)
    model, processor = packed.load_model(local) if (local / "config.json").is_file() else load(name)
    if processor is None:
        raise UserError(f"{name} has no processor: add the files that its processor's save_pretrained writes")
    speech = CtcModel(model.eval(), processor)
    speech.to_accelerator(accelerator)

    @torch.inference_mode()
    def logits(samples: np.ndarray) -> np.ndarray:
        inputs = speech.reader.inputs(samples)[0][None].to(speech.device)
        lengths = torch.tensor([inputs.shape[1]], device=speech.device)
        frames = speech.logits(inputs, lengths)
        return frames[0, : int(speech.frames(lengths)[0])].float().cpu().numpy()

    return Recognizer(logits, processor.tokenizer, speech.sampling_rate, speech.stride)


def _onnx(path: Path) -> Recognizer:
    from mpq.deploy.runtime import OnnxRecognizer

    model = OnnxRecognizer(path)
    about = model.description
    shortest = next(samples for samples in count(1) if about.frames(samples) > 0)

    def logits(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples, (0, max(0, shortest - len(samples))))
        return model.logits([padded])[0][: about.frames(len(samples))]

    return Recognizer(logits, _tokenizer(about), about.sampling_rate, prod(stride for _, stride in about.frame_steps))


def _tokenizer(about: "Description") -> Any:
    """A transformers tokenizer with the vocabulary of an ONNX file."""
    from transformers import Wav2Vec2CTCTokenizer

    with tempfile.TemporaryDirectory() as packed:
        file = Path(packed) / "vocab.json"
        file.write_text(json.dumps({token: index for index, token in enumerate(about.vocabulary)}), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file),
            pad_token=about.blank,
            word_delimiter_token=about.word_delimiter,
            replace_word_delimiter_char=about.between_words,
            do_lower_case=about.lower_case,
        )


def transcribe_files(
    recognizer: Recognizer,
    paths: Sequence[Path],
    as_json: bool = False,
    seconds: float = SECONDS,
    margin: float = MARGIN,
) -> int:
    """Print the text of each file, or with `as_json` one JSON object per line; return how many files could not be read.

    For one file only the text is printed, for several `<file><tab><text>`. Errors go to standard error. Chunks have
    `seconds`; `margin` seconds are dropped at each end of a chunk that lies inside the recording.

    Raises: UserError if the two margins fill the chunk.
    """
    bad = 0
    for path in _tracked(paths):
        try:
            with audio.stream(path, recognizer.rate) as recording:
                found = recognizer.transcribe(recording, seconds, margin)
        except audio.BadAudioError as error:
            bad += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        if as_json:
            print(_object(path, found, recording.samples / recognizer.rate), flush=True)
        else:
            print(found.text if len(paths) == 1 else f"{path}\t{found.text}", flush=True)
    return bad


def _object(path: Path, found: Transcript, seconds: float) -> str:
    return json.dumps({"file": str(path), "seconds": round(seconds, 3), **asdict(found)}, ensure_ascii=False)


def _tracked(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths; several of them get a progress bar if standard error is a terminal."""
    console = Console(stderr=True)
    if len(paths) == 1 or not console.is_terminal:
        yield from paths
        return
    columns = (TextColumn("Transcribing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Text for the same terminal must go above the bar; text for a file or a pipe must not go to the bar's console.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield from progress.track(paths)
