"""Regenerates the tracked tables and figures of all records, and the generated blocks of `experiments/README.md`.

The README shows the paper's claims and, for each scale, the rows that carry them; `tables/<scale>.*` have every row,
what is told set by set or seed by seed, and the commands of what was not run.
Only the text between two marks is replaced; the rest of the README stays. The same records give the same bytes, so any
diff in git comes from a change of records or code.
"""

from dataclasses import replace
from pathlib import Path

from mpq import conf
from mpq.errors import UserError
from mpq.files import write_text
from mpq.record.run_folder import check_root, readable, run_folders
from mpq.report.figures.gallery import Picture, pictures
from mpq.report.figures.style import save
from mpq.report.tables import equal_bits
from mpq.report.tables.claims import claims_sheet
from mpq.report.tables.formats import to_csv, to_latex, to_markdown
from mpq.report.tables.show import build_sheets
from mpq.report.tables.system import SCALES, load_systems, models_of
from mpq.report.tables.tables import Sheet, load_table
from mpq.report.tables.updates import TABLE, updates_sheet

EQUAL_BITS = "equal_bits"

_FORMATS = {"md": lambda sheets: f"# Every row\n\n{to_markdown(sheets, level=2)}", "tex": to_latex, "csv": to_csv}


def write_overview(root: Path | str) -> list[Path]:
    """Write `<root>/tables.md` (every run), `tables/<scale>.*`, `figures/` and the blocks of `<root>/README.md`.

    Raises: UserError if a record can't be read, or the README's marks are damaged.
    """
    root = Path(root)
    check_root(root)
    paths, readme = [_every_run(root)], root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else "# Experiments\n"
    text = replace_block(text, "claims", to_markdown([claims_sheet(root)]), readme)
    for scale in (scale for scale in SCALES if models_of(scale)):
        sheets, drawn = build_sheets("all", conf.folder("table"), root, scale), pictures(scale, root)
        fewer, against = updates_sheet(scale, root), _equal_bits(scale, root)
        sheets += [sheet for sheet in (fewer, against) if sheet]
        for ending, write in _FORMATS.items():
            paths.append(root / "tables" / f"{scale}.{ending}")
            write_text(paths[-1], write(sheets))
        for picture in drawn:
            paths += save(picture.draw, root / "figures", picture.name)
        shown = [_embedded(picture) for picture in drawn if picture.headline]
        text = replace_block(text, scale, "\n".join([_claims(scale, root), *shown]), readme)
        if fewer:
            shown = [_embedded(picture) for picture in drawn if picture.name.endswith(f"_{TABLE}")]
            text = replace_block(text, f"{TABLE} {scale}", "\n".join([to_markdown([_open(fewer)]), *shown]), readme)
        if against:
            text = replace_block(text, f"{EQUAL_BITS} {scale}", to_markdown([_open(against)]), readme)
    write_text(readme, text)
    return [*paths, readme]


def replace_block(text: str, name: str, content: str, path: Path) -> str:
    """Return `text` with `content` between the marks of `name`; if there are no marks, both are appended.

    Raises: UserError if the text of `path` has only one of the two marks.
    """
    begin, end = f"<!-- {name}: made by scripts/overview.py -->\n", f"<!-- end of {name} -->\n"
    if begin not in text and end not in text:
        text += f"\n{begin}{end}"
    head, _, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not closed:
        raise UserError(f"{path} must hold the line {begin.strip()} and after it {end.strip()}, or neither")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def _claims(scale: str, root: Path) -> str:
    """The tables of `scale`, reduced to the claims; a sentence that they share appears only once.

    A model that has no run appears in the first table alone, whose sizes follow from shapes.
    """
    said: set[str] = set()
    sheets = []
    run = {one.model for model in models_of(scale) for one in load_systems("compression", model, root) if one.runs}
    for sheet in build_sheets("all", conf.folder("table"), root, scale, claims=True):
        blocks = tuple(block for block in _open(sheet).blocks if block.model in run or not sheets)
        if blocks:
            sheets.append(replace(sheet, blocks=blocks, caption=tuple(s for s in sheet.caption if s not in said)))
            said |= set(sheet.caption)
    more = (
        f"Only the rows that carry the claims are shown here; [tables/{scale}.md](tables/{scale}.md) has every row, "
        "every set, and the commands of what was not run.\n"
    )
    return f"{more}\n{to_markdown(sheets)}"


def _equal_bits(scale: str, root: Path) -> Sheet | None:
    """The recorded systems of equal bits against each other; None where no two were run."""
    for sheet in build_sheets(EQUAL_BITS, conf.folder("table"), root, scale, planned=False):
        compared = {block.model for block in sheet.blocks if equal_bits.difference in block.columns}
        if compared:
            return replace(sheet, blocks=tuple(block for block in sheet.blocks if block.model in compared))
    return None


def _open(sheet: Sheet) -> Sheet:
    """`sheet` without its folded parts."""
    return replace(sheet, blocks=tuple(block for block in sheet.blocks if not block.folded))


def _every_run(root: Path) -> Path:
    """Every tracked record, one row each: those in the folders of runs, not others below `root`."""
    records = readable(run_folders(root))
    write_text(root / "tables.md", to_markdown([load_table("records", conf.folder("table")).build(records)]))
    return root / "tables.md"


def _embedded(picture: Picture) -> str:
    return f"![{picture.shows}](figures/{picture.name}.png)\n"
