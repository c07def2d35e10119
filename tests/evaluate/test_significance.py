"""The comparison of two systems."""

import numpy as np
import pytest
from random_texts import random_references, recognise

from mpq.errors import UserError
from mpq.evaluate.mapsswe import mapsswe
from mpq.evaluate.significance import compare, in_brackets, in_words
from mpq.evaluate.wer import character_errors, word_errors


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    references = random_references(rng, 300, 100)
    return references, recognise(rng, references, 100, 0.1), recognise(rng, references, 100, 0.2)


def speakers(references, count=30):
    return {name: f"s{k % count}" for k, name in enumerate(references)}


def test_a_worse_system(texts):
    references, baseline, system = texts
    result = compare(references, baseline, system, speakers(references))
    assert result.difference == pytest.approx(
        word_errors(references, system).wer - word_errors(references, baseline).wer
    )
    low, high = result.interval
    assert 0 < low < result.difference < high
    assert result.z > 1.96 and result.p < 0.05
    assert result.segments == mapsswe(references, system, baseline).segments
    assert result.characters.difference == pytest.approx(
        character_errors(references, system).cer - character_errors(references, baseline).cer
    )
    low, high = result.characters.interval
    assert 0 < low < result.characters.difference < high


def test_characters_tell_apart_what_words_do_not():
    """Every word of both systems is wrong; the baseline has half of each right."""
    references = {str(k): "abcd efgh" for k in range(50)}
    baseline, system = dict.fromkeys(references, "abxx efxx"), dict.fromkeys(references, "xxxx xxxx")
    result = compare(references, baseline, system, speakers(references))
    assert (result.difference, result.interval) == (0, None)  # the same in all units: no spread to judge by
    assert result.characters.difference == pytest.approx(100 * 4 / 9)
    assert result.characters.interval is None


def test_the_other_way_round_is_better(texts):
    references, baseline, system = texts
    own = speakers(references)
    result, back = compare(references, baseline, system, own), compare(references, system, baseline, own)
    assert (back.difference, back.z, back.p) == (-result.difference, -result.z, result.p)
    assert back.interval == pytest.approx((-result.interval[1], -result.interval[0]))
    assert back.change == {name: -more for name, more in result.change.items()}


def test_identical_hypotheses(texts):
    references, baseline, _ = texts
    result = compare(references, baseline, dict(baseline), speakers(references))
    assert (result.difference, result.interval, result.z, result.p) == (0, None, 0, 1)


def test_few_speakers_are_counted_by_utterance_and_one_has_no_interval(texts):
    references, baseline, system = texts
    own = compare(references, baseline, system, {name: name for name in references})
    few = compare(references, baseline, system, speakers(references, 4))
    one = compare(references, baseline, system, dict.fromkeys(references, "x"))
    assert few == own and len(own.change) == len(references)
    assert one.interval is None and one.characters.interval is None
    assert one.change == {"x": sum(own.change.values())} and one.difference == pytest.approx(own.difference)


def test_other_ids_are_refused(texts):
    references, baseline, system = texts
    short = dict(list(system.items())[1:])
    with pytest.raises(UserError, match=r"the system's hypotheses .* lack 1"):
        compare(references, baseline, short, speakers(references))
    with pytest.raises(UserError, match=r"the baseline's hypotheses .* lack 1"):
        compare(references, short, system, speakers(references))
    with pytest.raises(UserError, match=r"the speakers .* lack 1"):
        compare(references, baseline, system, short)
    with pytest.raises(UserError, match="all references are empty"):
        compare({"u": ""}, {"u": "a"}, {"u": ""}, {"u": "x"})


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "p < 0.001"), (0.00099, "p < 0.001"), (0.001, "p = 0.001"), (1.0, "p = 1.000")]
)
def test_no_p_is_told_as_zero(p, text):
    assert in_words(p) == text


def test_no_interval_is_told_as_none():
    assert in_brackets(None) == "no 95 % interval" and in_brackets((-0.001, 0.5)) == "95 % interval [+0.00, +0.50]"
