"""Tables in Markdown, as GitHub shows them.

Not pandas' `to_markdown`: it needs another package, `tabulate`, and pads the cells, so that one new number changes
every line of a file under version control.
"""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[bool] = ()) -> str:
    """Return the lines of a table, without a newline after the last; `right`: which first columns are aligned so."""
    rules = ["---:" if one else "---" for one in right] + ["---"] * (len(heads) - len(right))
    lines = [map(_escape, heads), rules, *(map(_escape, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(cell: object) -> str:
    return str(cell).replace("|", r"\|").replace("\n", " ")
