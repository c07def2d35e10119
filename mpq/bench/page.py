"""The readable page over the records of benches: one table each, under the command and machine that made it."""

from collections.abc import Mapping
from typing import Any

_INTRODUCTION = """# Benches

Made by `scripts/bench.py`, which rewrites this page from the JSON files beside it. Where times are compared, all
systems ran in turn in one process, in a new order each round; a ratio is the time as a multiple of the reference's in
the same round (below 1 is faster): median, and the quartiles in brackets. Memory is that of a fresh process which does
nothing else, its libraries included. Weights of the models of true dimensions are random, which changes no time and no
size.
"""


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page in Markdown for `records`, by name."""
    return "\n".join([_INTRODUCTION, *(section(name, record) for name, record in records.items())])


def section(name: str, record: Mapping[str, Any]) -> str:
    """Return one record's part of the page."""
    hardware = record["hardware"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_bytes'] / 1e9:.0f} GB"
    machine += "".join(f", {gpu}" for gpu in hardware["gpus"])
    if record.get("load") is not None:
        machine += f" under a load of {record['load']:.1f} (its own work and others', mean of 15 minutes)"
    commit = f"{(record['commit'] or 'no commit')[:7]}{' with local changes' if record['dirty'] else ''}"
    versions = ", ".join(f"{key} {value}" for key, value in record["versions"].items() if key in _named(record))
    good = [row for row in record["rows"] if "problem" not in row]
    bad = [f"- {row['system']}: {row['problem']}" for row in record["rows"] if "problem" in row]
    lines = [
        f"## {name}",
        "",
        f"`{record['command']}` · {record['date'][:10]} · commit {commit} · {machine} · {versions}",
    ]
    lines += ["", *_table([_cells(row) for row in good])]
    lines += ["", f"Corrected: {record['corrected']}."] if "corrected" in record else []
    return "\n".join([*lines, "", *(["Not run:", "", *bad, ""] if bad else [])])


def _named(record: Mapping[str, Any]) -> set[str]:
    """The libraries whose versions matter to a bench."""
    return {"python", "torch"} | ({"onnxruntime", "openvino", "nncf", "transformers"} & set(record["versions"]))


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


def _table(rows: list[dict[str, str]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
