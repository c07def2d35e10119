"""Reading one audio file, and saying what is wrong with it.

soundfile reads wav, flac, ogg (Vorbis and Opus) and mp3 with no system package.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mpq.data.truncation import cut_short

SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")
_SILENCE = 1e-4  # full scale is 1: below this no sample differs from zero by more than three 16-bit steps
_SECONDS = (0.1, 24 * 3600.0)  # shorter holds no word and no frame of some models; longer is a damaged header


class BadAudioError(Exception):
    """One audio file that can't be used; the message names the file and what is wrong."""


def header(path: Path) -> float:
    """Duration in seconds as the file's header tells it.

    Raises: BadAudioError where the file is no audio, empty or too short, or (wav, ogg) ends too early.
    """
    with _opened(path) as file:
        return file.frames / file.samplerate


def load(path: Path, rate: int) -> np.ndarray:
    """The samples of `path` as one channel `[time]`, float32, resampled to `rate` Hz; channels are averaged.

    Raises: BadAudioError where the file is no audio, empty, too short, truncated, silent or has samples that are no
    numbers.
    """
    with _opened(path) as file:
        frames, original = file.frames, file.samplerate
        try:
            audio = file.read(dtype="float32", always_2d=True).mean(axis=1)
        except (RuntimeError, OSError, MemoryError) as error:  # soundfile's errors are RuntimeErrors
            raise BadAudioError(f"{path} is truncated or damaged: {_reason(error)}") from None
    if len(audio) < frames:
        raise BadAudioError(f"{path} is truncated: it holds {len(audio)} of the {frames} samples its header tells of")
    if not np.isfinite(audio).all():
        raise BadAudioError(f"{path} has samples that are no numbers")
    if np.abs(audio).max() < _SILENCE:
        raise BadAudioError(f"{path} is silent")
    return audio if original == rate else _resample(audio, original, rate)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The soundfile.SoundFile of `path`, once its header makes sense."""
    import soundfile

    try:
        if path.stat().st_size == 0:
            raise BadAudioError(f"{path} is empty: it has no byte")
        if cut_short(path):
            raise BadAudioError(f"{path} is truncated: it ends before its own format says that it does")
        file = soundfile.SoundFile(str(path))
    except (RuntimeError, OSError) as error:
        raise BadAudioError(f"{path} is not readable audio: {_reason(error)}") from None
    with file:
        seconds = file.frames / file.samplerate
        if seconds <= 0:
            raise BadAudioError(f"{path} is empty: it holds no samples")
        if seconds < _SECONDS[0]:
            raise BadAudioError(f"{path} is too short: {seconds:.3f} s, and speech needs {_SECONDS[0]} s")
        if seconds > _SECONDS[1]:
            raise BadAudioError(f"{path} is damaged: its header tells of {seconds / 3600:.0f} hours")
        yield file


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]  # the message itself repeats the path
    # soundfile's message repeats the path; its error_string doesn't. The decoder of a cut flac file has none.
    return getattr(error, "error_string", str(error)).rstrip(".") or "its end can't be decoded"


def _resample(audio: np.ndarray, original: int, rate: int) -> np.ndarray:
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(audio), original, rate).numpy()
