"""From content to an HTML file: Jinja's templates, which escape whatever comes from a record."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mpq.record.atomic import write_text
from mpq.report.markdown import is_numeric
from mpq.report.parts import Block

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    """Write `template` (a file of `templates/`) filled with `content` to `path`, in one step; return `path`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,  # a missing value is a defect, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["numeric"] = lambda values: is_numeric(tuple(values))
    environment.filters["meanings"] = _meanings
    write_text(path, environment.get_template(template).render(content))
    return path


def _meanings(blocks: Iterable[Block]) -> dict[str, str]:
    """Title and meaning of every column, each once."""
    return {column.title: column.meaning for block in blocks for column in block.columns}
