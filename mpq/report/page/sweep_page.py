"""The page of a folder of records: the tables of one scale, figures, and links to the pages of the runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpq import conf
from mpq.errors import UserError
from mpq.progress import track
from mpq.record.result import Result
from mpq.record.run_folder import PAGE, RunFolder, first_run, load_records
from mpq.report.page.render import Picture, picture, write_page
from mpq.report.page.run_page import up_to_date_page
from mpq.report.tables.parts import Block, Part
from mpq.report.tables.show import build_sheets
from mpq.report.tables.system import SCALES, models_of
from mpq.report.tables.tables import Sheet

_RUNS = (
    "system",
    "recipe",
    "average_bits",
    "packed_mb",
    "coded_mb",
    "packed_ratio",
    "coded_ratio",
    "wer",
    "cer",
    "change",
    "change_interval",
    "verdict",
    "seconds",
)


@dataclass(frozen=True)
class Scale:
    """What is shown of one scale: the paper's tables and the pictures."""

    name: str
    sheets: Sequence[Sheet]
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Runs:
    """The runs of one model, with the address of each run's page relative to this one."""

    block: Block
    links: Sequence[str]


def write_sweep_page(root: Path | str) -> Path:
    """Write the page of every run `<root>/<exp>/seed<k>` and a page of all runs; return the path of the latter.

    Raises: UserError if there is no record, or one can't be read.
    """
    root = Path(root)
    found = [r for r in load_records(root) if RunFolder.of(root, r).result.is_file()]
    records = list({(record.exp, record.seed): record for record in found}.values())
    if not records:
        raise UserError(f"there is no record below {root}; make a first one with: {first_run(root)}")
    for record in track(records, "Writing the pages", "pages"):
        up_to_date_page(RunFolder.of(root, record).path)
    scales = [name for name in SCALES if {record.model for record in records} & set(models_of(name))]
    content = {
        "name": root.resolve().name,
        "records": records,
        "scales": [_scale(name, root) for name in scales],
        "runs": [_runs(records, model) for model in sorted({record.model for record in records})],
        "synthetic": sorted({record.provenance.data.name for record in records if record.provenance.data.synthetic}),
    }
    return write_page(root / PAGE, "sweep.html", content)


def _scale(name: str, root: Path) -> Scale:
    from mpq.report.figures.gallery import pictures  # here, since matplotlib takes a second

    drawn = [picture(one.draw, f"{one.shows}; the tables have the numbers.") for one in pictures(name, root)]
    return Scale(name, build_sheets("all", conf.folder("table"), root, name, planned=False), drawn)


def _runs(records: Sequence[Result], model: str) -> Runs:
    shown = [record for record in records if record.model == model]
    sets = list(dict.fromkeys(name for record in shown for name in record.wer))
    block = Part("runs recorded", "runs", _RUNS).build(shown, sets, model)
    return Runs(block, [RunFolder.of("", record).page.as_posix() for record in shown])
