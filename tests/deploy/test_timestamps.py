"""The rules for times, and the segments, against transformers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from mpq.deploy.timestamps import allow, spans
from mpq.models.bytes_processor import bytes_processor

END, FIRST, VOCABULARY = 256, 262, 262 + 1_501


def random_text(rng, length):
    """Tokens as the rules make them: text between pairs of times that do not decrease."""
    tokens, time = [], FIRST + int(rng.integers(0, 40))
    while len(tokens) < length:
        tokens += [time, *rng.integers(0, 256, rng.integers(1, 4)).tolist()]
        time += int(rng.integers(0, 60))
        tokens.append(time)
        time += int(rng.integers(0, 2) * rng.integers(0, 60))
    return tokens[:length]


@pytest.mark.parametrize("latest", [None, 30])
def test_what_may_follow_is_transformers(latest, rng):
    settings = SimpleNamespace(
        no_timestamps_token_id=FIRST - 1, eos_token_id=END, bos_token_id=END, max_initial_timestamp_index=latest
    )
    theirs = WhisperTimeStampLogitsProcessor(settings, begin_index=1)
    for length in [0, 1, 2, 3, *rng.integers(0, 24, 60)]:
        tokens = random_text(rng, length)
        scores = rng.normal(0, 3, VOCABULARY).astype(np.float32)
        scores[FIRST:] -= rng.choice([0, 4, 8, 12])
        wanted = theirs(torch.tensor([[257, *tokens]]), torch.from_numpy(scores[None].copy()))[0].numpy()
        allow(scores, tokens, FIRST, END, latest)
        np.testing.assert_array_equal(scores, wanted)


def test_segments_are_the_tokenizers(rng):
    tokenizer = bytes_processor().tokenizer
    for _ in range(50):
        tokens = random_text(rng, rng.integers(1, 30))
        found = spans(tokens, FIRST, 30.0)
        wanted = tokenizer.decode([t if t >= FIRST else t % 64 for t in tokens], output_offsets=True)["offsets"]
        closed = found if tokens[-1] >= FIRST else found[:-1]
        assert [(start, end) for _, start, end in closed] == [pytest.approx(one["timestamp"]) for one in wanted]
        assert [t for text, _, _ in found for t in text] == [t for t in tokens if t < FIRST]
        assert tokens[-1] >= FIRST or found[-1][2] == 30.0


def test_no_time_lies_behind_the_recording():
    assert spans([FIRST, 1, FIRST + 200, FIRST + 210, 2], FIRST, 3.5) == [([1], 0.0, 3.5), ([2], 3.5, 3.5)]
    assert spans([], FIRST, 3.5) == []
