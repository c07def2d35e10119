"""Chunks against a model that sees only its own frames, where cutting must change nothing at all."""

import numpy as np
import pytest

from mpq.deploy.chunks import chunked_logits, chunks
from mpq.errors import UserError

STEP, REACH = 32, 90  # samples a frame, and how many of them a frame hears


def local_model(samples):
    """Frames `[frames, 2]` that depend on REACH samples from every STEP-th on, as convolutions do."""
    if len(samples) < REACH:
        return np.zeros((0, 2))
    windows = np.lib.stride_tricks.sliding_window_view(samples, REACH)[::STEP]
    return np.stack([windows.sum(1), (windows**2).sum(1)], axis=1)


def joined(samples, size, margin):
    """The frames of all chunks, the samples coming in blocks of random lengths."""
    cuts = np.sort(np.random.default_rng(len(samples)).integers(0, len(samples), 5))
    return np.concatenate(list(chunked_logits(local_model, np.split(samples, cuts), len(samples), size, margin, STEP)))


def test_short_audio_is_heard_whole():
    for samples in (1, STEP, 20 * STEP):
        (only,) = chunks(samples, 20 * STEP, 4 * STEP, STEP)
        assert (only.start, only.stop, only.first, only.last) == (0, samples, 0, None)


def test_frames_are_those_without_chunks_whatever_the_length(rng):
    """A margin as wide as the reach hides every seam of a local model."""
    for _ in range(300):
        samples = rng.standard_normal(int(rng.integers(REACH, 5_000)))
        margin = int(rng.integers(REACH, 150))
        size = int(rng.integers(2 * margin + 2 * STEP, 1_200))
        got = joined(samples, size, margin)
        np.testing.assert_allclose(got, local_model(samples), atol=1e-12)


def test_the_margin_is_what_keeps_the_seams_right(rng):
    """Without one, the frames at the end of a chunk are missing or wrong: the test above can fail."""
    samples = rng.standard_normal(5_000)
    got, whole = joined(samples, 640, 0), local_model(samples)
    assert got.shape != whole.shape


def test_no_more_is_read_than_the_chunk_at_hand_needs(rng):
    """So that a recording of hours takes the memory of a chunk."""
    samples, read, ahead = rng.standard_normal(20_000), 0, []

    def blocks():
        nonlocal read
        for block in np.split(samples, 200):
            read += len(block)
            yield block

    for number, _ in enumerate(chunked_logits(local_model, blocks(), len(samples), 20 * STEP, 4 * STEP, STEP)):
        ahead.append(read - (number * 12 + 20) * STEP)
    assert len(ahead) > 40 and max(ahead) < 100 and read == len(samples)


def test_every_chunk_is_within_size_and_the_last_is_not_a_rest(rng):
    for _ in range(200):
        samples, margin = int(rng.integers(1, 20_000)), int(rng.integers(0, 300))
        size = int(rng.integers(2 * margin + STEP, 2_000)) + STEP
        found = list(chunks(samples, size, margin, STEP))
        assert all(chunk.stop - chunk.start <= size and chunk.start % STEP == 0 for chunk in found)
        assert found[0].start == 0 and found[-1].stop == samples
        if len(found) > 1:
            assert found[-1].stop - found[-1].start > 2 * (margin // STEP) * STEP


@pytest.mark.parametrize(("size", "margin"), [(0, 0), (100, 50), (100, -1), (100, 60)])
def test_margins_must_leave_something(size, margin):
    with pytest.raises(UserError, match="must be longer than its two margins"):
        list(chunks(1_000, size, margin, 1))
