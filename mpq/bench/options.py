"""The words `key=value` of a bench, read by the type of each default."""

import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from mpq.errors import UserError

Options = TypeVar("Options")


def read(kind: type[Options], words: Sequence[str]) -> Options:
    """Return the options of the dataclass `kind` with the values in `words`; tuples are written `5,20`.

    Raises:
        UserError: a word that is no `key=value`, an unknown key, or a value of another type than the default's.
    """
    defaults: dict[str, Any] = {field.name: field.default for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    chosen = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in defaults:
            known = ", ".join(f"{name}={_written(default)}" for name, default in defaults.items())
            raise UserError(f"unknown argument {word!r}; the arguments and their defaults are {known}")
        chosen[key] = _parse(word, value, defaults[key])
    return kind(**chosen)


def describe(kind: type[Any]) -> str:
    """Return the arguments of a bench with their defaults, and what they mean."""
    defaults = "\n".join(f"  {field.name}={_written(field.default)}" for field in fields(kind))
    return f"{defaults}\n\n{inspect.getdoc(kind)}"


def _parse(word: str, value: str, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(_parse(word, part, default[0]) for part in value.split(","))
    try:
        parsed = type(default)(value)
    except ValueError:
        parsed = None
    if parsed is None or (not isinstance(parsed, str) and not parsed >= 0):
        raise UserError(f"{word} can't be read: it must be like {word.partition('=')[0]}={_written(default)}")
    return parsed


def _written(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
