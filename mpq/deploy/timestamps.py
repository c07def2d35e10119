"""Times of segments, which a Whisper writes as tokens between the text, one for every 0.02 s of the recording.

The rules for choosing tokens are those of the paper's decoding (Radford et al. 2022, section 4.5), as transformers
applies them (`WhisperTimeStampLogitsProcessor`): times come in pairs (end of a segment, start of the next) and never
decrease, the text begins with one, and one is chosen wherever all times together are likelier than any other token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SECONDS = 0.02  # between two tokens


@dataclass(frozen=True)
class Segment:
    """A piece of the text and its time, in seconds from the beginning of the recording."""

    text: str
    start: float
    end: float


def allow(scores: NDArray[np.float32], tokens: Sequence[int], first: int, end: int, latest: int | None) -> None:
    """Set the `scores` `[vocabulary]` of the tokens that may not follow `tokens`, the text so far, to minus infinity.

    `first`: the token of time 0. `end`: the token that ends the text. `latest`: the last time, in tokens after `first`,
    at which the text may begin.
    """
    scores[first - 1] = -np.inf  # <|notimestamps|>
    times = [token for token in tokens if token >= first]
    after_time = bool(tokens) and tokens[-1] >= first
    after_pair = len(tokens) < 2 or tokens[-2] >= first
    if after_time and after_pair:
        scores[first:] = -np.inf
    elif after_time:
        scores[:end] = -np.inf
    if times:
        repeats = after_time and not after_pair  # the next segment may start where this one ended
        scores[first : times[-1] + (not repeats)] = -np.inf
    if not tokens:
        scores[:first] = -np.inf
        if latest is not None:
            scores[first + latest + 1 :] = -np.inf
    if _log_sum(scores[first:]) > scores[:first].max():
        scores[:first] = -np.inf


def _log_sum(scores: NDArray[np.float32]) -> float:
    top = scores.max()
    return float(top + np.log(np.exp(scores - top).sum())) if np.isfinite(top) else -np.inf


def spans(tokens: Sequence[int], first: int, seconds: float) -> list[tuple[list[int], float, float]]:
    """Return the text tokens of each segment, its start and its end; a segment that no time ends lasts to `seconds`."""
    found: list[tuple[list[int], float, float]] = []
    start, text = 0.0, []
    for token in tokens:
        if token < first:
            text.append(token)
            continue
        time = round(min((token - first) * SECONDS, seconds), 2)
        if text:
            found.append((text, start, time))
        start, text = time, []
    return [*found, (text, start, round(seconds, 2))] if text else found
