"""The paper's claims in one table, and which systems carry them: against the records they are made of."""

import statistics

import pytest
from example_tree import MODEL, write_tree

from mpq.conf import CONF
from mpq.evaluate.verdict import of_runs, same_seed
from mpq.report.tables import paper
from mpq.report.tables.claims import COLUMNS, claims_sheet
from mpq.report.tables.lossless import factors
from mpq.report.tables.show import build_sheets
from mpq.report.tables.system import load_systems, models_of


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder, "full_precision", "uniform", "two_stage_gumbel", "one_stage")
    return folder


@pytest.fixture(scope="module")
def rows(root):
    """Model -> its row, a value a column."""
    (block,) = claims_sheet(root).blocks
    return {row[0]: dict(zip(block.frame.columns, row, strict=True)) for row in block.frame.itertuples(index=False)}


def test_there_is_a_row_for_every_model_and_the_paper(rows):
    assert list(rows) == [*models_of("real"), *models_of("tiny"), *models_of("paper"), "*the paper says*"]
    assert list(rows["*the paper says*"].values())[3:] == list(paper.CLAIMS) and len(COLUMNS) == 3 + len(paper.CLAIMS)
    assert all(rows["hubert_large"][column.title] == "not run" for column in COLUMNS[1:] if column.title != "Seeds")


def test_a_row_says_what_the_records_say(root, rows):
    systems = load_systems("compression", MODEL, root)
    runs = {s.recipe: s.runs for s in systems if s.bits == 3.5 and not s.activations}
    one, two = runs["one_stage"], runs["two_stage_gumbel"]

    def mean(runs, value):
        return statistics.fmean(map(value, runs))

    changes = [
        mean(one, lambda run, s=name: run.wer[s].wer) - mean(two, lambda run, s=name: run.wer[s].wer)
        for name in one[0].wer
    ]
    row = rows[MODEL]
    found = of_runs(same_seed(one, two)).change
    assert found.estimate == pytest.approx(statistics.fmean(changes))  # sets of equal size
    assert row["WER change, points"] == f"{found.estimate:+.2f} [{found.interval[0]:+.2f}, {found.interval[1]:+.2f}]"
    spent = [mean(found, lambda run: sum(s.processor_seconds for s in run.time.stages)) for found in (two, one)]
    updates = [mean(found, lambda run: sum(s.updates for s in run.time.stages)) for found in (two, one)]
    expected = f"{spent[0] / spent[1]:.2f} (updates: {updates[0] / updates[1]:.2f})"
    assert row["Time, two-stage / one-stage"] == expected
    (system,) = (s for s in systems if s.runs == one)
    assert row["At 3.5 bits"] == system.verdict().word
    assert row["Ratio at 3.5 bits"] == pytest.approx(mean(one, lambda run: run.size.ideal_ratio))
    assert (row["Speech"], row["Seeds"]) == ("synthetic", "3 of 3")
    over = [
        max(
            (s.runs[0].size.ideal_ratio for s in systems if s.recipe == name and s.no_worse() and not s.activations),
            default=0,
        )
        for name in ("one_stage", "uniform")
    ]
    expected = over[0] / over[1] if all(over) else "none"
    assert row["Lossless ratio / uniform"] == pytest.approx(expected)
    assert [factor.over.name for factor in factors(systems)] == ["uniform", "two-stage"]


def test_the_rows_of_the_claims_are_those_with_all_seeds_and_methods_keep_every_system(root):
    tables = CONF / "table"
    whole, cut = (build_sheets("all", tables, root, "tiny", claims=claims) for claims in (False, True))
    labels = [list(sheets[0].blocks[0].frame["System"]) for sheets in (whole, cut)]
    assert labels[1] == [
        "32 bits", "32 bits, fine-tuned", "uniform, 8 bits", "uniform, 4 bits", "uniform, 2 bits",
        "two-stage Gumbel, 4 bits",
        "two-stage Gumbel, 3.5 bits", "one-stage, 4 bits", "one-stage, 3.5 bits",
    ]  # fmt: skip
    assert set(labels[1]) < set(labels[0])
    methods = [
        [block.cells() for block in sheets[1].blocks if "of each method" in block.title] for sheets in (whole, cut)
    ]
    assert methods[0] == methods[1] and methods[0]
