"""Reading one audio file, and saying what is wrong with it.

soundfile reads wav, flac, ogg (Vorbis and Opus) and mp3 without a system package. It reads truncated wav and ogg files
without complaint, although a wav file states the length of its samples and an Ogg stream marks its last page; so both
are checked here. A truncated flac file fails to decode; a truncated mp3 file can't be told from a complete one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")
_SILENCE = 1e-4  # full scale is 1: below this no sample differs from zero by more than three 16-bit steps
_BLOCK = 2**20  # samples read at once: a minute at 16 kHz
_REACH = 7  # samples of the lower of two rates that torchaudio's filter hears to either side
_WEIGHTS = 2**29  # of a resampling filter, beyond which its memory (4 bytes each) is no laptop's
_SECONDS = (0.1, 24 * 3600.0)  # shorter holds no word and no frame of some models; longer is a damaged header


class BadAudioError(Exception):
    """One audio file that can't be used; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Recording:
    """Audio of `samples` samples, one channel, float32, to be taken in `blocks` `[time]` that follow each other.

    Taking the last block tells whether the whole was any good, with a BadAudioError if not.
    """

    samples: int
    blocks: Iterable[np.ndarray]


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
    with _opened(path, rate) as file:
        audio, original = np.concatenate(list(_blocks(path, file))), file.samplerate
    return audio if original == rate else _resample(audio, original, rate)


@contextmanager
def stream(path: Path, rate: int) -> Iterator[Recording]:
    """What `load` gives, piece by piece: an hour takes no more memory than a minute.

    Raises: BadAudioError as `load` does, some of it only when the last block is taken.
    """
    with _opened(path, rate) as file:
        blocks = _blocks(path, file)
        if file.samplerate != rate:
            blocks = _resampled(blocks, file.samplerate, rate)
        yield Recording(-(-file.frames * rate // file.samplerate), blocks)


def _blocks(path: Path, file: Any) -> Iterator[np.ndarray]:
    """The mean of all channels `[time]` from the beginning to the end, at the file's own rate."""
    read, peak = 0, 0.0
    while read < file.frames:
        try:
            block = file.read(_BLOCK, dtype="float32", always_2d=True).mean(axis=1)
        except (RuntimeError, OSError, MemoryError) as error:  # soundfile's errors are RuntimeErrors
            raise BadAudioError(f"{path} is truncated or damaged: {_reason(error)}") from None
        if len(block) == 0:
            raise BadAudioError(
                f"{path} is truncated: it holds {read} of the {file.frames} samples its header tells of"
            )
        if not np.isfinite(block).all():
            raise BadAudioError(f"{path} has samples that are no numbers")
        read, peak = read + len(block), max(peak, float(np.abs(block).max()))
        if read >= file.frames and peak < _SILENCE:
            raise BadAudioError(f"{path} is silent")
        yield block


@contextmanager
def _opened(path: Path, rate: int | None = None) -> Iterator[Any]:
    """The soundfile.SoundFile of `path`, once its header makes sense, and `rate` (Hz) can be made of its own."""
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
        period = file.samplerate // gcd(file.samplerate, rate or file.samplerate)
        if rate and period * (rate // gcd(file.samplerate, rate)) > _WEIGHTS:
            raise BadAudioError(f"{path} has an odd sample rate, {file.samplerate} Hz: convert it to {rate} Hz")
        yield file


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]  # the message itself repeats the path
    # soundfile's message repeats the path; its error_string doesn't. The decoder of a cut flac file has none.
    return getattr(error, "error_string", str(error)).rstrip(".") or "its end can't be decoded"


def _resampled(blocks: Iterable[np.ndarray], original: int, rate: int) -> Iterator[np.ndarray]:
    """What `_resample` makes of all blocks together, each piece heard with more around it than the filter reaches."""
    period, made = original // gcd(original, rate), rate // gcd(original, rate)  # `period` samples become `made`
    around = (1 + ceil(_REACH / min(period, made))) * period
    held, done = np.zeros(0, dtype=np.float32), 0  # samples, of which the first `done` only stand before the others
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


_LARGEST_PAGE = 27 + 255 + 255 * 255  # bytes of an Ogg page: RFC 3533, section 6
_LAST_PAGE = 4  # its flag, in the header's byte 5
_UNKNOWN = 0xFFFFFFFF  # what a program writes that streams a wav file


def cut_short(path: Path) -> bool:
    """Whether a wav or Ogg file ends before its own format says that it does; False for any other file."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"RIFF":
            return _wav_cut_short(file)
        return magic == b"OggS" and _ogg_cut_short(file)


def _wav_cut_short(file: BinaryIO) -> bool:
    end = file.seek(0, 2)
    file.seek(12)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            return length != _UNKNOWN and file.tell() + length > end
        file.seek(length + length % 2, 1)  # a chunk's length is padded to an even number
    return False  # no samples at all: the reader says so


def _ogg_cut_short(file: BinaryIO) -> bool:
    end = file.seek(0, 2)
    file.seek(max(0, end - _LARGEST_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & _LAST_PAGE:
        return True
    segments = page[26]
    return len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments])
