"""The tables of `conf/table/`: of records (one row per run), of systems (the paper's three), or several at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from mpq.errors import UserError
from mpq.record.result import Result
from mpq.report.tables.captions import caption, system_caption
from mpq.report.tables.parts import Block, Part
from mpq.report.tables.system import System, load_systems, models_of, sets_of
from mpq.report.tables.system_columns import NOT_RUN, command


@dataclass(frozen=True)
class Sheet:
    """A finished table: its parts and the sentences below it."""

    title: str
    blocks: tuple[Block, ...]
    caption: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of records: `rows` are patterns of run names in display order (`*` matches every run)."""

    title: str
    rows: tuple[str, ...]
    parts: tuple[Part, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Table":
        """Make it from the plain values of `conf/table/<name>.yaml`; raises UserError for a missing or unknown key."""
        try:
            return cls(values["title"], tuple(values["rows"]), parts_of(values))
        except (KeyError, TypeError) as error:
            raise UserError(f"a table needs title, rows and parts of title, rows and columns: {error}") from error

    def build(self, records: Sequence[Result]) -> Sheet:
        """Choose the records and build each part; a row that has no record is named in the caption."""
        chosen: dict[int, Result] = {}  # by position, so that a run that matches two patterns is shown once
        for pattern in self.rows:
            chosen |= {i: r for i, r in enumerate(records) if fnmatchcase(r.exp, pattern)}
        missing = [row for row in self.rows if "*" not in row and row not in {record.exp for record in records}]
        shown = list(chosen.values())
        sets = list(dict.fromkeys(name for record in shown for name in record.wer))
        return Sheet(self.title, tuple(part.build(shown, sets) for part in self.parts), caption(shown, missing))


def parts_of(values: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts that `conf/table/<name>.yaml` lists."""
    return tuple(Part(part["title"], part["rows"], tuple(part["columns"])) for part in values["parts"])


def beside_baseline(result: Result, records: Sequence[Result]) -> list[Result]:
    """Return the runs of `records` that `result` was compared with, then `result`: the rows to show at its end."""
    compared = [test.baseline for test in (result.significance or {}).values()]
    wanted = {(baseline.exp, baseline.seed) for baseline in compared}
    found = {(record.exp, record.seed): record for record in records if (record.exp, record.seed) in wanted}
    return [*found.values(), result]


_OF_SYSTEMS = {"systems", "compared", "compared_per_set", "missing", "time_factors"}  # the rest needs all of them


@dataclass(frozen=True)
class SystemTable:
    """A table of systems: each of its parts once per model of a scale."""

    name: str
    title: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> "SystemTable":
        """Make it from the plain values of `conf/table/<name>.yaml`; raises UserError for a missing or unknown key."""
        try:
            return cls(name, values["title"], parts_of(values), tuple(values.get("notes", ())))
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the table {name} needs title, systems and parts of title, rows and columns: {error}"
            ) from error

    def build(self, scale: str, root: Path | str, claims: bool = False, planned: bool = True) -> Sheet:
        """Read the records below `root` of every model of `scale`.

        `claims` reduces the parts that list systems to those that carry the paper's claims; values computed from all
        systems, such as a method's largest lossless ratio, stay the same. `planned`: whether rows that lack a record
        are shown, too.

        Raises: UserError for an unknown scale, one without models, or a record that can't be read.
        """
        systems = {model: load_systems(self.name, model, root) for model in models_of(scale)}
        blocks = [block for model, found in systems.items() for block in self._blocks(model, found, claims)]
        every = [system for found in systems.values() for system in found if planned or system.runs]
        blocks = blocks if planned else [one for one in map(_recorded, blocks) if len(one.frame)]
        judged = any("verdict" in column for part in self.parts for column in part.columns)
        notes = (*self.notes, *system_caption(every, scale, judged))
        return Sheet(f"{self.title} (scale {scale})", tuple(blocks), notes)

    def _blocks(self, model: str, systems: Sequence[System], claims: bool) -> list[Block]:
        recorded = dict.fromkeys(name for system in systems for run in system.runs for name in run.wer)
        kept = carrying_claims(systems) if claims else systems
        blocks = [
            part.build(kept if part.rows in _OF_SYSTEMS else systems, list(recorded) or sets_of(model), model)
            for part in self.parts
        ]
        return [block for block in blocks if len(block.frame)]


def _recorded(block: Block) -> Block:
    """The block without the rows that lack a record; empty if it is the list of those."""
    frame = block.frame
    lacking = (frame == NOT_RUN).any(axis=1) | (command.title in frame.columns)
    return replace(block, frame=frame[~lacking])


def carrying_claims(systems: Sequence[System]) -> list[System]:
    """32 bits, and the systems with the most seeds, which in conf/table/compression.yaml are those of the claims."""
    most = max((len(system.seeds) for system in systems), default=0)
    return [system for system in systems if not system.is_compressed or len(system.seeds) == most]


def load_tables(name: str, folder: Path) -> list[Table | SystemTable]:
    """Read `<folder>/<name>.yaml`, or the tables that it lists (`tables`); raises as `load_table`."""
    values = _read(name, folder)
    if "tables" in values:
        return [table for other in values["tables"] for table in load_tables(other, folder)]
    return [SystemTable.from_dict(name, values) if "systems" in values else Table.from_dict(values)]


def load_table(name: str, folder: Path) -> Table:
    """Read a table of records; raises UserError for an unknown one, listing the valid names."""
    return Table.from_dict(_read(name, folder))


def _read(name: str, folder: Path) -> Mapping[str, Any]:
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise UserError(f"unknown table {name!r}; the tables are {', '.join(names)}")
    return yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
