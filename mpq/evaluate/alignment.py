"""The word alignment of NIST's sclite, including ties, for many utterances at once.

Any least-cost alignment gives a fair error count, but the segments of MAPSSWE depend on sclite's costs and on which of
several equally cheap alignments is chosen, and jiwer lets you control neither. So this is sclite's own dynamic
programme (SCTK, net_dp.c); numpy computes each row for a whole batch of utterances of similar length, so that 100,000
utterances take seconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SUBSTITUTION, INSERTION, DELETION = 4, 3, 3  # sclite's costs
_MATCH, _INSERT, _DELETE, _START = range(4)  # where the best path into a cell comes from; _MATCH may be a substitution
_CELLS = 4_000_000  # of one batch: bounds the memory


@dataclass(frozen=True)
class Alignment:
    """The outcome for every reference word, with all utterances concatenated.

    An utterance of R reference words has R + 1 slots: a slot is a reference word together with the words inserted just
    before it, and the last slot holds the insertions after the last word.

    correct: bool `[slots]`, the word is recognised; False at the last slot of an utterance.
    insertions: int `[slots]`, inserted words.
    last: bool `[slots]`, the slot is the last of its utterance.
    """

    correct: np.ndarray
    insertions: np.ndarray
    last: np.ndarray


def align(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> Alignment:
    """Align hypotheses with references, each a list of words, as `sclite -s` does.

    Source: sclite, dynamic programme with costs 4 (substitution), 3 (insertion), 3 (deletion); at equal cost a match or
    substitution is preferred to an insertion, and an insertion to a deletion. Its markup (alternatives, fragments,
    optional words) is not supported. The number of errors may exceed the minimum, as the costs are not all equal.
    """
    vocabulary: dict[str, int] = {}
    ref_lengths = np.array([len(words) for words in references], dtype=np.int64)
    hyp_lengths = np.array([len(words) for words in hypotheses], dtype=np.int64)
    ends = np.cumsum(ref_lengths + 1)
    correct, insertions = np.zeros(ends[-1], dtype=bool), np.zeros(ends[-1], dtype=np.int64)
    last = np.zeros(ends[-1], dtype=bool)
    last[ends - 1] = True
    for batch in _batches(ref_lengths, hyp_lengths):
        ref = _padded([references[int(k)] for k in batch], vocabulary)
        hyp = _padded([hypotheses[int(k)] for k in batch], vocabulary)
        right, inserted = _trace(_backpointers(ref, hyp), ref, hyp, ref_lengths[batch], hyp_lengths[batch])
        steps = np.arange(ref.shape[1] + 1)
        real = steps <= ref_lengths[batch, None]
        slots = (ends[batch, None] - 1 - ref_lengths[batch, None] + steps)[real]
        correct[slots], insertions[slots] = right[real], inserted[real]
    return Alignment(correct, insertions, last)


def _batches(ref_lengths: np.ndarray, hyp_lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield indices of utterances of similar length, at most `_CELLS` cells together (but at least one utterance)."""
    order = np.lexsort((hyp_lengths, ref_lengths))
    start, widest = 0, 0
    for stop, k in enumerate(order):
        widest = max(widest, int(hyp_lengths[k]) + 1)
        if stop > start and (stop + 1 - start) * widest * (int(ref_lengths[k]) + 1) > _CELLS:
            yield order[start:stop]
            start, widest = stop, int(hyp_lengths[k]) + 1
    yield order[start:]


def _padded(utterances: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> np.ndarray:
    """Number the words, `[utterances, longest]`; no path visits the padding."""
    numbers = np.full((len(utterances), max(map(len, utterances))), -1, dtype=np.int32)
    for row, words in zip(numbers, utterances, strict=True):
        row[: len(words)] = [vocabulary.setdefault(word, len(vocabulary)) for word in words]
    return numbers


def _backpointers(ref: np.ndarray, hyp: np.ndarray) -> np.ndarray:
    """Fill the tables of a batch, `[utterances, R + 1, H + 1]`, row by row."""
    (count, rows), columns = ref.shape, hyp.shape[1]
    chain = INSERTION * np.arange(columns + 1, dtype=np.int32)
    cost = np.broadcast_to(chain, (count, columns + 1))
    back = np.full((count, rows + 1, columns + 1), _INSERT, dtype=np.int8)
    back[:, 0, 0] = _START
    back[:, 1:, 0] = _DELETE
    for i in range(rows):
        match = cost[:, :-1] + SUBSTITUTION * (ref[:, i, None] != hyp)
        delete = cost + DELETION
        entry = delete.copy()
        entry[:, 1:] = np.minimum(match, delete[:, 1:])
        # A cell may also be reached by a chain of insertions from any cell to its left: a running minimum, no loop.
        cost = np.minimum.accumulate(entry - chain, axis=1) + chain
        insert = cost[:, :-1] + INSERTION
        into = back[:, i + 1, 1:]
        into[delete[:, 1:] < insert] = _DELETE
        into[match <= np.minimum(delete[:, 1:], insert)] = _MATCH
    return back


def _trace(
    back: np.ndarray, ref: np.ndarray, hyp: np.ndarray, ref_lengths: np.ndarray, hyp_lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Walk all the best paths of a batch backwards together; returns correct and insertions, `[utterances, R + 1]`."""
    row, i, j = np.arange(len(back)), ref_lengths.copy(), hyp_lengths.copy()
    correct = np.zeros(back.shape[:2], dtype=bool)
    insertions = np.zeros(back.shape[:2], dtype=np.int64)
    while (move := back[row, i, j]).min() != _START or move.max() != _START:
        insertions[row, i] += move == _INSERT
        j -= (move == _MATCH) | (move == _INSERT)
        i -= (move == _MATCH) | (move == _DELETE)
        pair = move == _MATCH
        correct[row[pair], i[pair]] = ref[row[pair], i[pair]] == hyp[row[pair], j[pair]]
    return correct, insertions
