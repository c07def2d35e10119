"""What the scripts share: options written `key=value`, and their help.

A script's options are a frozen dataclass whose field types and defaults say what can be given (`command`, `read`).
"""

import functools
import math
import os
import shutil
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from mpq.errors import UserError, unused
from mpq.guard import guarded

Options = TypeVar("Options")
_BOOLS = {"true": True, "false": False}


def option(default: Any, text: str, rule: str = "") -> Any:
    """A field for `key=value`; `text` describes it in the help. A default of None, "" or () is "not set".

    `rule`: what a value must be, in words, where its type says too little.
    """
    return field(default=default, metadata={"text": text, "rule": rule})


def required(text: str) -> Any:
    """A field for `key=value` that must be given."""
    return field(metadata={"text": text})


def positional(text: str) -> Any:
    """A field for words without a key: exactly one, or for a tuple one or more."""
    return field(metadata={"text": text, "role": "positional"})


def others(text: str) -> Any:
    """A field of type `tuple[str, ...]` for all words that no other field takes, unchanged."""
    return field(default=(), metadata={"text": text, "role": "others"})


def command(kind: type[Options]) -> Callable[[Callable[[Options], Any]], Callable[..., Any]]:
    """Make `main(options)` a script's main function: `guarded`, with its help, and called with words (sys.argv's)."""

    def decorate(main: Callable[[Options], Any]) -> Callable[..., Any]:
        @functools.wraps(main)
        def called(words: Sequence[str] | None = None) -> Any:
            words = sys.argv[1:] if words is None else words
            if asks_for_help(words):
                name = Path(main.__globals__["__file__"]).name
                return print(help_text(kind, main.__globals__["__doc__"], f"python scripts/{name}"))
            return main(read(kind, words))

        return guarded(called)

    return decorate


def asks_for_help(words: Iterable[str]) -> bool:
    """Whether one of the words is -h or --help."""
    return not {"-h", "--help"}.isdisjoint(words)


def read(kind: type[Options], words: Sequence[str]) -> Options:
    """Return the options of the dataclass `kind` that `words` set.

    A field's type is str, int, float, bool (true or false), Path, a Literal of strings, a tuple of these (a,b) or one
    of them | None; numbers are finite and at least 0. `--key value`, `--key=value` and, for a bool, `--key` mean
    `key=value`; hyphens in a key are read as underscores. A word with "=" whose key is unknown is a positional path
    only if it exists or has a "/" before the "=", as ./a=b.wav.

    Raises: UserError for an unknown word, a value of another type, or a required option that is missing.
    """
    keys = {one.name: one for one in _fields(kind) if _role(one) == "key"}
    place = next((one for one in _fields(kind) if _role(one) != "key"), None)
    chosen: dict[str, Any] = {}
    plain: list[str] = []
    queue = deque(words)
    while queue:
        word = queue.popleft()
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if name in keys and (equals or word.startswith("--")):
            chosen[name] = _parse(keys[name], value if equals else _following(keys[name], word, queue))
        elif place and _fits(place, word, len(plain)):
            plain.append(word)
        else:
            raise _unknown(word, keys, place)
    if place and plain:
        several = get_origin(place.type) is tuple
        inner = get_args(place.type)[0] if several else place.type
        found = [_convert(inner, word) for word in plain]
        chosen[place.name] = tuple(found) if several else found[0]
    if missing := [one for one in _fields(kind) if one.default is MISSING and one.name not in chosen]:
        names = [one.name for one in missing]
        near = [word for word in plain if get_close_matches(word.lstrip("-+").partition("=")[0], names)]
        textual = len(names) == 1 and _plain(missing[0].type) in (str, Path)
        bare = [word for word in plain if textual and "=" not in word and word[0] not in "-+"]
        instead = f", not {near[0]!r}" if near else f", as {names[0]}={bare[0]}" if bare else ""
        raise UserError(f"{' and '.join(map(_shown, missing))} must be given{instead}; --help says more")
    return kind(**chosen)


def tell_unused(chosen: Any, names: Iterable[str], why: str) -> None:
    """Warn about those of the options `names` that were given and have no effect in this call; `why` says so."""
    unused([one.name for one in _fields(chosen) if one.name in names and getattr(chosen, one.name) != one.default], why)


def help_text(kind: type[Any], about: str | None, usage: str) -> str:
    """The help of a script: the first paragraph of `about`, how to call it, the options of `kind`, the rest of `about`.

    `usage` is how the command line begins, as "python scripts/x.py".
    """
    first, _, rest = (about or "").strip().partition("\n\n")
    every = sorted(_fields(kind), key=lambda one: _role(one) == "others")
    words = [_shown(one) + ("..." if _role(one) == "key" else "") for one in every if one.default is MISSING]
    words += ["[key=value ...]", *(f"[{_shown(one)} ...]" for one in every if _role(one) == "others")]
    shown = [(_shown(one) + _written(one.default), _described(one)) for one in every]
    wide = min(max((len(left) for left, _ in shown), default=0), 32)
    across = max(60, min(shutil.get_terminal_size((120, 24)).columns, 120))
    lines = []
    for left, text in shown:
        indent = " " * (wide + 4)
        wrapped = textwrap.wrap(text, across, initial_indent=indent, subsequent_indent=indent) or [""]
        if len(left) <= wide:
            wrapped[0] = f"  {left:{wide}}  {wrapped[0].strip()}".rstrip()
        else:
            wrapped.insert(0, f"  {left}")
        lines += wrapped
    parts = [first, f"usage: {' '.join([usage, *words])}", "\n".join(lines), rest.strip()]
    return "\n\n".join(part for part in parts if part)


def _fields(kind: type[Any]) -> tuple[Field[Any], ...]:
    return fields(kind)


def _role(one: Field[Any]) -> str:
    return one.metadata.get("role", "key")


def _shown(one: Field[Any]) -> str:
    """Return the field's name on the command line: `model=`, AUDIO ..., or the words to choose from."""
    if _role(one) == "key":
        return f"{one.name}="
    if get_origin(one.type) is Literal:
        return "|".join(get_args(one.type))
    name = one.name.upper()
    return f"{name} ..." if _role(one) == "positional" and get_origin(one.type) is tuple else name


def _described(one: Field[Any]) -> str:
    kind, text = _plain(one.type), one.metadata.get("text", "")
    if _role(one) == "key" and one.default is MISSING:
        return f"{text} (required)"
    return f"{text} ({_rule(kind)})" if _role(one) == "key" and (kind is bool or get_origin(kind) is Literal) else text


def _following(one: Field[Any], word: str, queue: deque[str]) -> str:
    """The value of `--key value`, taken from the queue."""
    kind = _plain(one.type)
    if kind is bool:
        return queue.popleft() if queue and queue[0].lower() in _BOOLS else "true"
    if not queue or queue[0].startswith("--"):
        raise UserError(f"{word} has no value: write {one.name}=VALUE")
    values = [queue.popleft()]
    while get_origin(kind) is tuple and queue and "=" not in queue[0] and not queue[0].startswith("-"):
        values.append(queue.popleft())
    return ",".join(values)


def _fits(place: Field[Any], word: str, before: int) -> bool:
    """Whether a word without a known key can be one for `place`, after `before` others."""
    if _role(place) == "others":
        return True
    several = get_origin(place.type) is tuple
    kind = get_args(place.type)[0] if several else place.type
    if before and not several:
        return False
    if kind is Path and os.path.exists(word):
        return True
    if get_origin(kind) is Literal:
        return word in get_args(kind)
    key, equals, _ = word.partition("=")
    return bool(word) and not word.startswith("-") and (not equals or (kind is Path and "/" in key))


def _unknown(word: str, keys: Mapping[str, Field[Any]], place: Field[Any] | None) -> UserError:
    name = word.removeprefix("--").replace("-", "_")
    if name in keys:
        return UserError(f"{word!r} has no value: write {name}=VALUE")
    known, hint = [_shown(one) for one in keys.values()], ""
    if place:
        known.insert(0, _shown(place))
        is_path = get_origin(place.type) is not Literal and "=" in word and not word.startswith("-")
        hint = f"; a file of that name is written ./{word}" if is_path else ""
    return UserError(f"unknown argument {word!r}; the arguments are {', '.join(known)}{hint}")


def _parse(one: Field[Any], value: str) -> Any:
    if not value and one.default in (None, "", ()):
        return one.default
    try:
        return _convert(_plain(one.type), value)
    except (ValueError, KeyError):
        kind, default = _plain(one.type), _written(one.default)
        listed = kind is bool or get_origin(kind) is Literal
        such = f", such as {one.name}={default}" if default and not listed else ""
        endless = "; for no limit, write a large one, such as 1e9" if kind is float and _is_endless(value) else ""
        rule = one.metadata.get("rule") or _rule(kind)
        raise UserError(f"{one.name}={value} must be {rule}{such}{endless}") from None


def _is_endless(value: str) -> bool:
    return value.removeprefix("+").lower() in ("inf", "infinity")


def _plain(kind: Any) -> Any:
    """The type without its "| None"."""
    return get_args(kind)[0] if get_origin(kind) is UnionType else kind


def _convert(kind: Any, value: str) -> Any:
    """The value of `kind`; raises ValueError or KeyError where it is none."""
    if get_origin(kind) is tuple:
        inner, parts = get_args(kind), value.split(",")
        if inner[-1] is not Ellipsis and len(parts) != len(inner):
            raise ValueError
        return tuple(_convert(inner[0], part) for part in parts)
    if kind is bool:
        return _BOOLS[value.lower()]
    if not value or (get_origin(kind) is Literal and value not in get_args(kind)):
        raise ValueError
    if kind in (int, float):
        number = kind(value)
        if not 0 <= number < math.inf:
            raise ValueError
        return number
    # Not every shell expands a "~" after "=".
    expanded = os.path.expanduser(value) if value.startswith("~/") else value
    return Path(expanded) if kind is Path else expanded


def _rule(kind: Any) -> str:
    """What a value must be, in words."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        many = {int: "whole numbers of 0 or more", float: "numbers of 0 or more"}.get(inner[0], "names")
        return f"{'' if inner[-1] is Ellipsis else f'{len(inner)} '}{many} separated by commas"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    rules = {bool: "true or false", int: "a whole number of 0 or more", float: "a number of 0 or more"}
    return rules.get(kind, "a path" if kind is Path else "a name")


def _written(default: Any) -> str:
    """A default as it is written on the command line; empty where there is none."""
    if default is MISSING or default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(map(_written, default))
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if type(default) is float
        else f"{default}"
    )
