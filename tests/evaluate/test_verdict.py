"""The verdict on a system, from records with errors by unit, and the units of records and of transcripts."""

from dataclasses import replace

import numpy as np
import pytest

from mpq import conf
from mpq.evaluate import units, verdict
from mpq.evaluate.pooled import MIN_SPEAKERS, NO_WORSE, UNDECIDED, WORSE, pooled
from mpq.evaluate.verdict import margin, margins, of_run, of_runs, same_seed
from mpq.record.hypotheses import add_references, write_hypotheses
from mpq.record.result import (
    Baseline,
    Bits,
    CharacterErrors,
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
from mpq.record.run_folder import RunFolder, references_file

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


def texts(rng, count):
    return {name: {f"{k % count}-1-{k}": " ".join(rng.choice(["A", "B", "C"], 6)) for k in range(60)} for name in SETS}


def spoiled(rng, said):
    return {
        name: {key: text.replace("A", "AB", 1) if rng.random() < 0.4 else text for key, text in each.items()}
        for name, each in said.items()
    }


@pytest.mark.parametrize("speakers", [1, MIN_SPEAKERS - 1, MIN_SPEAKERS, 12])
def test_an_older_record_has_the_units_of_its_transcripts(rng, tmp_path, speakers):
    said = texts(rng, speakers)
    add_references(references_file(tmp_path, "mine"), said)
    bare = {name: {"x": (1, 360)} for name in SETS}
    test = {name: Significance(Baseline("m_fp32", 0), 0.1, (-9.0, 9.0), 0.5, 0.6) for name in SETS}
    for result in (run("m_fp32", 0, bare), run("m_4bit", 0, bare, significance=test)):
        old = {
            name: replace(words, units=None, interval=(0.0, 1.0), characters=CharacterErrors(1.0, 1, 100, (0.0, 1.0)))
            for name, words in result.wer.items()
        }
        folder = RunFolder.of(tmp_path, result)
        folder.path.mkdir(parents=True)
        folder.write(replace(result, wer=old))
        write_hypotheses(folder.hypotheses, spoiled(rng, said))
    base, made = (units.completed(RunFolder(tmp_path, exp, 0)) for exp in ("m_fp32", "m_4bit"))
    kind = "speaker" if speakers in (1, MIN_SPEAKERS, 12) else "utterance"
    for name, words in made.wer.items():
        assert words.units is not None and words.units.kind == words.characters.units.kind == kind
        assert len(words.units.counts) == (speakers if kind == "speaker" else 60)
        assert (words.interval is None) == (speakers == 1) and words.interval != (0.0, 1.0)
        change = made.significance[name].change
        assert change == units.less(words.units, base.wer[name].units)
        assert (made.significance[name].interval is None) == (speakers == 1 or len(set(change.values())) == 1)
    assert of_run(made) == of_runs([(made, base)]) != None  # noqa: E711


def test_an_older_record_without_transcripts_loses_its_intervals(rng, tmp_path):
    made = run("m_4bit", 0, draw(rng))
    test = {name: Significance(Baseline("m_fp32", 0), 0.1, (-9.0, 9.0), 0.5, 0.6) for name in SETS}
    old = {name: replace(words, units=None, interval=(0.0, 1.0)) for name, words in made.wer.items()}
    RunFolder.of(tmp_path, made).write(replace(made, wer=old, significance=test))
    found = units.completed(RunFolder.of(tmp_path, made))
    assert all(words.interval is None and words.units is None for words in found.wer.values())
    assert all(one.interval is None and one.p == 0.6 for one in found.significance.values())
    assert of_run(found) is None and verdict.of_runs([(found, found)]) is None


def test_a_record_with_units_is_left_as_it_is(rng, tmp_path):
    made = run("m_4bit", 0, draw(rng))
    RunFolder.of(tmp_path, made).write(made)
    assert units.completed(RunFolder.of(tmp_path, made)) == made
