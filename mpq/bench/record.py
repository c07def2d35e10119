"""What a bench leaves: one JSON file with its rows and where they come from, and one readable page over all files."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mpq.errors import UserError
from mpq.record import provenance
from mpq.record.atomic import write_text

SCHEMA = 1
_PEERS = ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "torchao", "optimum-quanto", "brevitas")
_FOLDERS = ("output", "cache", "files", "root")  # options that tell of a place: no part of a published record
_NO_DATA = provenance.Data("random", "")


def write(bench: str, options: Any, rows: Sequence[Mapping[str, Any]], name: str) -> Path:
    """Write `<options.output>/<name>.json` and the page `README.md` beside it; return the JSON's path.

    Raises:
        UserError: another file of the folder is no record of a bench.
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
    """Return the name of a record: the bench and, where it has them, the model and the label."""
    parts = [bench, getattr(options, "model", ""), getattr(options, "label", "")]
    return "_".join(part for part in parts if part)


def read(path: Path) -> dict[str, Any]:
    """Return a record.

    Raises:
        UserError: it is no JSON, or no record of a bench.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is broken ({error}): remove it and run its bench again") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or "rows" not in record:
        raise UserError(f"{path} is no record of a bench (schema {SCHEMA}): move it out of this folder")
    return record


def write_page(folder: Path) -> None:
    """Write `README.md` with a table for every record in `folder`."""
    from mpq.bench.page import page

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
