"""Reading one audio file, and saying what is wrong with it.

soundfile reads wav, flac, ogg (Vorbis and Opus) and mp3 with no system package.
"""

from pathlib import Path

import numpy as np

SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")
_SILENCE = 1e-4  # full scale is 1: below this no sample differs from zero by more than three 16-bit steps


class BadAudioError(Exception):
    """One audio file that can't be used; the message names the file and what is wrong."""


def header(path: Path) -> tuple[float, int]:
    """Duration in seconds and sampling rate in Hz as the file's header tells them.

    Raises: BadAudioError where the file is no audio or holds no samples.
    """
    import soundfile

    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise BadAudioError(f"{path} is not readable audio: {error}") from None
    if info.frames <= 0:
        raise BadAudioError(f"{path} is empty: its header tells of no samples")
    return info.frames / info.samplerate, info.samplerate


def load(path: Path, rate: int) -> np.ndarray:
    """The samples of `path` as one channel `[time]`, float32, resampled to `rate` Hz.

    Raises: BadAudioError where the file is no audio, empty, truncated, silent or has samples that are no numbers.
    """
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            frames, original = file.frames, file.samplerate
            audio = file.read(dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise BadAudioError(f"{path} is not readable audio: {error}") from None
    if frames <= 0 or len(audio) == 0:
        raise BadAudioError(f"{path} is empty: it holds no samples")
    if len(audio) < frames:
        raise BadAudioError(f"{path} is truncated: it holds {len(audio)} of the {frames} samples its header tells of")
    if not np.isfinite(audio).all():
        raise BadAudioError(f"{path} has samples that are no numbers")
    if np.abs(audio).max() < _SILENCE:
        raise BadAudioError(f"{path} is silent")
    return audio if original == rate else _resample(audio, original, rate)


def _resample(audio: np.ndarray, original: int, rate: int) -> np.ndarray:
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(audio), original, rate).numpy()
