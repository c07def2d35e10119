"""eSpeak NG through ctypes: text to speech without an operating-system package.

The PyPI wheel `espeakng-loader` ships the library and its voices. The library's output depends on earlier calls in the
same process, so a reproducible corpus synthesises each fixed shard in a fresh process. The breath of some voices is
noise, which the library seeds with the clock; here the seed is fixed.
"""

import ctypes
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from multiprocessing.util import Finalize
from typing import Any

import numpy as np

from mpq.errors import UserError

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback, and the call returns after the last
_DONT_EXIT = 0x8000  # without it the library ends the whole process if a file is missing
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_UTF8 = 1
_SEED = 1
_PATH_BYTES = 160  # of the library's buffer for the path of its data, with the final zero
_BUFFER_MILLISECONDS = 200
_WORDS_PER_MINUTE = (80, 450)


@dataclass(frozen=True)
class Voice:
    """A speaker of eSpeak NG: an accent, a voice variant, a pitch in [0, 100] and a speed in words per minute."""

    speaker: int
    accent: str
    variant: str
    pitch: int
    speed: int


@cache
def _library() -> tuple[Any, int]:
    """Return the initialised library and its sampling rate in Hz."""
    try:
        import espeakng_loader

        library: Any = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        data = _short(espeakng_loader.get_data_path()).encode()
    except (ImportError, OSError) as error:
        raise UserError(
            f"the embedded corpus is spoken by eSpeak NG, which can't be loaded ({error}): "
            "`pip install espeakng-loader`, or name recorded speech with data.root=FOLDER"
        ) from None
    rate = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MILLISECONDS, data, _DONT_EXIT)
    if rate <= 0:
        raise RuntimeError(f"eSpeak NG did not start (espeak_Initialize returned {rate})")
    library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
    return library, rate


def _short(data: str) -> str:
    """Return a path to the folder `data` that the library can take: its buffer has 160 bytes, and a longer path fails.

    The link to a folder deep in the file system lasts as long as this process, which reads voices later, too.
    """
    if len(os.fsencode(data)) < _PATH_BYTES:
        return data
    try:
        folder = tempfile.mkdtemp(prefix="mpq-")
        Finalize(None, shutil.rmtree, (folder, True), exitpriority=0)  # at the end of a worker process, too
        link = os.path.join(folder, os.path.basename(data))
        os.symlink(data, link)
        if len(os.fsencode(link)) < _PATH_BYTES:
            return link
    except OSError:  # links not allowed, for example
        pass
    raise UserError(
        f"eSpeak NG takes a path of at most {_PATH_BYTES - 1} bytes to its data, but {data} has "
        f"{len(os.fsencode(data))}: make the environment at a shorter path, or set TMPDIR to a short path for a link"
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, voice: Voice, speed: int | None = None, pitch: int | None = None) -> tuple[np.ndarray, int]:
    """Synthesise `text`.

    Returns: samples `[time]`, float32 in [-1, 1], and their rate in Hz. `speed` (words per minute) and `pitch` default
    to the voice's own.

    Raises: UserError if eSpeak NG is not installed, RuntimeError if it doesn't know the voice.
    """
    library, rate = _library()
    name = f"{voice.accent}+{voice.variant}"
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise RuntimeError(f"eSpeak NG has no voice {name}")
    library.espeak_SetParameter(_RATE, int(np.clip(speed or voice.speed, *_WORDS_PER_MINUTE)), 0)
    library.espeak_SetParameter(_PITCH, int(np.clip(voice.pitch if pitch is None else pitch, 0, 100)), 0)
    chunks: list[np.ndarray] = []

    def collect(samples: Any, count: int, _events: int | None) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    callback = _Callback(collect)
    library.espeak_SetSynthCallback(callback)
    encoded = text.lower().encode()
    library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    audio = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    return audio.astype(np.float32) / 32768.0, rate
