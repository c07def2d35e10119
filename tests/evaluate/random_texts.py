"""Random references and the hypotheses of made-up recognisers, as dicts of utterance id to text."""

import numpy as np

Texts = dict[str, str]


def random_references(rng: np.random.Generator, utterances: int, vocabulary: int, longest: int = 20) -> Texts:
    """Draw utterances of three speakers; some are empty. A small vocabulary makes for many equally good alignments."""
    return {
        f"s{k % 3}_{k:04d}": _text(rng.integers(vocabulary, size=rng.integers(longest + 1))) for k in range(utterances)
    }


def recognise(rng: np.random.Generator, references: Texts, vocabulary: int, rate: float) -> Texts:
    """Substitute, delete and insert words, each at a third of `rate`; now and then recognise nothing at all."""
    hypotheses = {}
    for name, text in references.items():
        words = []
        for word in text.split():
            insert, lose, change = rng.random(3) < rate / 3
            words += [_word(rng.integers(vocabulary))] * int(insert)
            words += [] if lose else [_word(rng.integers(vocabulary)) if change else word]
        words += [_word(k) for k in rng.integers(vocabulary, size=3 if rng.random() < rate / 3 else 0)]
        hypotheses[name] = " ".join(words) if rng.random() > rate / 10 else ""
    return hypotheses


def _text(numbers: np.ndarray) -> str:
    return " ".join(map(_word, numbers))


def _word(number: int) -> str:
    return f"w{number}"
