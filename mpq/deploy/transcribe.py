"""Transcribes audio files with a model from a folder or the Hub (in PyTorch), or with ONNX files (ONNX Runtime).

Models run on one recording at a time, without padding, so that no transcript depends on other files. A file that can't
be read gets an error message of one line, and the others are transcribed.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.data import audio
from mpq.deploy.chunks import MARGIN, SECONDS
from mpq.deploy.compressed import SUFFIX
from mpq.deploy.recognizers import FrameRecognizer, Recognizer, TextRecognizer, Transcript
from mpq.deploy.runtime_seq2seq import SILENCE, is_whisper
from mpq.deploy.timestamps import Segment
from mpq.errors import ONE_LANGUAGE, UserError, unused
from mpq.models.hub import check_available, known
from mpq.progress import track

if TYPE_CHECKING:
    from mpq.deploy.runtime import Description
    from mpq.models.ctc import CtcModel
    from mpq.models.speech import SpeechModel


_EXPORTED = (".onnx", f".onnx{SUFFIX}")


def open_recognizer(
    model: str,
    accelerator: str = "auto",
    language: str | None = None,
    times: bool = False,
    silence: float = SILENCE,
    fallback: bool = False,
) -> Recognizer:
    """The recognizer of a packed folder, another speech model's folder, a Hub name, or what scripts/export.py wrote.

    `language`: of the recordings, for a multilingual model. `times`: whether an exported Whisper writes the times of
    segments; it may then choose other words. `silence`: seconds of it that a Whisper hears after a recording, up to
    30 s in all. `fallback`: whether a Whisper decodes a text that repeats itself again.

    Raises: UserError if the model is missing, damaged, or of a kind that can't transcribe, or PyTorch finds no GPU for
    "gpu".
    """
    whisper = is_whisper(Path(model))
    if not whisper and not model.endswith(_EXPORTED):
        return _torch(model, accelerator, language, silence, fallback)
    unused(["device"] if accelerator == "gpu" else [], "an .onnx file runs on the CPU")
    return _onnx_whisper(Path(model), language, times, silence, fallback) if whisper else _onnx(Path(model))


def _torch(name: str, accelerator: str, language: str | None, silence: float, fallback: bool) -> Recognizer:
    name = known(name)
    if not (Path(name) / "config.json").is_file():
        if exported := [file for file in sorted(Path(name).glob("*.onnx*")) if file.name.endswith(_EXPORTED)]:
            raise UserError(f"{name} is a folder of exported files: name one of them, model={exported[0]}")
        check_available(name)  # before the imports, which take seconds
    import torch

    from mpq.checkpoint import packed
    from mpq.models.ctc import CtcModel
    from mpq.models.loading import load, speech_model
    from mpq.models.speech import Choices

    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("device=gpu needs a GPU that PyTorch can use, but it finds none; device=cpu runs without")
    local = Path(name)
    in_folder = (local / "config.json").is_file()
    model, processor = packed.load_model(local, language) if in_folder else load(name, language=language)
    if processor is None:
        raise UserError(f"{name} has no processor: add the files that its processor's save_pretrained writes")
    speech = speech_model(model.eval(), processor, Choices(silence, language, fallback))
    unused(["language"] if language and not speech.takes_language else [], ONE_LANGUAGE)
    speech.to_accelerator(accelerator)
    return _frames(speech) if isinstance(speech, CtcModel) else _texts(speech)


def _frames(speech: "CtcModel") -> FrameRecognizer:
    import torch

    @torch.inference_mode()
    def logits(samples: np.ndarray) -> np.ndarray:
        inputs = speech.reader.inputs(samples)[0][None].to(speech.device)
        lengths = torch.tensor([inputs.shape[1]], device=speech.device)
        frames = speech.logits(inputs, lengths)
        return frames[0, : int(speech.frames(lengths)[0])].float().cpu().numpy()

    return FrameRecognizer(logits, speech.processor.tokenizer, speech.sampling_rate, speech.stride)


def _texts(speech: "SpeechModel") -> TextRecognizer:
    import torch

    if bad := [name for name, weight in speech.model.named_parameters() if not weight.isfinite().all()]:
        raise UserError(f"{bad[0]} holds NaN or infinite values: download or train the model again")

    @torch.inference_mode()
    def text(samples: np.ndarray) -> str:
        inputs, length = speech.reader.inputs(samples)
        return speech.transcribe(inputs[None].to(speech.device), torch.tensor([length], device=speech.device))[0]

    return TextRecognizer(text, speech.sampling_rate, speech.reader.longest_seconds)


def _onnx(path: Path) -> FrameRecognizer:
    from mpq.deploy.runtime import OnnxRecognizer

    model = OnnxRecognizer(path)
    about = model.description
    shortest = next(samples for samples in count(1) if about.frames(samples) > 0)

    def logits(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples, (0, max(0, shortest - len(samples))))
        return model.logits([padded])[0][: about.frames(len(samples))]

    return FrameRecognizer(
        logits, _tokenizer(about), about.sampling_rate, prod(stride for _, stride in about.frame_steps)
    )


def _onnx_whisper(folder: Path, language: str | None, times: bool, silence: float, fallback: bool) -> TextRecognizer:
    from mpq.deploy.runtime_seq2seq import OnnxWhisper

    model = OnnxWhisper(folder, language, silence=silence, fallback=fallback)

    def text(samples: np.ndarray) -> str:
        return model.transcribe([samples])[0]

    def segments(samples: np.ndarray) -> list[Segment]:
        return model.segments([samples])[0]

    writes_times = times and model.description.has_times
    return TextRecognizer(text, model.sampling_rate, model.longest_seconds, segments if writes_times else None)


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


def check_exist(paths: Sequence[Path]) -> None:
    """Raise UserError if none of the files exists; `transcribe_files` tells of single ones."""
    if not any(path.exists() for path in paths):
        listed = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
        raise UserError(f"{listed}: no such file{'s' if len(paths) > 1 else ''}")


def transcribe_files(
    recognizer: Recognizer,
    paths: Sequence[Path],
    as_json: bool = False,
    seconds: float = SECONDS,
    margin: float = MARGIN,
) -> int:
    """Print the text of each file, or with `as_json` one JSON object per line; return how many files could not be read.

    For one file only the text is printed, for several `<file><tab><text>`. Errors go to standard error. `seconds` and
    `margin`: as the recognizer takes them.

    Raises: UserError if the two margins fill the chunk, or the model takes less than a chunk.
    """
    bad = 0
    for path in track(paths, "Transcribing", "files"):
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
