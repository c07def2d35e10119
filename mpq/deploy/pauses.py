"""Recordings of any length, for a model that writes the text of one window: cut at pauses into pieces without overlap.

Texts, unlike the frames of a CTC model (`chunks`), can't be joined in the middle of a word. A pause is the quietest
fifth of a second in the stretch where a piece may end. A sentence that is cut loses its context at the seam.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from mpq.deploy.chunks import check_margins, filled

_PAUSE = 0.2  # seconds


def pieces(blocks: Iterable[np.ndarray], samples: int, size: int, margin: int, rate: int) -> Iterator[np.ndarray]:
    """Yield consecutive pieces `[time]` of a recording, each of at most `size` samples.

    A piece ends in the last two margins of `size`; the last piece is no shorter than one `margin`, unless it is the
    only one. The `samples` samples arrive in `blocks` `[time]` of any lengths; at most one piece and one block are in
    memory.

    Raises: UserError if the two margins fill the piece.
    """
    check_margins(size, margin)
    rest = iter(blocks)
    held = np.zeros(0, dtype=np.float32)
    while samples > size:
        held = filled(held, rest, size)
        first = size - 2 * margin
        end = first + _quietest(held[first : min(size, samples - margin)], round(_PAUSE * rate))
        yield held[:end]
        held, samples = held[end:], samples - end
    yield filled(held, rest, samples)[:samples]


def _quietest(stretch: np.ndarray, width: int) -> int:
    """Return the middle of the `width` samples with the least power; the end of a stretch shorter than that."""
    if len(stretch) <= width:
        return len(stretch)
    power = np.concatenate([[0.0], np.cumsum(np.square(stretch, dtype=np.float64))])
    return int(np.argmin(power[width:] - power[:-width])) + width // 2
