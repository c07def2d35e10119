"""Error counts against a plain edit distance, and what a corpus does to them."""

import jiwer
import numpy as np
import pytest
from random_texts import random_references, recognise

from mpq.errors import UserError
from mpq.evaluate.wer import (
    character_errors,
    character_errors_per_utterance,
    total_words,
    word_errors,
    word_errors_and_kinds,
    word_errors_per_utterance,
)
from mpq.record.result import CharacterErrors, WordErrors


def edit_distance(one, other):
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]


@pytest.fixture(params=[3, 200])
def texts(request):
    rng = np.random.default_rng(request.param)
    references = random_references(rng, 100, request.param)
    return references, recognise(rng, references, request.param, 0.4)


def test_counts_of_every_utterance(texts):
    references, hypotheses = texts
    shuffled = dict(sorted(hypotheses.items(), reverse=True))  # ids decide, not the order
    errors, words = word_errors_per_utterance(references, shuffled)
    assert errors.tolist() == [edit_distance(text.split(), hypotheses[k].split()) for k, text in references.items()]
    assert words.tolist() == [len(text.split()) for text in references.values()]
    total = word_errors(references, shuffled)
    assert total == WordErrors(total.wer, int(errors.sum()), int(words.sum()), 100)
    assert total.wer == pytest.approx(100 * errors.sum() / words.sum())


def test_characters(texts):
    references, hypotheses = texts
    errors, characters = character_errors_per_utterance(references, hypotheses)
    assert errors.tolist() == [edit_distance(text, hypotheses[name]) for name, text in references.items()]
    assert characters.tolist() == [len(text) for text in references.values()]
    total = character_errors(references, hypotheses)
    assert total == CharacterErrors(total.cer, int(errors.sum()), int(characters.sum()))
    written = [hypotheses[name] for name in references]
    assert total.cer == pytest.approx(100 * jiwer.cer(list(references.values()), written))


def test_the_record_carries_the_rate():
    assert total_words(np.array([1, 0]), np.array([5, 3])) == WordErrors(wer=12.5, errors=1, words=8, utterances=2)


def test_empty_references_and_hypotheses():
    references = {"silence": "", "noise": "", "speech": "a b c", "whisper": "d"}
    errors, words = word_errors_per_utterance(references, {"silence": "", "noise": "x y", "speech": "", "whisper": "d"})
    assert (errors.tolist(), words.tolist()) == ([0, 2, 3, 0], [0, 0, 3, 1])


def test_white_space_does_not_count_but_case_does():
    assert word_errors({"u": " a\tb  c\n"}, {"u": "a b c"}).errors == 0
    assert word_errors({"u": "a b c"}, {"u": "A b c"}).errors == 1


def test_a_blank_inside_is_a_character_and_one_around_is_none():
    assert character_errors({"u": "a b"}, {"u": " ab "}) == CharacterErrors(100 / 3, 1, 3)
    assert character_errors({"u": " a b"}, {"u": "a  b"}) == CharacterErrors(100 / 3, 1, 3)
    errors, characters = character_errors_per_utterance({"u": "", "v": "ab"}, {"u": "x y", "v": ""})
    assert (errors.tolist(), characters.tolist()) == ([3, 2], [0, 2])


def test_lost_and_unknown_utterances_are_refused():
    with pytest.raises(UserError, match="they lack 2 of them, for example 'u'"):
        word_errors({"u": "a", "v": "a", "w": "a"}, {"w": "a"})
    with pytest.raises(UserError, match="beyond the references, 1 of them, for example 'v'"):
        word_errors({"u": "a"}, {"u": "a", "v": "a"})
    with pytest.raises(UserError, match="at least one reference utterance"):
        word_errors({}, {})
    with pytest.raises(UserError, match="they lack 1 of them, for example 'u'"):
        character_errors({"u": "a", "v": "a"}, {"v": "a"})
    for count in (word_errors, character_errors):
        with pytest.raises(UserError, match="all references are empty"):
            count({"u": ""}, {"u": "a"})


def test_errors_by_kind_and_loops(texts):
    references, hypotheses = texts
    kinds = word_errors_and_kinds(references, hypotheses)[2]
    total = word_errors(references, hypotheses)
    assert kinds["insertions"] + kinds["deletions"] + kinds["substitutions"] == total.errors
    more = sum(len(hypotheses[name].split()) - len(text.split()) for name, text in references.items())
    assert kinds["insertions"] - kinds["deletions"] == more
    assert word_errors_and_kinds(references, references)[2] == dict.fromkeys(kinds, 0)
    said = {"a": "one two", "b": "one two", "c": "same"}
    heard = {"a": "one two three four", "b": "one two three four five", "c": "same"}
    assert word_errors_and_kinds(said, heard)[2] == {"insertions": 5, "deletions": 0, "substitutions": 0, "loops": 1}
