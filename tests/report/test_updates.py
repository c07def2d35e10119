"""One stage beside two stages of more updates: against jiwer, on random texts."""

import random
from dataclasses import replace

import jiwer
import numpy as np
import pytest
from example_records import record, write_record
from example_tree import MODEL

from mpq.evaluate.mapsswe import mapsswe
from mpq.evaluate.units import units_of
from mpq.record.hypotheses import add_references, write_hypotheses
from mpq.record.result import StageTime, Time
from mpq.record.run_folder import RunFolder, references_file
from mpq.report.figures import updates
from mpq.report.figures.style import style
from mpq.report.tables.formats import to_markdown
from mpq.report.tables.planned import planned
from mpq.report.tables.system import load_systems
from mpq.report.tables.updates import ALL, TABLE, compare_updates, is_curve, updates_sheet

SETS = {"dev": 12, "test": 9}
ONE, TWO = f"{MODEL}_450updates_3p5bit", f"{MODEL}_two_stage_gumbel_3p5bit"
EQUAL = f"{MODEL}_two_stage_gumbel_450updates_3p5bit"


def spoil(text):
    return " ".join(said for word in text.split() for said in random.choice([[word]] * 4 + [[], ["NO"], [word, "AND"]]))


def write(root, texts, said):
    """A record for each exp and seed of `texts`, which are its hypotheses of what was `said`."""
    for (exp, seed), heard in texts.items():
        row = next(row for row in planned(TABLE, MODEL) if (row.exp, row.seed) == (exp, seed))
        stages = {ONE: (450,), TWO: (300, 600), EQUAL: (150, 300)}.get(exp, (600,))
        times = tuple(StageTime(f"stage{n}", 1.0, 1, count, 1.0, 1) for n, count in enumerate(stages))
        made = replace(record(exp, row.recipe, 3.5, change=0, seed=seed), time=Time(1.0, 1.0, times))
        sets = {name: replace(made.wer["dev-clean"], units=units(said[name], heard[name])) for name in heard}
        write_record(replace(made, wer=sets, significance=None), root)
        write_hypotheses(RunFolder(root, exp, seed).path / "hypotheses.jsonl", heard)


def words(number):
    return " ".join(random.choices(["ONE", "TWO", "THREE", "FOUR"], k=number))


@pytest.fixture
def said():
    return {name: {f"{i % 4}-1-{i}": words(random.randint(2, 9)) for i in range(size)} for name, size in SETS.items()}


def heard(said):
    return {name: {key: spoil(text) for key, text in texts.items()} for name, texts in said.items()}


def units(said, hypotheses):
    counted = [errors({key: text}, hypotheses) for key, text in said.items()]
    spoken = [len(text.split()) for text in said.values()]
    return units_of({key: key.partition("-")[0] for key in said}, np.array(counted), np.array(spoken))


def errors(said, hypotheses):
    done = jiwer.process_words(list(said.values()), [hypotheses[key] for key in said])
    return done.substitutions + done.deletions + done.insertions


def test_differences_are_those_of_the_word_error_rates_of_the_seeds_that_both_have(tmp_path, said):
    texts = {(exp, seed): heard(said) for exp in (ONE, TWO) for seed in (0, 1)} | {(ONE, 2): heard(said)}
    write(tmp_path, texts, said)
    add_references(references_file(tmp_path, "embedded"), said)
    found = list(compare_updates(load_systems(TABLE, MODEL, tmp_path), tmp_path))
    assert len(found) == 2 * 3 + 3 and {(change.updates, change.others) for change in found} == {(450, 900)}
    for change in found:
        seeds = (0, 1) if change.seed == ALL else (int(change.seed),)
        sets = SETS if change.set_name == ALL else (change.set_name,)
        more = sum(
            errors(said[name], texts[ONE, seed][name]) - errors(said[name], texts[TWO, seed][name])
            for seed in seeds
            for name in sets
        )
        spoken = len(seeds) * sum(len(text.split()) for name in sets for text in said[name].values())
        assert change.pooled.estimate == pytest.approx(100 * more / spoken)
        assert change.pooled.seeds == len(seeds)
        low, high = change.pooled.interval
        assert low <= change.pooled.estimate <= high
        assert (change.p is None) == (change.seed == ALL)
        if change.p is not None:
            joined = [
                {f"{name} {key}": text for name in sets for key, text in each[name].items()}
                for each in (said, texts[ONE, seeds[0]], texts[TWO, seeds[0]])
            ]
            assert change.p == mapsswe(*joined).p


def test_the_same_seed_three_times_is_no_more_evidence_than_once(tmp_path, said):
    one, two = heard(said), heard(said)
    write(tmp_path, {(ONE, seed): one for seed in range(3)} | {(TWO, seed): two for seed in range(3)}, said)
    add_references(references_file(tmp_path, "embedded"), said)
    found = {(c.seed, c.set_name): c for c in compare_updates(load_systems(TABLE, MODEL, tmp_path), tmp_path)}
    for name in (*SETS, ALL):
        assert found[ALL, name].pooled.interval == pytest.approx(found["0", name].pooled.interval)


def test_the_same_number_of_updates_comes_first(tmp_path, said):
    write(tmp_path, {(exp, 0): heard(said) for exp in (ONE, TWO, EQUAL)}, said)
    add_references(references_file(tmp_path, "embedded"), said)
    found = [(c.updates, c.others) for c in compare_updates(load_systems(TABLE, MODEL, tmp_path), tmp_path)]
    assert list(dict.fromkeys(found)) == [(450, 450), (450, 900)]
    titles = [block.part for block in updates_sheet("tiny", tmp_path).blocks]
    assert titles[0] == "One stage against two stages of as many updates, all seeds"
    assert next(block for block in titles if "more updates" in block).endswith("all seeds")


def test_table_and_picture(tmp_path, said):
    write(tmp_path, {(ONE, 0): heard(said), (TWO, 0): heard(said)}, said)
    add_references(references_file(tmp_path, "embedded"), said)
    assert not is_curve(load_systems(TABLE, MODEL, tmp_path))  # a number of updates each
    write(tmp_path, {(f"{MODEL}_3p5bit", seed): heard(said) for seed in range(2)}, said)
    systems = load_systems(TABLE, MODEL, tmp_path)
    assert is_curve(systems)
    sheet = updates_sheet("tiny", tmp_path)
    assert sheet is not None and updates_sheet("paper", tmp_path) is None
    text = to_markdown([sheet])
    assert "| one-stage, 3.5 bits | tiny_wav2vec2_3p5bit | 2 of 3 | 600 |" in text
    for row in ("600 against 900 | all", "450 against 900 | all", "450 against 900 | 0 | dev"):
        assert f"| {row} |" in text
    with style():
        figure = updates.draw(systems)
    assert len(figure.axes) == len(SETS)
    lines = {tuple(line.get_xdata()) for line in figure.axes[0].lines}
    aside = updates._SIDE_STEP * 900 / 2  # two methods, side by side
    assert {(450 - aside, 600 - aside), (900 + aside,)} <= lines
