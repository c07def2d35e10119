"""Systems of equal bits against each other: which are compared, over which seeds, and by how much they differ."""

import random
from dataclasses import replace

import pytest
from example_records import SETS, record, write_record
from example_tree import MODEL

from mpq import conf
from mpq.record.result import StageTime, Time
from mpq.report.overview import EQUAL_BITS, write_overview
from mpq.report.tables.equal_bits import comparisons
from mpq.report.tables.formats import to_markdown
from mpq.report.tables.show import build_sheets
from mpq.report.tables.system import load_systems

RECIPES = {"two_stage_gumbel": "two_stage_gumbel_", "one_stage": "", "one_stage_shared": "one_stage_shared_"}


def write(root, recipe, bits, seed, updates=600):
    """A record with random errors; returns their number over all sets."""
    exp = f"{MODEL}_{RECIPES[recipe]}{f'{bits:g}'.replace('.', 'p')}bit"
    made = record(exp, recipe, bits, change=random.randint(-40, 40), seed=seed)
    stages = (StageTime("one_stage", 100.0, 1, updates, 1.0, 1),)
    write_record(replace(made, time=Time(100.0, 100.0, stages)), root)
    return sum(words.errors for words in made.wer.values())


def test_each_system_is_compared_with_those_before_it_that_have_its_bits_over_the_seeds_of_both(tmp_path):
    write_record(record(f"{MODEL}_fp32", "full_precision", 32), tmp_path)
    seeds = {"two_stage_gumbel": (0, 1, 2), "one_stage": (0, 1), "one_stage_shared": (1, 2)}
    errors = {
        (recipe, bits, seed): write(tmp_path, recipe, bits, seed, 900 if recipe == "two_stage_gumbel" else 600)
        for recipe, some in seeds.items()
        for seed in some
        for bits in (3.5, 2.5)
    }
    write(tmp_path, "two_stage_gumbel", 3, 0)  # has none to be compared with
    found = comparisons(load_systems(EQUAL_BITS, MODEL, tmp_path))
    names = [(one.system.recipe, one.other.recipe) for one in found]
    first, second, third = RECIPES
    assert names == 2 * [(second, first), (third, first), (third, second)]
    assert [one.system.bits for one in found] == 3 * [3.5] + 3 * [2.5]
    for one in found:
        alike = sorted(set(seeds[one.system.recipe]) & set(seeds[one.other.recipe]))
        more = sum(
            errors[one.system.recipe, one.system.bits, seed] - errors[one.other.recipe, one.system.bits, seed]
            for seed in alike
        )
        assert one.pooled.estimate == pytest.approx(100 * more / (8000 * len(SETS) * len(alike)))
        assert one.pooled.seeds == len(alike)
    (sheet,) = build_sheets(EQUAL_BITS, conf.folder("table"), tmp_path, "tiny", planned=False)
    text, last = to_markdown([sheet]), found[-1]
    low, high = last.pooled.interval
    row = f"| 1 | 600 against 600 | {last.pooled.estimate:+z.2f} | [{low:+z.2f}, {high:+z.2f}] |"
    assert f"| one-stage, shared, 2.5 bits | one-stage, 2.5 bits {row}" in text
    assert "| 0, 1 | 600 against 900 |" in text and "not run" not in text


def test_the_page_has_them_where_two_were_run(tmp_path, monkeypatch):
    monkeypatch.setattr("mpq.report.overview.pictures", lambda scale, root: [])
    write_record(record(f"{MODEL}_fp32", "full_precision", 32), tmp_path)
    write(tmp_path, "two_stage_gumbel", 3.5, 0)
    write_overview(tmp_path)
    assert "<!-- equal_bits tiny" not in (tmp_path / "README.md").read_text()
    write(tmp_path, "one_stage", 3.5, 0)
    write_overview(tmp_path)
    text = (tmp_path / "README.md").read_text()
    part = text.partition("<!-- equal_bits tiny: made by scripts/overview.py -->")[2].partition("<!-- end")[0]
    assert "| one-stage, 3.5 bits | two-stage Gumbel, 3.5 bits | 0 |" in part
    assert "equal_bits paper" not in text and "systems of equal bits" in (tmp_path / "tables/tiny.md").read_text()
