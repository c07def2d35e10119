"""Dividing one set of recordings into what is trained on and what is evaluated on."""

from collections.abc import Sequence

import numpy as np

from mpq.data.librispeech import Utterance
from mpq.errors import UserError

SHARE = 0.1  # of the utterances that is held out
SPEAKERS = 10  # from this many on whole speakers are held out
_SEED = 0  # whatever the run's: runs of different seeds are evaluated on the same utterances


def divide(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """What is kept and the tenth that is held out, each in the order given; the same for the same utterances.

    Whole speakers are held out where there are ten or more, so that the model has not heard them; of fewer, utterances.

    Raises: UserError where there are fewer than two utterances.
    """
    if len(utterances) < 2:
        raise UserError(f"{len(utterances)} utterance can't be divided into one to train and one to evaluate on")
    speakers = sorted({utterance.speaker for utterance in utterances})
    by_speaker = len(speakers) >= SPEAKERS
    names = speakers if by_speaker else [utterance.id for utterance in utterances]
    named = [utterance.speaker if by_speaker else utterance.id for utterance in utterances]
    held: set[str] = set()
    for index in np.random.default_rng(_SEED).permutation(len(names)):
        if sum(name in held for name in named) >= SHARE * len(utterances):
            break
        held.add(names[index])
    parts = list(zip(utterances, (name in held for name in named), strict=True))
    return [u for u, out in parts if not out], [u for u, out in parts if out]
