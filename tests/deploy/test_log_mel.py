"""Whisper's features in numpy against transformers' feature extractor."""

import numpy as np
import pytest
import transformers

from mpq.deploy.log_mel import LogMel

RATE = 16_000


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("samples", [90, 7_777, 30 * RATE - 1, 30 * RATE, 30 * RATE + 500])
def test_features_are_transformers(bins, samples, rng):
    extractor = transformers.WhisperFeatureExtractor(feature_size=bins)
    audio = (0.2 * rng.standard_normal(samples) * rng.choice([0, 1], samples)).astype(np.float32)
    audio[samples // 2 : samples // 2 + 2_000] = 0
    wanted = extractor(audio, sampling_rate=RATE).input_features[0]
    found = LogMel(RATE, bins, window=400, hop=160, seconds=30)(audio)
    assert found.dtype == np.float32 and found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_other_sizes_are_transformers_too(rng):
    extractor = transformers.WhisperFeatureExtractor(40, sampling_rate=RATE, hop_length=80, chunk_length=5, n_fft=512)
    audio = rng.standard_normal(33_333).astype(np.float32)
    found = LogMel(RATE, 40, window=512, hop=80, seconds=5)(audio)
    np.testing.assert_allclose(found, extractor(audio, sampling_rate=RATE).input_features[0], atol=1e-4)
