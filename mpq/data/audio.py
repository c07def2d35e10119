"""Reads one audio file, or reports what is wrong with it.

soundfile reads wav, flac, ogg (Vorbis and Opus) and mp3 without a system package. `mpq.data.containers` finds where a
file really ends, since headers can be wrong. Truncated files are refused; for mp3 this can be detected only if the file
has a length header. A truncated flac file fails to decode. ffmpeg decodes other formats (`mpq.data.convert`).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mpq.data import convert
from mpq.data.containers import CutShortError, views
from mpq.data.folder import is_utf8, printable

SUFFIXES = (".flac", ".wav", ".ogg", ".oga", ".opus", ".mp3", *convert.SUFFIXES)
_SILENCE = 1e-4  # full scale is 1: below this no sample differs from zero by more than three 16-bit steps
_BLOCK = 2**20  # samples read at once: a minute at 16 kHz
_REACH = 7  # samples, at the lower of two rates, that torchaudio's filter spans on either side
_WEIGHTS = 2**29  # of a resampling filter, 4 bytes each: more would not fit a laptop's memory
_SECONDS = (0.1, 24 * 3600.0)  # shorter: no word, and for some models no frame; longer: a damaged header


class BadAudioError(Exception):
    """One audio file that can't be used; the message names the file and the problem."""


@dataclass(frozen=True)
class Recording:
    """Audio of `samples` samples, one channel, float32, read as consecutive `blocks` `[time]`.

    Some problems are only found at the last block, which then raises BadAudioError.
    """

    samples: int
    blocks: Iterable[np.ndarray]


def header(path: Path) -> float:
    """Return the duration in seconds, without decoding.

    Raises: BadAudioError if the file is not audio, is empty or too short, or (wav, ogg, mp3) is truncated.
    """
    with _opened(path) as parts:
        return sum(part.frames / part.samplerate for part in parts)


def load(path: Path, rate: int) -> np.ndarray:
    """Return the samples of `path` as one channel `[time]`, float32, resampled to `rate` Hz.

    Channels are averaged; if they cancel each other, the loudest is used instead.

    Raises: BadAudioError if the file is not audio, is empty, too short, truncated or silent, or has samples that are
    NaN or infinite.
    """
    with _opened(path, rate) as parts:
        reader, made = _Reader(path, parts), []
        for part in parts:
            audio = np.concatenate(list(reader.blocks(part)))
            made.append(audio if part.samplerate == rate else _resample(audio, part.samplerate, rate))
    return made[0] if len(made) == 1 else np.concatenate(made)


@contextmanager
def stream(path: Path, rate: int) -> Iterator[Recording]:
    """Yield what `load` returns, block by block: an hour takes no more memory than a minute.

    Raises: BadAudioError as `load` does, in some cases only at the last block.
    """
    with _opened(path, rate) as parts:
        reader = _Reader(path, parts)
        blocks = (
            block
            for part in parts
            for block in (
                reader.blocks(part)
                if part.samplerate == rate
                else _resampled(reader.blocks(part), part.samplerate, rate)
            )
        )
        yield Recording(sum(-(-part.frames * rate // part.samplerate) for part in parts), blocks)


class _Reader:
    """Reads the parts of a file one after the other, and raises at the end of the last if all were silent."""

    def __init__(self, path: Path, parts: Sequence[Any]) -> None:
        self._path = path
        self._last = parts[-1]
        self._peak = 0.0

    def blocks(self, part: Any) -> Iterator[np.ndarray]:
        """Yield the mean of all channels, in blocks `[time]`, at the part's own rate."""
        channel = self._uncancelled(part) if part.channels > 1 else None
        for block in self._channels(part):
            block = block.mean(axis=1) if channel is None else block[:, channel].copy()
            self._peak = max(self._peak, float(np.abs(block).max()))
            if part is self._last and part.tell() >= part.frames and self._peak < _SILENCE:
                raise BadAudioError(f"{self._path} is silent")
            yield block

    def _uncancelled(self, part: Any) -> int | None:
        """Return the loudest channel if channels of opposite phase would nearly cancel in the mean, else None.

        They do if the mean has less than a tenth of the power that the mean of uncorrelated channels would have.
        """
        count, sums, squares = 0, np.zeros(part.channels + 1), np.zeros(part.channels + 1)
        for block in self._channels(part):
            values = np.column_stack([block, block.mean(axis=1)]).astype(np.float64)
            count, sums, squares = count + len(values), sums + values.sum(axis=0), squares + (values**2).sum(axis=0)
        part.seek(0)
        *each, mean = squares / count - (sums / count) ** 2
        return int(np.argmax(each)) if mean < 0.1 * sum(each) / len(each) ** 2 else None

    def _channels(self, part: Any) -> Iterator[np.ndarray]:
        """Yield all samples of a part, in blocks `[time, channels]`."""
        read = 0
        while read < part.frames:
            try:
                block = part.read(_BLOCK, dtype="float32", always_2d=True)
            except (RuntimeError, OSError, MemoryError) as error:  # soundfile's errors are RuntimeErrors
                raise BadAudioError(f"{self._path} is truncated or damaged: {_reason(error)}") from None
            if len(block) == 0:
                raise BadAudioError(f"{self._path} is truncated: it holds {read} of {part.frames} samples")
            if not np.isfinite(block).all():
                raise BadAudioError(f"{self._path} has samples that are NaN or infinite")
            read += len(block)
            yield block


@contextmanager
def _opened(path: Path, rate: int | None = None) -> Iterator[list[Any]]:
    """Yield a soundfile.SoundFile for each part of `path`, checked and resamplable to `rate` (Hz)."""
    import soundfile

    if not is_utf8(path):
        raise BadAudioError(f"{printable(path)} has a name that is not UTF-8: rename it")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb", buffering=2**16))
            try:
                sources: list[Any] = views(file) or [_name(path)]
                parts = [stack.enter_context(soundfile.SoundFile(source)) for source in sources]
            except soundfile.LibsndfileError:
                if not convert.is_foreign(path, file):
                    raise
                folder = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
                parts = [stack.enter_context(soundfile.SoundFile(_name(convert.to_wav(path, Path(folder)))))]
        except CutShortError:
            raise BadAudioError(f"{path} is truncated: it ends before the length that its format states") from None
        except convert.ConversionError as error:
            raise BadAudioError(f"{path} {error}") from None
        except (RuntimeError, OSError) as error:
            if path.is_dir():
                raise BadAudioError(f"{path} is a folder: name the files in it (FOLDER/*.wav)") from None
            if path.is_file() and path.stat().st_size == 0:
                raise BadAudioError(f"{path} is empty: it has 0 bytes") from None
            raise BadAudioError(f"{path} is not readable audio: {_reason(error)}") from None
        _check(path, parts, rate)
        yield parts


def _name(path: Path) -> Any:
    return os.fsencode(path) if os.name == "posix" else str(path)


def _check(path: Path, parts: Sequence[Any], rate: int | None) -> None:
    seconds = sum(part.frames / part.samplerate for part in parts)
    if seconds <= 0:
        raise BadAudioError(f"{path} is empty: it holds no samples")
    if seconds < _SECONDS[0]:
        raise BadAudioError(f"{path} is too short: {seconds:.3f} s, but speech needs at least {_SECONDS[0]} s")
    if seconds > _SECONDS[1]:
        raise BadAudioError(f"{path} is damaged: its header states {seconds / 3600:.0f} hours")
    for own in {part.samplerate for part in parts}:
        made = (rate or own) // gcd(own, rate or own)
        if own // gcd(own, rate or own) * made > _WEIGHTS:
            raise BadAudioError(f"{path} has an unusual sample rate, {own} Hz: convert it to {rate} Hz")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]  # the message itself repeats the path
    # soundfile's message repeats the path; its error_string doesn't. It is missing for a truncated flac file.
    return getattr(error, "error_string", str(error)).rstrip(".") or "its end can't be decoded"


def _resampled(blocks: Iterable[np.ndarray], original: int, rate: int) -> Iterator[np.ndarray]:
    """Yield what `_resample` returns for all blocks together; each piece gets more context than the filter spans."""
    period, made = original // gcd(original, rate), rate // gcd(original, rate)  # `period` samples become `made`
    around = (1 + ceil(_REACH / min(period, made))) * period
    held, done = np.zeros(0, dtype=np.float32), 0  # samples, of which the first `done` are only context
    for block in blocks:
        held = np.concatenate([held, block])
        ready = (len(held) - done - around) // period
        if ready > 0:
            end = done + ready * period
            yield _resample(held[: end + around], original, rate)[done // period * made : end // period * made]
            held, done = held[max(0, end - around) :], min(end, around)
    yield _resample(held, original, rate)[done // period * made :]


def _resample(audio: np.ndarray, original: int, rate: int) -> np.ndarray:
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(audio), original, rate).numpy()
