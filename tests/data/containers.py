"""Files as pipes, joins and cuts leave them, made of whole ones in memory."""

import io
import struct

import numpy as np
import soundfile

RATE = 16_000


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that swells, loud at first: from its first frames no decoder can guess the length of an mp3 file."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.3, round(seconds * RATE)) * np.linspace(1, 0.01, round(seconds * RATE)) ** 2
    return np.clip(samples, -1, 1).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, rate: int = RATE, **settings) -> bytes:
    """`samples` in a format of soundfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **settings)
    return file.getvalue()


def wav(samples: np.ndarray, size: int, whole: int | None = None) -> bytes:
    """A wav file whose header tells of `size` bytes of samples, and of `whole` after its own first eight."""
    content = bytearray(encoded(samples, "WAV"))
    content[40:44] = size.to_bytes(4, "little")
    content[4:8] = (min(size + 36, 2**32 - 1) if whole is None else whole).to_bytes(4, "little")
    return bytes(content)


def streamed_flac(samples: np.ndarray) -> bytes:
    """A flac file that does not tell its length."""
    content = bytearray(encoded(samples, "FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


def mp3(samples: np.ndarray) -> list[bytes]:
    """The frames of an mp3 file of variable bit rate at 16 kHz; the first holds no sound but the file's length."""
    content = encoded(samples, "MP3", bitrate_mode="VARIABLE", compression_level=0.8)
    kilobits = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG-2, layer III
    frames, at = [], 0
    while at < len(content):
        size = 72_000 * kilobits[content[at + 2] >> 4] // RATE + (content[at + 2] >> 1 & 1)
        frames.append(content[at : at + size])
        at += size
    return frames


def counting(header: bytes, frames: int) -> bytes:
    """The first frame of an mp3 file with another number of frames in it."""
    at = header.find(b"Xing") + 8
    return header[:at] + struct.pack(">I", frames) + header[at + 4 :]
