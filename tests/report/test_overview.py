"""The tracked tables and pictures: what is written, what a person wrote stays, the same records give the same bytes."""

from pathlib import Path

import pytest
from example_records import record, write_record
from example_tree import MODEL, write_tree

from mpq.errors import UserError
from mpq.report import overview
from mpq.report.figures import bit_map
from mpq.report.figures.gallery import Picture
from mpq.report.overview import replace_block, write_overview

BITS = {f"m.encoder.layers.{i}.attention.q_proj.weight": 2 + 2 * i for i in range(2)}


def one_picture(scale: str, root: Path) -> list[Picture]:
    """In place of all of them, whose drawing takes long and has its own tests."""
    return [Picture("a_map", "a map", lambda: bit_map.draw("m", {"x": {0: BITS}}))] if scale == "tiny" else []


def contents(root: Path) -> dict[str, bytes]:
    made = [*root.glob("*.md"), *(root / "tables").iterdir(), *(root / "figures").iterdir()]
    return {path.name: path.read_bytes() for path in made}


def test_the_same_records_give_the_same_bytes_and_prose_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(overview, "pictures", one_picture)
    write_tree(tmp_path, "full_precision", "one_stage")
    write_record(record(f"{MODEL}_uniform_4bit", "uniform", 4, change=3), tmp_path / "local")
    readme = tmp_path / "README.md"
    marks = "<!-- tiny: made by scripts/overview.py -->\nold\n<!-- end of tiny -->\n"
    readme.write_text(f"# Mine\n\nbefore\n\n{marks}\nafter\n")
    paths = write_overview(tmp_path)
    first = contents(tmp_path)
    assert {path.name for path in paths} == set(first)
    assert set(first) >= {
        "README.md",
        "tables.md",
        "tiny.md",
        "tiny.tex",
        "tiny.csv",
        "paper.md",
        "a_map.png",
        "a_map.svg",
    }
    text = readme.read_text()
    assert text.startswith("# Mine\n\nbefore\n") and "\nafter\n" in text and "old" not in text
    assert "### The paper's claims" in text
    tiny = text.partition("<!-- tiny: ")[2].partition("<!-- end of tiny")[0]
    assert tiny.count("*Data: ") == 1  # said in each of the three tables
    assert "| one-stage, 3 bits |" not in text and b"| one-stage, 3 bits |" in first["tiny.md"]  # carries no claim
    assert "<details>" not in text and b"<details>" in first["tiny.md"] and b"--multirun" in first["tiny.md"]
    paper = text.partition("<!-- paper: ")[2]  # without a run: sizes alone
    assert paper.count("### Table") == 1 and first["paper.md"].count(b"## Table") == 3
    assert "| one-stage, 3.5 bits | 3 of 3 |" in text and "![a map](figures/a_map.png)" in text
    assert text.index("Table 1: compression ratio (scale tiny)") < text.index("after") < text.index("(scale paper)")
    assert b"local" not in first["tables.md"] and first["tables.md"].count(b"uniform_4bit") == 0
    write_overview(tmp_path)
    assert contents(tmp_path) == first


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        write_overview(tmp_path / "experimnets")
    assert not list(tmp_path.iterdir())


def test_a_readme_with_one_mark_is_refused(tmp_path):
    begin = "<!-- tiny: made by scripts/overview.py -->\n"
    for text in (begin, "<!-- end of tiny -->\n", "<!-- end of tiny -->\n" + begin):
        with pytest.raises(UserError, match="must hold the line <!-- tiny: made by"):
            replace_block(text, "tiny", "new", tmp_path / "README.md")
    assert replace_block("x\n", "tiny", "new", tmp_path) == f"x\n\n{begin}\nnew\n<!-- end of tiny -->\n"
