"""Writing files and folders whole or not at all.

A killed run must leave either no result or a whole one, so everything is written beside its place and then renamed
onto it, which a POSIX file system does in one step.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = ".partial"


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that is renamed onto `path` when the block ends well.

    The block may write a file or make a folder there. When it raises, the temporary is removed and `path` is as before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            _remove(path)  # a folder cannot be renamed onto a folder that is not empty
        temporary.replace(path)
    finally:
        _remove(temporary)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` (UTF-8) in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_partial(folder: Path | str) -> None:
    """Remove what killed processes left half-written in `folder`, which no other process may be writing to."""
    for path in Path(folder).glob(f".*{_PARTIAL}"):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
