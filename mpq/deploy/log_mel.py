"""Whisper's log-mel features in numpy (Radford et al. 2022, section 2.2), as transformers computes them.

A window of 25 ms every 10 ms, power in mel bands of equal area (the scale of Slaney's Auditory Toolbox: linear below
1 kHz, logarithmic above), the decimal logarithm cut 8 below its largest value, and scaled to about -1 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_FLOOR = 1e-10  # of the power
_RANGE = 8.0  # decades below the largest value
_HIGHEST = 8_000.0  # Hz
_BREAK, _PER_MEL, _STEP = 1_000.0, 200 / 3, np.log(6.4) / 27  # Hz; Hz a mel below; logarithm of the ratio above


@dataclass(frozen=True)
class LogMel:
    """rate: in Hz. bins: mel bands. window, hop: in samples. seconds: of audio that the model takes at once."""

    rate: int
    bins: int
    window: int
    hop: int
    seconds: int

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features `[bins, frames]` of `samples` `[time]`, padded with zeros or cut to `seconds`."""
        length, half = self.seconds * self.rate, self.window // 2
        audio = np.zeros(length, dtype=np.float32)
        audio[: len(samples)] = samples[:length]
        padded = np.pad(audio, half, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop][: length // self.hop]
        heard = frames[: -(-(len(samples) + half) // self.hop)]  # the others are silent
        spectrum = np.fft.rfft(heard * np.hanning(self.window + 1)[:-1].astype(np.float32), axis=1)
        power = np.full((self.bins, len(frames)), _FLOOR, dtype=np.float32)
        power[:, : len(heard)] = (self.bands @ np.square(np.abs(spectrum)).T).clip(_FLOOR)
        decades = np.log10(power)
        return ((np.maximum(decades, decades.max() - _RANGE) + 4.0) / 4.0).astype(np.float32)

    @cached_property
    def bands(self) -> NDArray[np.float32]:
        """The weight of each frequency in each band `[bins, window / 2 + 1]`: triangles of area 1."""
        edges = _hertz(np.linspace(0.0, _mel(_HIGHEST), self.bins + 2))
        frequencies = np.linspace(0.0, self.rate / 2, self.window // 2 + 1)
        slopes = (frequencies - edges[:, None]) / np.diff(edges, append=np.inf)[:, None]
        rising, falling = slopes[:-2], 1.0 - slopes[1:-1]
        area = 2.0 / (edges[2:] - edges[:-2])
        return (np.maximum(0.0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Inputs:
    """What a Whisper's encoder hears: a batch, and `silence` seconds after its longest recording, up to 30 s in all."""

    mel: LogMel
    silence: float

    def frames(self, samples: int) -> int:
        """Return the number of feature frames for a longest recording of `samples`; two make one position."""
        beyond = round(min(self.silence, self.mel.seconds) * self.mel.rate / self.mel.hop)
        frames = max(-(-samples // self.mel.hop) + beyond, 1)
        return min(frames + frames % 2, self.mel.seconds * self.mel.rate // self.mel.hop)

    def __call__(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the features `[batch, bins, frames]` of waveforms `[time]`, at least one."""
        return np.stack([self.mel(one) for one in waveforms])[:, :, : self.frames(max(map(len, waveforms)))]


def _mel(hertz: float) -> float:
    above = _BREAK / _PER_MEL + np.log(max(hertz, _BREAK) / _BREAK) / _STEP
    return hertz / _PER_MEL if hertz < _BREAK else float(above)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    lowest = _BREAK / _PER_MEL
    return np.where(mel < lowest, mel * _PER_MEL, _BREAK * np.exp(_STEP * (mel - lowest)))
