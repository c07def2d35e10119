"""The comparison of two systems, and Holm's correction."""

import numpy as np
import pytest
from random_texts import random_references, recognise

from mpq.errors import UserError
from mpq.evaluate.mapsswe import mapsswe
from mpq.evaluate.significance import compare, holm, in_words
from mpq.evaluate.wer import character_errors, word_errors


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    references = random_references(rng, 300, 100)
    return references, recognise(rng, references, 100, 0.1), recognise(rng, references, 100, 0.2)


def test_a_worse_system(texts):
    references, baseline, system = texts
    result = compare(references, baseline, system)
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
    result = compare(references, baseline, system)
    assert (result.difference, result.interval) == (0, (0, 0))
    assert result.characters.difference == pytest.approx(100 * 4 / 9)
    assert result.characters.interval == pytest.approx((result.characters.difference,) * 2)


def test_the_other_way_round_is_better(texts):
    references, baseline, system = texts
    result, back = compare(references, baseline, system), compare(references, system, baseline)
    assert (back.difference, back.z, back.p) == (-result.difference, -result.z, result.p)
    np.testing.assert_allclose(back.interval, [-result.interval[1], -result.interval[0]], rtol=0.05)


def test_identical_hypotheses(texts):
    references, baseline, _ = texts
    result = compare(references, baseline, dict(baseline))
    assert (result.difference, result.interval, result.z, result.p) == (0, (0, 0), 0, 1)


def test_speakers_are_drawn_as_blocks(texts):
    references, baseline, system = texts
    own = compare(references, baseline, system, speakers={name: name for name in references})
    one = compare(references, baseline, system, speakers=dict.fromkeys(references, "x"))
    assert own == compare(references, baseline, system)
    assert one.interval == pytest.approx((one.difference, one.difference))
    assert one.characters.interval == pytest.approx((one.characters.difference,) * 2)
    assert compare(references, baseline, system, seed=1) != own


def test_other_ids_are_refused(texts):
    references, baseline, system = texts
    short = dict(list(system.items())[1:])
    with pytest.raises(UserError, match=r"the system's hypotheses .* lack 1"):
        compare(references, baseline, short)
    with pytest.raises(UserError, match=r"the baseline's hypotheses .* lack 1"):
        compare(references, short, system)
    with pytest.raises(UserError, match=r"the speakers .* lack 1"):
        compare(references, baseline, system, speakers=short)
    with pytest.raises(UserError, match="all references are empty"):
        compare({"u": ""}, {"u": "a"}, {"u": ""})


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, and no p may fall below the last."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_the_step_down_procedure():
    """Reject from the smallest p on, against alpha / (number left), and stop at the first that fails."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(rng.integers(1, 12)) ** 4
        p[rng.integers(len(p))] = p[0]  # a tie
        for alpha in (0.01, 0.05, 0.3):
            rejected, left = set(), sorted(range(len(p)), key=lambda k: p[k])
            while left and p[left[0]] < alpha / len(left):
                rejected.add(left.pop(0))
            assert {k for k, value in enumerate(holm(p.tolist())) if value < alpha} == rejected


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "p < 0.001"), (0.00099, "p < 0.001"), (0.001, "p = 0.001"), (1.0, "p = 1.000")]
)
def test_no_p_is_told_as_zero(p, text):
    assert in_words(p) == text
