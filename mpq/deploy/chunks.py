"""Recordings of any length: a model hears overlapping chunks, and the middles of their frames are put together.

As transformers' CTC pipeline does (`chunk_length_s`, `stride_length_s`): chunks begin at whole frames, each gives up
the frames of its margins, where it lacks context, and what is left tiles the recording. There are as many frames as
without chunks, and each stands for the same samples. What a model computes over all that it hears (attention, group
norm, the normalisation of the input) it computes over a chunk.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mpq.errors import UserError

SECONDS = 30.0  # of a chunk: about the longest utterance that these models were trained on
MARGIN = 5.0  # seconds of a chunk given up at each inner end


@dataclass(frozen=True)
class Chunk:
    """Samples `start` to `stop` of a recording, of whose frames `first` to `last` (None: all that follow) are kept."""

    start: int
    stop: int
    first: int
    last: int | None


def chunks(samples: int, size: int, margin: int, step: int) -> Iterator[Chunk]:
    """The chunks of a recording of `samples` samples; one, with all its frames, where it is no longer than `size`.

    `size` and `margin` are in samples and rounded down to whole frames of `step` samples. The last chunk is longer than
    two margins.

    Raises: UserError where the margins leave nothing of a chunk.
    """
    size, margin = size // step, margin // step  # in frames, from here on
    if margin < 0 or size - 2 * margin < 1:
        raise UserError("a chunk must be longer than its two margins (chunk_seconds=, margin_seconds=)")
    start = 0
    while True:
        stop, first = (start + size) * step, margin if start else 0
        if stop >= samples:
            yield Chunk(start * step, samples, first, None)
            return
        yield Chunk(start * step, stop, first, size - margin)
        start += size - 2 * margin


def chunked_logits(
    logits: Callable[[np.ndarray], np.ndarray],
    blocks: Iterable[np.ndarray],
    samples: int,
    size: int,
    margin: int,
    step: int,
) -> Iterator[np.ndarray]:
    """Yield the frames `[frames, vocabulary]` of a recording, which `logits` hears chunk by chunk.

    Its `samples` samples come in `blocks` `[time]` of any lengths; no more of them is held than a chunk and a block.
    """
    rest = iter(blocks)
    held, begin = np.zeros(0, dtype=np.float32), 0  # the samples from `begin` on
    for chunk in chunks(samples, size, margin, step):
        held, begin = held[chunk.start - begin :], chunk.start
        while len(held) < chunk.stop - chunk.start:
            held = np.concatenate([held, next(rest)])
        yield logits(held[: chunk.stop - chunk.start])[chunk.first : chunk.last]
