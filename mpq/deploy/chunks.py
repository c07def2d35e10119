"""Recordings of any length: a model runs on overlapping chunks, and the middle frames of the chunks are joined.

As in transformers' CTC pipeline (`chunk_length_s`, `stride_length_s`), chunks begin at whole frames, the frames of each
chunk's margins are dropped because they lack context, and the remaining frames tile the recording. The number of frames
and the samples that each covers are the same as without chunks. Operations over the whole input (attention, group norm,
input normalisation) run over one chunk instead.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mpq.errors import UserError

SECONDS = 30.0  # of a chunk: about the longest utterance that these models were trained on
MARGIN = 5.0  # seconds dropped at each end of a chunk that lies inside the recording


@dataclass(frozen=True)
class Chunk:
    """Samples `start` to `stop` of a recording; of their frames, `first` to `last` (None: to the end) are kept."""

    start: int
    stop: int
    first: int
    last: int | None


def chunks(samples: int, size: int, margin: int, step: int) -> Iterator[Chunk]:
    """The chunks of a recording of `samples` samples; a single chunk with all frames if it is no longer than `size`.

    `size` and `margin` are in samples and rounded down to whole frames of `step` samples. The last chunk is longer than
    two margins.

    Raises: UserError if the two margins fill the chunk.
    """
    size, margin = size // step, margin // step  # in frames, from here on
    check_margins(size, margin)
    start = 0
    while True:
        stop, first = (start + size) * step, margin if start else 0
        if stop >= samples:
            yield Chunk(start * step, samples, first, None)
            return
        yield Chunk(start * step, stop, first, size - margin)
        start += size - 2 * margin


def check_margins(size: int, margin: int) -> None:
    """Raise UserError if the two margins fill the chunk."""
    if margin < 0 or size - 2 * margin < 1:
        raise UserError("a chunk must be longer than its two margins (chunk_seconds=, margin_seconds=)")


def filled(held: np.ndarray, rest: Iterator[np.ndarray], samples: int) -> np.ndarray:
    """Return `held`, followed by as many blocks of the `rest` of a recording as make it `samples` long or longer."""
    while len(held) < samples:
        held = np.concatenate([held, next(rest)])
    return held


def chunked_logits(
    logits: Callable[[np.ndarray], np.ndarray],
    blocks: Iterable[np.ndarray],
    samples: int,
    size: int,
    margin: int,
    step: int,
) -> Iterator[np.ndarray]:
    """Yield the frames `[frames, vocabulary]` of a recording, computed by `logits` chunk by chunk.

    Its `samples` samples arrive in `blocks` `[time]` of any lengths; at most one chunk and one block are in memory.
    """
    rest = iter(blocks)
    held, begin = np.zeros(0, dtype=np.float32), 0  # the samples from `begin` on
    for chunk in chunks(samples, size, margin, step):
        held, begin = held[chunk.start - begin :], chunk.start
        held = filled(held, rest, chunk.stop - chunk.start)
        yield logits(held[: chunk.stop - chunk.start])[chunk.first : chunk.last]
