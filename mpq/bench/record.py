"""The output of a bench: one JSON file with its rows and their provenance, and one readable page for all files."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mpq.errors import UserError
from mpq.files import write_text
from mpq.markdown import table
from mpq.record import provenance

SCHEMA = 1
_PEERS = ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "torchao", "optimum-quanto", "brevitas")
_PEERS += ("ctranslate2", "pywhispercpp")
# Options with local paths, which a published record must not contain.
_FOLDERS = ("output", "cache", "files", "root", "folder", "trained", "sized")
_NO_DATA = provenance.Data("random", "")


def write(bench: str, options: Any, rows: Sequence[Mapping[str, Any]], name: str) -> Path:
    """Write `<options.output>/<name>.json` and the page `README.md` beside it; return the JSON's path.

    Raises:
        UserError: another file in the folder is not a record of a bench.
    """
    found = asdict(provenance.collect(_NO_DATA))
    record = {
        "schema": SCHEMA,
        "bench": bench,
        "options": {key: value for key, value in asdict(options).items() if key not in _FOLDERS},
        "rows": list(rows),
        **{key: found[key] for key in ("commit", "dirty", "command", "hardware")},
        "versions": found["versions"] | _versions(),
        "load": os.getloadavg()[-1] if hasattr(os, "getloadavg") else None,  # of the last 15 minutes
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = Path(options.output) / f"{name}.json"
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_page(path.parent)
    return path


def name(bench: str, options: Any) -> str:
    """Return the name of a record: the bench and, if it has them, the model and the label."""
    parts = [bench, getattr(options, "model", ""), getattr(options, "label", "")]
    return "_".join(part for part in parts if part)


def read(path: Path) -> dict[str, Any]:
    """Return a record.

    Raises:
        UserError: the file is not JSON, or not a record of a bench.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is broken ({error}): remove it and run its bench again") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or "rows" not in record:
        raise UserError(f"{path} is not a record of a bench (schema {SCHEMA}): move it out of this folder")
    return record


def write_page(folder: Path) -> None:
    """Write `README.md` with a table for every record in `folder`."""
    records = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    write_text(folder / "README.md", page(records))


def _versions() -> dict[str, str]:
    found = {}
    for name in _PEERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


_INTRODUCTION = """# Benches

Made by `scripts/bench.py`, which rewrites this page from the JSON files beside it. Where times are compared, all
systems ran in turn in one process, in a new order each round. A ratio is the time divided by that of the reference in
the same round (below 1 is faster): the median, with the quartiles in brackets. Memory is that of a fresh process which
does nothing else, including its libraries. The models of true dimensions have random weights, which affects neither
time nor size; a Whisper has its own weights, since its text decides how long it takes.
"""


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown page for `records`, which are by name."""
    return "\n".join([_INTRODUCTION, *(section(name, record) for name, record in records.items())])


def section(name: str, record: Mapping[str, Any]) -> str:
    """Return one record's part of the page."""
    hardware = record["hardware"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_bytes'] / 1e9:.0f} GB"
    machine += "".join(f", {gpu}" for gpu in hardware["gpus"])
    if record.get("load") is not None:
        machine += f" at a load of {record['load']:.1f} (its own and other work, 15-minute average)"
    commit = f"{(record['commit'] or 'no commit')[:7]}{' with local changes' if record['dirty'] else ''}"
    versions = ", ".join(f"{key} {value}" for key, value in record["versions"].items() if key in _named(record))
    good = [row for row in record["rows"] if "problem" not in row]
    bad = [f"- {row['system']}: {row['problem']}" for row in record["rows"] if "problem" in row]
    lines = [
        f"## {name}",
        "",
        f"`{record['command']}` · {record['date'][:10]} · commit {commit} · {machine} · {versions}",
    ]
    lines += ["", _table([_cells(row) for row in good])]
    lines += ["", f"Corrected: {record['corrected']}."] if "corrected" in record else []
    return "\n".join([*lines, "", *(["Not run:", "", *bad, ""] if bad else [])])


def _named(record: Mapping[str, Any]) -> set[str]:
    """The libraries whose versions the page shows."""
    others = {"onnxruntime", "openvino", "nncf", "transformers", "ctranslate2", "pywhispercpp"}
    return {"python", "torch"} | (others & set(record["versions"]))


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """One row's cells by column; nested figures become columns of their own."""
    cells = {}
    for key, value in row.items():
        if isinstance(value, Mapping) and set(value) == {"median", "low", "high"}:
            unit = 1000 if key == "seconds" else 1
            name = "ms" if key == "seconds" else key.replace("_", " ")
            cells[name] = f"{value['median'] * unit:.3g} ({value['low'] * unit:.3g}–{value['high'] * unit:.3g})"
        elif isinstance(value, Mapping):
            cells |= _cells(value)
        else:
            name, shown = _cell(key, value)
            cells[name] = shown
    return cells


def _cell(key: str, value: Any) -> tuple[str, str]:
    if value is None:
        return key.removesuffix("_bytes").replace("_", " "), ""
    if key.endswith("_bytes"):
        return f"{key.removesuffix('_bytes')} MB".replace("_", " "), f"{value / 1e6:.4g}"
    if isinstance(value, float):
        return key.replace("_", " "), f"{value:.3g}"
    return key.replace("_", " "), str(value)


def _table(rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return table(columns, [[row.get(column, "") for column in columns] for row in rows])
