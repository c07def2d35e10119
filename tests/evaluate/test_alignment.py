"""The batched aligner against the textbook recursion, written plainly."""

import numpy as np
import pytest
from random_texts import random_references, recognise

from mpq.evaluate import alignment


def plainly(reference, hypothesis):
    """Return correct and insertions by one loop over the cells of one utterance."""
    rows, columns = len(reference), len(hypothesis)
    cost = {(i, 0): 3 * i for i in range(rows + 1)} | {(0, j): 3 * j for j in range(columns + 1)}
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            pair = cost[i - 1, j - 1] + 4 * (reference[i - 1] != hypothesis[j - 1])
            cost[i, j] = min(pair, cost[i - 1, j] + 3, cost[i, j - 1] + 3)
    correct, insertions = [False] * (rows + 1), [0] * (rows + 1)
    i, j = rows, columns
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + 4 * (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            correct[i] = reference[i] == hypothesis[j]
        elif j and cost[i, j] == cost[i, j - 1] + 3:
            j -= 1
            insertions[i] += 1
        else:
            i -= 1
    return correct, insertions


@pytest.mark.parametrize("vocabulary", [2, 4, 50])
@pytest.mark.parametrize("cells", [1, 2_000, 4_000_000])
def test_every_slot(vocabulary, cells, monkeypatch):
    monkeypatch.setattr(alignment, "_CELLS", cells)  # batches of one utterance, of some, of all
    rng = np.random.default_rng(vocabulary)
    texts = random_references(rng, 150, vocabulary, longest=12)
    references = [text.split() for text in texts.values()]
    hypotheses = [text.split() for text in recognise(rng, texts, vocabulary, 0.6).values()]
    ours = alignment.align(references, hypotheses)
    expected = [plainly(*pair) for pair in zip(references, hypotheses, strict=True)]
    assert ours.correct.tolist() == [flag for correct, _ in expected for flag in correct]
    assert ours.insertions.tolist() == [count for _, insertions in expected for count in insertions]
    assert np.flatnonzero(ours.last).tolist() == (np.cumsum([len(words) + 1 for words in references]) - 1).tolist()
