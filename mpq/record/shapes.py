"""Sizes computed from shapes alone, `paper_sizes.json`: bits and size of systems that have not been trained yet.

They are kept separate from the records of runs, so that a table can show what is certain about a full-size model (how
small it gets) next to "not run" for what only training can show.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mpq.errors import UserError
from mpq.files import write_text
from mpq.record.fields import STRICT, parse
from mpq.record.result import Bits, Size

FILE = "paper_sizes.json"


@dataclass(frozen=True)
class Shapes:
    """Bits and size of a system, as computed from the shapes of its model."""

    bits: Bits
    size: Size
    __pydantic_config__ = STRICT


def write_shapes(path: Path, shapes: Mapping[str, Shapes]) -> None:
    """Write the sizes, by run name, to `path`."""
    content = {exp: asdict(found) for exp, found in shapes.items()}
    for found in content.values():
        del found["size"]["packed_bytes"], found["size"]["target_megabytes"]  # it is the packed file
        del found["bits"]["coded"], found["bits"]["zeros"]  # which no shape tells
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_shapes(path: Path) -> dict[str, Shapes]:
    """Read what `write_shapes` wrote; nothing if there is no such file.

    Raises: UserError if the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        return parse(dict[str, Shapes], path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; make it again with python scripts/sizes.py") from error
