"""The verdict on a system, from records with errors by unit, and those units."""

from dataclasses import replace

import numpy as np
import pytest

from mpq import conf
from mpq.evaluate import units
from mpq.evaluate.pooled import MIN_SPEAKERS, NO_WORSE, UNDECIDED, WORSE, pooled
from mpq.evaluate.verdict import margin, margins, of_run, of_runs, same_seed
from mpq.record.result import (
    Baseline,
    Bits,
    Data,
    Hardware,
    Provenance,
    Result,
    Significance,
    Size,
    Time,
    Units,
    WordErrors,
)  # fmt: skip

SETS = ("clean", "other")


@pytest.fixture
def rng():
    return np.random.default_rng()


def run(exp: str, seed: int, counts: dict[str, dict[str, tuple[int, int]]], **more) -> Result:
    """A record with these errors and words by set and speaker."""
    wer = {}
    for name, by_speaker in counts.items():
        errors, words = np.sum(list(by_speaker.values()), axis=0).tolist()
        wer[name] = WordErrors(100 * errors / words, errors, words, 100, units=Units("speaker", by_speaker))
    about = Provenance(None, None, "x", {}, Hardware("a CPU", 1, 1, ()), Data("mine", "0"), "2026-01-01")
    fixed = {"scale": "own", "smoke": False, "model": "m", "recipe": "uniform", "bits": Bits(4.0, 4.0)}
    rest = {"size": Size(1, 1, 1.0, 1, 1.0), "time": Time(0.0, 0.0, ()), "provenance": about}
    return Result(exp=exp, seed=seed, wer=wer, **fixed, **rest, **more)


def draw(rng, more=0.0, speakers=20, words=500, rate=0.1):
    return {name: {f"s{k}": (int(rng.binomial(words, rate + more)), words) for k in range(speakers)} for name in SETS}


def test_sets_seeds_and_speakers_are_pooled(rng):
    base = run("m_fp32", 0, draw(rng))
    runs = [run("m_4bit", seed, draw(rng, 0.01)) for seed in range(3)]
    found = of_runs([(one, base) for one in runs])
    names = [f"s{k}" for _ in SETS for k in range(20)]
    flat = [[e for name in SETS for e, _ in r.wer[name].units.counts.values()] for r in (base, *runs)]
    expected = pooled(np.array(flat[1:]) - flat[0], np.full(40, 500), names)
    assert found is not None and found.change == expected and expected.units == 20
    assert found.baseline == pytest.approx(100 * sum(flat[0]) / 20_000)
    assert found.needs == pytest.approx(max(0, 100 * expected.interval[1] / found.baseline))
    assert found.word == expected.verdict(margin() / 100 * found.baseline) == found.at(margin())
    assert found.word in found.sentence() and f"[{expected.interval[0]:+.2f}" in found.sentence()


def test_a_record_alone_gives_the_verdict_against_its_baseline(rng):
    base, made = run("m_fp32", 0, draw(rng)), run("m_4bit", 0, draw(rng, 0.01))
    tests = {
        name: Significance(
            Baseline("m_fp32", 0), 0.1, None, 0.5, 0.6, change=units.less(words.units, base.wer[name].units)
        )
        for name, words in made.wer.items()
    }
    assert of_run(replace(made, significance=tests)) == of_runs([(made, base)]) != None  # noqa: E711


def test_the_order_of_speakers_and_sets_in_a_record_changes_nothing(rng):
    base, one, two = run("b", 0, draw(rng)), run("m", 0, draw(rng)), run("m", 1, draw(rng))
    mixed = replace(two, wer={
        name: replace(two.wer[name], units=Units("speaker", dict(reversed(two.wer[name].units.counts.items()))))
        for name in reversed(SETS)
    })  # fmt: skip
    assert of_runs([(one, base), (two, base)]) == of_runs([(one, base), (mixed, base)])


@pytest.mark.parametrize(("more", "word"), [(-0.02, NO_WORSE), (0.05, WORSE)])
def test_a_verdict_follows_the_change(rng, more, word):
    found = of_runs([(run("m", 0, draw(rng, more)), run("b", 0, draw(rng)))])
    assert found is not None and found.word == word and found.at(1e9) == NO_WORSE


def test_the_margin_and_the_others_come_from_the_config(rng, tmp_path, monkeypatch):
    assert margin() == 3 and margins() == [1, 3, 5]
    (tmp_path / "verdict.yaml").write_text("margin: 900\nothers: [2, 900]\n")
    monkeypatch.setattr(conf, "CONF", tmp_path)
    assert margins() == [2, 900]
    found = of_runs([(run("m", 0, draw(rng, 0.05)), run("b", 0, draw(rng)))])
    assert found is not None and found.word == NO_WORSE and found.at(2) == WORSE


def test_what_was_not_measured_alike_has_no_verdict(rng):
    base, other = run("b", 0, draw(rng)), run("m", 0, draw(rng, words=501))
    bare = replace(base, wer={name: replace(words, units=None) for name, words in base.wer.items()})
    assert of_runs([]) is None and of_runs([(other, base)]) is None and of_runs([(bare, base)]) is None
    assert of_runs([(base, bare)]) is None and of_run(base) is None
    assert same_seed([base], [other]) == [(base, other)] and same_seed([base], [replace(other, seed=1)]) == []


def test_two_sets_of_one_speaker_each_are_too_few(rng):
    one, two = ({name: {f"of {name}": (4 + k, 90)} for k, name in enumerate(SETS)} for _ in range(2))
    two["clean"] = {"of clean": (9, 90)}
    found = of_runs([(run("m", 0, two), run("b", 0, one))])
    assert found is not None and found.word == UNDECIDED and found.needs is None
    assert "no interval (fewer than 5 speakers), so undecided" in found.sentence()


@pytest.mark.parametrize("speakers", [1, MIN_SPEAKERS - 1, MIN_SPEAKERS, 12])
def test_errors_are_added_up_by_speaker_or_kept_by_utterance_where_speakers_are_few(rng, speakers):
    of = {f"{k % speakers}-1-{k}": str(k % speakers) for k in range(60)}
    errors, before, words = (rng.integers(low, 9, 60) for low in (0, 0, 1))
    found, base = (units.units_of(of, counted, words) for counted in (errors, before))
    by_speaker = speakers in (1, MIN_SPEAKERS, 12)
    assert found.kind == base.kind == ("speaker" if by_speaker else "utterance")
    for name, counts in found.counts.items():
        own = [k for k, key in enumerate(of) if name == (of[key] if by_speaker else key)]
        assert counts == (errors[own].sum(), words[own].sum())
    assert len(found.counts) == (speakers if by_speaker else 60)
    more = units.less(found, base)
    assert sum(more.values()) == errors.sum() - before.sum()
    assert units.rate(found).estimate == pytest.approx(100 * errors.sum() / words.sum())
    assert units.change(found, more).estimate == pytest.approx(100 * (errors - before).sum() / words.sum())
    assert (units.rate(found).interval is None) == (speakers == 1)
