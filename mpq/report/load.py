"""The tables of `conf/table/`, by name: of records (`rows`: patterns of run names), of systems, or several at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mpq.errors import UserError
from mpq.report.system_table import SystemTable
from mpq.report.table import Table


def load_tables(name: str, folder: Path) -> list[Table | SystemTable]:
    """Read `<folder>/<name>.yaml` and, where it only names others (`tables`), those; as `load_table` raises."""
    values = _read(name, folder)
    if "tables" in values:
        return [table for other in values["tables"] for table in load_tables(other, folder)]
    return [SystemTable.from_dict(name, values) if "systems" in values else Table.from_dict(values)]


def load_table(name: str, folder: Path) -> Table:
    """Read a table of records; raises UserError for an unknown one, listing those there are."""
    return Table.from_dict(_read(name, folder))


def _read(name: str, folder: Path) -> Mapping[str, Any]:
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise UserError(f"unknown table {name!r}; the tables are {', '.join(names)}")
    return yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
