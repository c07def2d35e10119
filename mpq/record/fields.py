"""Plain JSON values -> frozen dataclasses, each field checked by its type hint.

Written here because a record must be refused with the name of its wrong field, and because a whole validation library
would be a dependency for forty lines. Fields that the dataclass doesn't know are passed over: within one schema the
record only ever grows, so an older reader can read a newer record.
"""

import math
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_NAMES = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", NoneType: "null"}


def build(kind: type[T], value: Any, where: str = "") -> T:
    """Build the dataclass `kind` from `value`, a JSON object read by `json`; `where` is its place in the file.

    Raises ValueError that names the first field that is missing or of a wrong type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'the record'} must be an object, but is {_show(value)}")
    hints = get_type_hints(kind)
    arguments = {}
    for field in fields(kind):  # pyright: ignore[reportArgumentType]  (every caller hands a dataclass)
        place = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            arguments[field.name] = _convert(hints[field.name], value[field.name], place)
        elif field.default is MISSING:
            raise ValueError(f"{place} is missing")
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return build(hint, value, where)  # pyright: ignore[reportArgumentType]
    if origin in (Union, UnionType):  # only `X | None` occurs
        inner = next(argument for argument in arguments if argument is not NoneType)
        return None if value is None else _convert(inner, value, where)
    if origin is Literal:
        return _expect(value in arguments, value, f"one of {', '.join(map(str, arguments))}", where)
    if origin is dict:
        _expect(isinstance(value, dict), value, "an object", where)
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple:
        return _tuple(arguments, value, where)
    if hint is float:
        good = type(value) in (int, float) and math.isfinite(value)
        return float(_expect(good, value, _NAMES[float], where))
    return _expect(type(value) is hint, value, _NAMES[hint], where)


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list), value, "a list", where)
    kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
    _expect(len(value) == len(kinds), value, f"a list of {len(kinds)}", where)
    return tuple(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _expect(good: bool, value: Any, rule: str, where: str) -> Any:
    if not good:
        raise ValueError(f"{where} must be {rule}, but is {_show(value)}")
    return value


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
