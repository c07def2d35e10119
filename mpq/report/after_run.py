"""What `scripts/run.py` prints about a finished run: its table, a map of its precisions, its files, a next command."""

from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig
from rich import box
from rich.table import Table

from mpq import conf
from mpq.commands import script
from mpq.data.audio import SUFFIXES
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder
from mpq.report.figures.bit_map import is_mixed, place, projections, rows
from mpq.report.page.run_page import up_to_date_page
from mpq.report.tables.show import show_run
from mpq.report.tables.terminal import terminal
from mpq.search.assignment import Assignment, from_json

_SHADES = ("on grey93 black", "on light_steel_blue1 black", "on sky_blue2 black", "on blue white")
"""Styles for at most 2, 4, 6 and 8 bits: the more bits, the darker, as in the pictures."""


def show(result: Result, cfg: DictConfig) -> None:
    """Print everything about the finished run of a settled config, and write its page."""
    folder = RunFolder.of(cfg.root, result)
    show_run(result, cfg.root, conf.folder("table"))
    bits = from_json(folder.bits) if folder.bits.is_file() else {}
    if is_mixed(bits):
        print()
        terminal().print(bit_map(bits))
    print(f"\nrecord      {folder.result}\nhypotheses  {folder.hypotheses}\nmodel       {folder.model}")
    with suppress(OSError):  # a finished run can be shown from a read-only folder too
        print(f"page        {up_to_date_page(folder.path)}  (tables, pictures, transcripts: open it in a browser)")
    if folder.model.is_dir():
        print(f"\nNow: {_next(folder, cfg)}")


def bit_map(bits: Assignment) -> Table:
    """The bits of each searched weight, layer by projection."""
    columns = projections(bits)
    table = Table(title="Bits of each searched weight", title_style="italic", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("layer", *columns):
        table.add_column(name, justify="right")
    cells = {place(site): value for site, value in bits.items()}
    for row, label in rows(bits).items():
        table.add_row(label, *(_cell(cells.get((row, name))) for name in columns))
    return table


def _cell(bits: int | None) -> str:
    return "" if bits is None else f"[{_SHADES[(bits - 1) // 2]}] {bits} [/]"


def _next(folder: RunFolder, cfg: DictConfig) -> str:
    """The command that uses the model: on a recording of its own evaluation data, if one is found."""
    corpora = [Path(cfg.data.root)] if cfg.data.root else Path(cfg.cache).glob("synthetic-*")
    files = (path for root in corpora for path in sorted((root / cfg.data.test[-1]).glob("*/*/*")))
    audio = next((path for path in files if path.suffix.lower() in SUFFIXES), None)
    return script("transcribe", str(audio or "RECORDING.wav"), f"model={folder.model}")
