"""Noise that rises and falls like speech: what a model hears where there are no recordings to measure with."""

import numpy as np

from mpq.data.dataset import Batch, collate
from mpq.models.reader import Reader

_SYLLABLES = 4.0  # a second
_SLOPE = 0.5  # the amplitude falls with the frequency to this power, above 50 Hz
_TEXT = "the quick brown fox jumps over the lazy dog and then she had your dark suit in greasy wash water all year"


def noise_batch(reader: Reader, seed: int, recordings: int = 4, seconds: float = 5.0) -> Batch:
    """Return a batch of made-up recordings of this length for a model's `reader`.

    The labels, which a sequence-to-sequence model sees as the text before each token, are those of two sentences.
    """
    rng = np.random.default_rng(seed)
    count = round(seconds * reader.sampling_rate)
    items = []
    for number in range(recordings):
        inputs, length = reader.inputs(_speech_like(count, reader.sampling_rate, rng))
        labels = reader.labels(_TEXT)
        items.append({"id": f"noise{number}", "inputs": inputs, "length": length, "labels": labels, "seconds": seconds})
    return collate(items)


def _speech_like(count: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / rate).clip(min=50.0)
    noise = np.fft.irfft(spectrum * frequency**-_SLOPE, n=count)
    phase = 2 * np.pi * (_SYLLABLES * np.arange(count) / rate + rng.uniform())
    samples = noise * (1 + np.sin(phase))
    return (0.1 * samples / samples.std()).astype(np.float32)
