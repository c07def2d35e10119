"""The speakers of the embedded corpus and what happens to their voices on the way to the microphone.

A speaker is an accent of eSpeak NG, a variant (which sets the sex and timbre), a pitch and a speed. Speakers of the
training set (`HEARD`) and of the "other" sets (`UNHEARD`) have no variant in common, so "other" voices are new to the
model. The 40 training speakers are 36 different voices: speakers 131, 135, 139 and 143 equal 101, 105, 109 and 113.
"""

import numpy as np

from mpq.data.synthetic.espeak import Voice

_ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029", "en-us-nyc", "en-gb-x-gbcwmd")
_HEARD = (
    *("m1", "f1", "m2", "f2", "m3", "f3", "m6", "f5", "m8", "Annie", "Andy", "linda"),
    *("Alex", "belinda", "Denis", "steph", "Michael", "shelby", "Mike", "grandma", "adam", "quincy", "rob", "travis"),
)
_UNHEARD = ("m4", "f4", "m7", "m5", "grandpa", "max", "aunty", "victor", "sandro", "robert", "john", "Mario")


def _speakers(variants: tuple[str, ...], first: int, stride: int) -> tuple[Voice, ...]:
    """Return one speaker per variant; accents, pitch and speed offsets rotate with different strides."""
    return tuple(
        Voice(
            speaker=first + k,
            accent=_ACCENTS[(stride * k) % len(_ACCENTS)],
            variant=variant,
            pitch=40 + (7 * k) % 25,
            speed=150 + (11 * k) % 35,
        )
        for k, variant in enumerate(variants)
    )


HEARD = _speakers(_HEARD, first=101, stride=3) + _speakers(_HEARD[:16], first=131, stride=5)
UNHEARD = _speakers(_UNHEARD, first=201, stride=3)

# The speakers of the "clean" sets: the 12 of the 40 training speakers with the lowest error rates of two half-trained
# models, on separate sentences (experiments/LOG.md). LibriSpeech chose its clean speakers in the same way, by the error
# rate of a recogniser (Panayotov et al., ICASSP 2015, section 4).
_CLEAN = (101, 102, 104, 105, 106, 112, 115, 135, 136, 138, 143, 144)
CLEAN = tuple(voice for voice in HEARD if voice.speaker in _CLEAN)


def coloured_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise `[samples]` of unit power whose spectrum falls as 1/f^a, with `a` drawn from [0, 1.5]."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.arange(len(spectrum)), 1.0)
    noise = np.fft.irfft(spectrum * frequency ** (-rng.uniform(0.0, 1.5) / 2), n=samples)
    return noise / np.sqrt(np.mean(noise**2) + 1e-12)


def add_noise(audio: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """Return `audio` `[time]` plus coloured noise at a signal-to-noise ratio of `decibels`."""
    power = np.mean(audio**2)
    return audio + coloured_noise(len(audio), rng) * np.sqrt(power / 10 ** (decibels / 10))


def add_echo(audio: np.ndarray, reverberation: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return `audio` `[time]` as recorded in a room: a direct path and an exponentially decaying tail.

    `reverberation` is the time in seconds in which the tail falls by 60 dB; the tail has a quarter of the direct
    path's energy.
    """
    from scipy.signal import fftconvolve  # here, since its import takes seconds and settings don't need it

    time = np.arange(int(reverberation * rate)) / rate
    tail = rng.standard_normal(len(time)) * np.exp(-6.9 * time / reverberation)
    tail *= 0.5 / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return fftconvolve(audio, tail)[: len(audio)]
