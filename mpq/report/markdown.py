"""A sheet as Markdown (GitHub's tables)."""

from mpq.report.table import Block, Sheet


def to_markdown(sheet: Sheet) -> str:
    """Return the whole sheet; every row is complete, so that a line can be read or searched by itself."""
    parts = [f"### {sheet.title}", *map(_block, sheet.blocks), *(f"*{line}*" for line in sheet.caption)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    cells = block.cells()
    if not cells:
        return f"**{block.title}**\n\n(no rows)"
    rows = [[column.header for column in block.columns], [_rule(values) for values in zip(*cells, strict=True)], *cells]
    return f"**{block.title}**\n\n" + "\n".join(f"| {' | '.join(map(_escape, row))} |" for row in rows)


def _rule(values: tuple[str, ...]) -> str:
    return "---:" if is_numeric(values) else "---"


def _escape(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def is_numeric(values: tuple[str, ...]) -> bool:
    """Say whether a column of cells is to be aligned to the right: every cell looks like a number or is empty."""
    return all(not any(letter.isalpha() for letter in value) for value in values)
