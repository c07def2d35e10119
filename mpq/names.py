"""Names that become files, folders or names in other programs: checked before any work."""

import re
import shlex
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mpq.errors import UserError

_LONGEST = 200  # bytes of UTF-8: file systems allow 255, and we add endings
_TEXTS = ("root", "cache", "model.name", "model.path", "data.root", "data.train", "data.test", "logger.project")


def check_file_name(what: str, name: str, mend: str) -> None:
    """Raise UserError unless `name`, called `what` in the message, can be the name of one folder; `mend` is advice."""
    if not name or name.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        rule = "without slashes, backslashes, control characters or a leading '.'"
        raise UserError(f"{what} {name!r} must be a plain file name, {rule}: {mend}")
    if (size := len(name.encode(errors="replace"))) > _LONGEST:
        raise UserError(f"{what} {name!r} has {size} bytes, more than the {_LONGEST} that a file name may have: {mend}")


def check_texts(cfg: DictConfig) -> None:
    """Raise UserError if a name or path in `cfg` was read as a number, true or false; its spelling is lost by then."""
    for key in _TEXTS:
        value: Any = _unresolved(cfg, key)
        several = isinstance(value, ListConfig)
        for one in OmegaConf.to_container(value, resolve=False) if several else (value,):  # type: ignore[union-attr]
            if one is not None and not isinstance(one, str):
                quoted = shlex.quote(f'{key}=["{one}"]' if several else f'{key}="{one}"')
                raise UserError(f"{key} holds {one}, which is read as a {_kind(one)}, not as a name; write {quoted}")


def _unresolved(cfg: DictConfig, key: str) -> Any:
    """The value of a dotted key, an interpolation as its text; None where there is none."""
    *groups, leaf = key.split(".")
    for group in groups:
        cfg = cfg.get(group) or OmegaConf.create()
    node = cfg._get_node(leaf)
    return node if isinstance(node, ListConfig) else node._value() if node is not None else None  # type: ignore[union-attr]


def _kind(value: Any) -> str:
    return "truth value" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else "group"
