"""The paper's three tables from an invented tree of records, in every format."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from example_tree import MODEL, write_tree
from rich.console import Console

from mpq.errors import UserError
from mpq.report.tables.formats import escape, to_csv, to_latex, to_markdown
from mpq.report.tables.planned import planned
from mpq.report.tables.show import build_sheets
from mpq.report.tables.tables import Sheet, SystemTable
from mpq.report.tables.terminal import print_sheets

RECORDED = ("full_precision", "fine_tuned", "uniform", "two_stage_gumbel", "one_stage")
TABLES = Path(__file__).resolve().parents[2] / "conf" / "table"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder, *RECORDED)
    return folder


@pytest.fixture(scope="module")
def sheets(root) -> list[Sheet]:
    return build_sheets("all", TABLES, root, "tiny")


def test_every_planned_system_has_a_row_run_or_not(sheets):
    plan = planned("compression", MODEL)
    systems, absent = len({row.exp for row in plan}), len({row.exp for row in plan if row.recipe not in RECORDED})
    first, second, third = sheets
    for block, count in ((first.blocks[0], systems), (third.blocks[0], systems - 1)):
        assert block.model == MODEL and len(block.frame) == count
    shown = first.blocks[0].frame
    assert (shown["Seeds"] == "not run").sum() == absent > 5
    assert shown["WER % test-other"][shown["Seeds"] == "not run"].eq("not run").all()
    pooled = second.blocks[0].frame.set_index("System")
    assert len(pooled) == systems - 1 and set(pooled["Verdict"]) <= {"no worse", "worse", "undecided", "not run"}
    assert pooled.loc["32 bits, fine-tuned", "Seeds"] == "3 of 3"
    assert pooled["At 1, 3, 5 %"].drop(pooled.index[pooled["Verdict"] == "not run"]).str.count(",").eq(2).all()
    per_set = second.blocks[1].frame
    assert (per_set["System"] == "one-stage, 3.5 bits").sum() == 4
    assert (per_set["System"] == "GPTQ, 4 bits").sum() == 1  # what was not run keeps a row, but none a set
    missing = first.blocks[1].frame
    assert len(missing) == absent and missing["Command"].str.startswith("python scripts/run.py").all()


def test_the_other_model_has_its_rows_too(sheets):
    block = next(block for block in sheets[0].blocks if block.model == "tiny_hubert")
    assert block.frame["Seeds"].eq("not run").all()
    assert [name for name in block.frame if name.startswith("WER")][-1] == "WER % test-other"


def test_the_caption_defines_the_verdict(sheets):
    caption = " ".join(sheets[1].caption)
    for words in ("3 % of the baseline's WER", "“undecided”", "highest Z", "80 %", "no counterpart", "1, 3, 5 %"):
        assert words in caption
    assert "undecided" not in " ".join(sheets[2].caption) and "setting" in " ".join(sheets[2].caption)


def test_the_paper_stands_beside_ours_only_at_its_own_scale(root):
    text = to_markdown(build_sheets("all", TABLES, root, "paper"))
    assert re.search(r"\| one-stage, 3.5 bits \| not run \|.*\| 8\.6 \|", text)
    assert text.count("| 8.6 |") == 1 and text.count("up to 1.7 |") == 2 and "up to 1.5" in text
    assert "no counterpart" not in text


def test_the_csv_reads_back_unrounded(sheets):
    frame = pd.read_csv(io.StringIO(to_csv(sheets)), na_values=["not run", "none"])
    sizes = frame[(frame.part == "Compression ratio and word error rate") & (frame.model == MODEL)]
    row = sizes[sizes.System == "one-stage, 3.5 bits"].iloc[0]
    block = sheets[0].blocks[0].frame
    spread = block[block["System"] == "one-stage, 3.5 bits"]["WER % dev-clean"].iloc[0]
    assert row["WER % dev-clean"] == spread.mean and row["WER % dev-clean sd"] == spread.deviation
    changes = frame[frame.part == "Word error rate of each set against 32 bits"]
    assert (changes["95 % interval high"].dropna() >= changes["95 % interval low"].dropna()).all()
    assert changes["Up to"].notna().sum() == 4 * len(changes[changes["Set"] == "dev-clean"])
    assert len({len(line) for line in csv.reader(io.StringIO(to_csv(sheets)))}) == 1


def test_latex_escapes_what_would_not_print():
    assert escape("a_b & 5 % ±1 <2 --x “y” {z}") == r"a\_b \& 5 \% $\pm$1 $<$2 -{}-x ``y'' \{z\}"


def test_latex_has_whole_tables(sheets, tmp_path):
    text = to_latex(sheets)
    for word in ("table", "tabular", "small"):
        assert text.count(f"\\begin{{{word}}}") == text.count(f"\\end{{{word}}}") > 0
    for body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n\\toprule\n(.*?)\\bottomrule", text, flags=re.DOTALL):
        rows = [line for line in body[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(body[0]) - 1}
    assert not set(re.sub(r"[“”]", "", text)) & set("±–“”↓↑")
    if shutil.which("pdflatex"):
        (tmp_path / "tables.tex").write_text(text)
        page = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{tables}\end{document}"
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", page]
        assert subprocess.run(words, cwd=tmp_path, capture_output=True).returncode == 0


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_wide_table_is_cut_between_columns_not_letters(sheets, width):
    stream = io.StringIO()
    print_sheets(sheets[:1], Console(file=stream, width=width))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert text.count("one-stage, 3.5 bits ") >= (2 if width < 200 else 1)
    assert "no worse" in text and "undecided" in text


def test_markdown_folds_the_long_parts(sheets):
    text = to_markdown(sheets)
    assert text.count("<details>") == text.count("</details>") == 4 + 2 - 2
    assert "### Table 3: compression time (scale tiny)" in text


def test_a_table_without_parts_is_refused():
    with pytest.raises(UserError, match="the table x needs title, systems and parts"):
        SystemTable.from_dict("x", {"title": "t", "systems": "compression"})
