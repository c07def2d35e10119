"""Parses JSON into frozen dataclasses, validated by pydantic, with our own message about the first wrong field.

Strict except where JSON has no distinction: a list is accepted as a tuple, a whole number as a float. Fields that the
dataclass doesn't have are ignored: within one schema fields are only added, so an older reader can read a newer record.
"""

from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
STRICT = {"strict": True, "allow_inf_nan": False}
"""`__pydantic_config__` of a dataclass that is read from a file, and so of those nested in it."""


def parse(kind: type[T], text: str, where: str = "") -> T:
    """Read the JSON `text` as `kind`, dataclasses with the config `STRICT`; `where` is its place in the file.

    Raises ValueError that names the first field that is missing or of a wrong type.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"])
    place = (where + place).removeprefix(".") or "it"
    if first["type"] == "missing":
        raise ValueError(f"{place} is missing")
    rule = first["msg"]
    rule = f" must{rule.removeprefix('Input should')}" if rule.startswith("Input should") else f": {rule}"
    raise ValueError(f"{place}{rule}, but is {_show(first['input'])}")


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # here, as above: the record's types are also used where nothing is read

    return TypeAdapter(kind)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
