"""MAPSSWE against NIST's sc_stats, live where it is installed and recorded everywhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import sctk
from random_texts import random_references, recognise
from scipy import stats

from mpq.errors import UserError
from mpq.evaluate.mapsswe import mapsswe, segment_errors

RECORDED = sorted((Path(__file__).parent / "data").glob("mapsswe_*.json"))


def check(references, first, second, expected):
    ours = mapsswe(references, first, second)
    assert ours.segments == expected["segments"]
    errors = segment_errors(references, first, second).sum(axis=1).tolist()
    assert errors == [expected["errors_first"], expected["errors_second"]]
    printed = [ours.mean, ours.variance**0.5, ours.z]
    np.testing.assert_allclose(printed, [expected[k] for k in ("mean", "std_dev", "z")], atol=0.00051, rtol=0)
    assert (ours.p < 0.05) == expected["significant"]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_sc_stats(path):
    record = json.loads(path.read_text())
    check(record["references"], record["first"], record["second"], record["sc_stats"])


def test_the_records_hold_every_verdict():
    results = [json.loads(path.read_text())["sc_stats"] for path in RECORDED]
    assert {(figures["significant"], figures["z"] > 0) for figures in results} >= {(True, True), (True, False)}
    assert not all(figures["significant"] for figures in results)


@pytest.mark.skipif(not sctk.AVAILABLE, reason="needs sctk (apt-get install sctk)")
@pytest.mark.parametrize("vocabulary", [2, 5, 100])
@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.1, 0.2), (0.9, 0.5)])
def test_live_sc_stats(vocabulary, rates, tmp_path):
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)  # shown when the test fails
    rng = np.random.default_rng(seed)
    references = random_references(rng, 80, vocabulary)
    first, second = (recognise(rng, references, vocabulary, rate) for rate in rates)
    check(references, first, second, sctk.mapsswe(references, first, second, tmp_path))


def test_z_and_p_are_those_of_a_test_of_the_mean():
    rng = np.random.default_rng(0)
    references = random_references(rng, 200, 50)
    first, second = (recognise(rng, references, 50, rate) for rate in (0.2, 0.23))
    ours = mapsswe(references, first, second)
    errors = segment_errors(references, first, second)
    assert ours.z == pytest.approx(stats.ttest_rel(*errors).statistic)
    assert ours.p == pytest.approx(2 * stats.norm.sf(abs(ours.z)))


def test_swapping_the_systems_swaps_the_sign():
    rng = np.random.default_rng(1)
    references = random_references(rng, 100, 5)
    first, second = (recognise(rng, references, 5, rate) for rate in (0.2, 0.4))
    one, other = mapsswe(references, first, second), mapsswe(references, second, first)
    assert (one.segments, one.z, one.p) == (other.segments, -other.z, other.p)


@pytest.mark.parametrize(
    ("first", "second", "segments"),
    [
        ("a b c d", "a b c d", 0),  # both right
        ("a x c d", "a x c d", 1),  # identical
        ("a x c d", "a b c d", 1),  # one segment: no variance to judge by
        ("", "a b c d", 1),
    ],
)
def test_without_variance_nothing_is_significant(first, second, segments):
    result = mapsswe({"u": "a b c d"}, {"u": first}, {"u": second})
    assert (result.segments, result.z, result.p) == (segments, 0.0, 1.0)


def test_the_same_difference_everywhere_is_no_evidence_either():
    references = {str(k): "a b c" for k in range(5)}
    result = mapsswe(references, dict.fromkeys(references, "a b"), references)
    assert (result.segments, result.mean, result.variance, result.z, result.p) == (5, 1.0, 0.0, 0.0, 1.0)


def test_other_ids_are_refused():
    with pytest.raises(UserError, match="second hypotheses must have"):
        mapsswe({"u": "a"}, {"u": "a"}, {"v": "a"})
