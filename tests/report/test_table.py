"""Tables from invented records: rows, values, verdicts, captions, formats and the messages for bad names."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from example_records import SETS, record, several, with_characters, write_record
from rich.console import Console

from mpq.errors import UserError
from mpq.record.result import Baseline, Data, Significance
from mpq.report.card import card
from mpq.report.tables import columns
from mpq.report.tables.column import Column
from mpq.report.tables.columns import find, judge, only
from mpq.report.tables.formats import to_markdown
from mpq.report.tables.parts import Part
from mpq.report.tables.tables import Sheet, Table, beside_baseline, load_table
from mpq.report.tables.terminal import print_sheets

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "conf" / "table"


def printed(sheet: Sheet, width: int = 100) -> str:
    stream = io.StringIO()
    print_sheets([sheet], Console(file=stream, width=width))
    return stream.getvalue()


def test_a_row_for_each_run_and_a_column_for_each_set():
    part = Part("Part", "runs", ("system", "average_bits", "packed_mb", "wer"))
    frame = part.build(several(), SETS).frame
    assert list(frame.columns[:4]) == ["System", "Bits", "Packed MB", "WER % dev-clean"]
    assert frame["WER % test-other"].tolist() == [20.0, 20.15, pytest.approx(21.3875), 19.75, 31.25]
    assert frame["System"].tolist()[3:] == [
        "tiny_wav2vec2_two_stage_hessian_3p5bit seed 1",
        "hubert_large_3p5bit (smoke)",
    ]
    assert frame["Packed MB"][0] == pytest.approx(1.43 * 4 * 1.01, abs=1e-5)


def test_a_row_for_each_comparison():
    part = Part("Part", "comparisons", ("system", "set_name", "difference", "largest_increase", "p", "alone"))
    block = part.build(several(), SETS)
    assert len(block.frame) == 4 * 4  # the baseline is compared with nothing
    assert block.cells()[0] == [
        "tiny_wav2vec2_3p5bit",
        "dev-clean",
        "+0.15",
        "+0.55",
        "0.412",
        "no significant increase",
    ]
    assert block.cells()[4][2:] == ["+1.39", "+1.79", "<0.001", "significant increase"]


def test_a_set_that_one_run_lacks_is_an_empty_cell():
    first, second, *_ = several()
    first = replace(first, wer={"test-clean": first.wer["test-clean"]})
    cells = Part("Part", "runs", ("wer",)).build([first, second], SETS).cells()
    assert cells == [["–", "–", "15.00", "–"], ["5.15", "10.15", "15.15", "20.15"]]
    assert only(first, "dev-other").wer == {}


def test_characters_have_columns_where_a_run_counted_them():
    part = Part("Part", "runs", ("system", "wer", "cer", "cer_difference"))
    before, *others = several()
    assert len(part.build([before, *others], SETS).columns) == 1 + 4
    block = part.build([before, with_characters(others[0])], SETS[:2])
    assert [column.header for column in block.columns] == [
        "System", "WER % dev-clean ↓", "WER % dev-other ↓", "CER % dev-clean ↓", "CER % dev-other ↓",
        "CER change dev-clean ↓", "CER change dev-other ↓",
    ]  # fmt: skip
    assert block.cells()[0][3:] == ["–"] * 4
    assert block.cells()[1][3:] == ["2.58", "5.08", "+0.07", "+0.07"]
    compared = Part("Part", "comparisons", ("set_name", "cer_interval"))
    assert compared.build([with_characters(others[0])], SETS).cells()[0] == ["dev-clean", "[-0.03, +0.17]"]
    sheet = load_table("records", TABLES).build([with_characters(run) for run in [before, *others]])
    assert "each space between words" in " ".join(sheet.caption)
    titles = {column.title for block in sheet.blocks for column in block.columns}
    assert {"CER % dev-clean", "CER change", "CER 95 % interval"} <= titles


@pytest.mark.parametrize(
    ("difference", "p", "verdict"),
    [
        (0.5, 0.049, "significant increase"),
        (0.5, 0.05, "no significant increase"),
        (-0.5, 0.001, "no significant increase"),
        (0.0, 1.0, "no significant increase"),
    ],
)
def test_the_verdict(difference, p, verdict):
    assert judge(Significance(Baseline("b", 0), difference, (-1, 1), 0.0, p)) == verdict


def test_every_column_shows_every_record_and_says_what_it_means():
    named = {name: value for name, value in vars(columns).items() if isinstance(value, Column)}
    assert len(named) > 20
    for name, column in named.items():
        assert find(name) is column and column.meaning
        for example in several():
            assert column.text(column.function(only(example, "dev-clean")))
    assert len({column.title for column in named.values()}) == len(named)


@pytest.mark.parametrize(
    ("found", "shown"), [((None,), None), ((0,), "computed"), ((6400,), "6,400 found"), ((None, 0, 6400), "computed")]
)
def test_a_table_says_whether_the_teachers_posteriors_were_there(found, shown):
    example = record("x", "one_stage", 4, change=0)
    stages = [replace(example.time.stages[0], posteriors_found=count) for count in found]
    assert columns.posteriors.function(replace(example, time=replace(example.time, stages=stages))) == shown


def test_zero_is_not_shown_as_less_than_zero():
    assert find("difference").text(-0.001) == "+0.00"
    assert find("largest_increase").function(only(record("x", "uniform", 4, change=-100), "dev-clean")) == "none"


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(UserError, match=r"unknown column 'wqr'; the columns are system, .*, wer, .*verdict"):
        Part("Part", "runs", ("system", "wqr"))
    with pytest.raises(UserError, match="choose one of runs, judged, comparisons, systems"):
        Part("Part", "sets", ())
    with pytest.raises(
        UserError, match="unknown table 'al'; the tables are all, coded, compression, demo, equal_bits, headline"
    ):
        load_table("al", TABLES)
    with pytest.raises(UserError, match="needs title, rows and parts"):
        Table.from_dict({"title": "x", "rows": []})


def test_rows_are_chosen_by_pattern_in_order_and_once():
    table = Table("Title", ("*_2bit", "not_run_4bit", "tiny_*", "none_*"), (Part("Part", "runs", ("system",)),))
    sheet = table.build(several())
    assert [row[0] for row in sheet.blocks[0].cells()] == [
        "tiny_wav2vec2_uniform_2bit",
        "tiny_wav2vec2_fp32",
        "tiny_wav2vec2_3p5bit",
        "tiny_wav2vec2_two_stage_hessian_3p5bit seed 1",
    ]
    assert sheet.caption[-1] == "Not run: not_run_4bit."


def test_the_caption_tells_what_the_figures_rest_on():
    lines = "\n".join(load_table("records", TABLES).build(several()).caption)
    assert "embedded 01234567 (synthetic speech); utterances: dev-clean 500, dev-other 500," in lines
    assert "does not prove equality" in lines and "Comparisons: 16," in lines and "smoke: random weights" in lines
    assert "Not compared" not in lines and "more than once" not in lines

    first, second, *_ = several()
    other = replace(second.provenance, data=Data("read", "ff", False))
    lines = "\n".join(
        load_table("records", TABLES)
        .build([first, first, replace(second, provenance=other, significance=None)])
        .caption
    )
    assert "read ff (recorded speech)" in lines and "embedded 01234567" in lines
    assert "Not compared with a baseline: tiny_wav2vec2_3p5bit." in lines
    assert "Recorded more than once: tiny_wav2vec2_fp32 seed 0." in lines
    assert "Comparisons" not in lines and "smoke" not in lines


def test_a_run_stands_below_its_baseline():
    runs = several()
    assert beside_baseline(runs[1], [runs[2], runs[0]]) == [runs[0], runs[1]]
    assert beside_baseline(runs[0], runs) == [runs[0]]


@pytest.mark.parametrize("name", ["records", "demo"])
@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_terminal_shows_every_cell_within_its_width(name, width):
    sheet = load_table(name, TABLES).build(several())
    text = printed(sheet, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    if width >= 100:
        assert all(cell in text for block in sheet.blocks for row in block.cells() for cell in row[1:])
        assert text.count("no significant increase") == 8 + 1  # and once in the caption
    letters = "".join(text.split())
    for block in sheet.blocks:
        assert block.title.replace(" ", "") in letters
    for piece in ("tiny_wav2vec2_", "hessian_", "seed", "(smoke)"):
        assert piece in text


def test_a_long_name_breaks_after_an_underscore_and_runs_down_its_group():
    text = printed(load_table("records", TABLES).build(several()))
    lines = [
        line.split("  ")[0].rstrip() for line in text.split("Word error rate against full precision")[1].splitlines()
    ]
    start = lines.index("tiny_wav2vec2_two_")
    assert lines[start : start + 3] == ["tiny_wav2vec2_two_", "stage_hessian_3p5bit", "seed 1"]


def test_two_runs_of_one_name_both_bear_it():
    runs = several()[:1] * 2
    assert printed(Table("Title", ("*",), (Part("Part", "runs", ("system", "wer")),)).build(runs)).count("_fp32") == 3


def test_markdown_has_a_whole_row_a_line():
    text = to_markdown([load_table("records", TABLES).build(several())])
    assert (
        "| tiny_wav2vec2_3p5bit | test-other | +0.15 | [-0.25, +0.55] | +0.55 | 0.412 | no significant increase |"
        in text
    )
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert [len(lines) for lines in tables] == [2 + 5, 2 + 4, 2 + 16, 2 + 5]
    assert all(len({line.count("|") for line in lines}) == 1 for lines in tables)
    assert tables[0][1].startswith("| --- | ---: |")


def test_a_part_without_rows_says_so():
    sheet = load_table("demo", TABLES).build(several()[:1])
    assert "(no rows)" in printed(sheet) and "(no rows)" in to_markdown([sheet])


def script(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "scripts" / "tables.py"), *words], capture_output=True, text=True)


def test_the_script(tmp_path):
    for example in several():
        write_record(example, tmp_path)
    done = script("table=records", f"root={tmp_path}", "format=markdown")
    assert done.returncode == 0 and done.stdout == to_markdown(
        [load_table("records", TABLES).build(sorted(several(), key=lambda run: run.exp))]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rot=x"], "unknown argument 'rot=x'; the arguments are table=, scale=, root=, format="),
        (["all"], "unknown argument 'all'"),
        (["table=x"], "unknown table 'x'; the tables are all, coded, compression, demo"),
        (["format=pdf"], "unknown format 'pdf'; the formats are terminal, markdown, latex, csv"),
        (["scale=big"], "unknown scale 'big'; the scales are real, tiny, paper"),
        (["root=nowhere"], "there is no folder nowhere; make a first record there with: python scripts/run.py root="),
        (
            ["table=records", "root=conf"],
            "there is no record below conf; make a first one with: python scripts/run.py root=conf",
        ),
    ],
)
def test_the_scripts_messages_are_one_line(words, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = script(*words)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


def test_help_needs_no_library():
    code = f"""
import runpy, sys
sys.argv = ["tables.py", "--help"]
runpy.run_path({str(ROOT / "scripts" / "tables.py")!r}, run_name="__main__")
assert not {{"torch", "pandas", "rich", "hydra"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: python scripts/tables.py" in done.stdout, done.stderr


def test_the_card_of_a_users_own_model_does_not_name_a_language():
    first = several()[0]
    assert "language: en\n" in card(first, None, {}) and "language:" not in card(replace(first, scale="own"), None, {})


def test_the_model_card_compares_with_32_bits():
    baseline, run = record("tiny_wav2vec2_fp32", "full_precision", 32), record("x", "one_stage", 3.5, change=80)
    assert "WER % of 32 bits" not in card(baseline, None, {})
    (line,) = [line for line in card(run, None, {}).splitlines() if line.startswith(f"| {next(iter(run.wer))} |")]
    before = next(iter(baseline.wer.values())).wer
    assert f"| {before:.2f} | +1.00 | +0.60 to +1.40 | p < 0.001 |" in line


def test_the_model_card_counts_characters_where_the_record_does():
    first = several()[0]
    assert "CER" not in card(first, None, {})
    text = card(with_characters(first), None, {})
    assert "| set | WER % | errors | words | utterances | CER % | character errors | characters |" in text
    assert "| dev-clean | 5.00 | 400 | 8000 | 500 | 2.50 | 800 | 32000 |" in text


def test_coded_sizes_have_columns_of_their_own_if_any_file_is_coded():
    part = Part("Part", "runs", ("system", "packed_mb", "coded_mb", "packed_ratio", "coded_ratio"))
    runs = several()
    assert list(part.build(runs, SETS).frame.columns) == ["System", "Packed MB", "Packed ratio"]
    size = runs[1].size
    coded = replace(size, file_bytes=size.file_bytes // 2, file_ratio=2 * size.file_ratio, packed_bytes=size.file_bytes)
    frame = part.build([runs[0], replace(runs[1], size=coded), runs[2]], SETS).frame
    assert list(frame.columns) == ["System", "Packed MB", "Coded MB", "Packed ratio", "Coded ratio"]
    assert frame["Packed MB"][1] == size.file_bytes / 1e6 and frame["Coded MB"][1] == coded.file_bytes / 1e6
    assert frame["Packed ratio"][1] == pytest.approx(size.file_ratio, rel=1e-5)
    assert frame["Coded ratio"].tolist()[::2] == [None, None] and frame["Coded ratio"][1] == coded.file_ratio
