"""Lists the files of a folder, with a message for everything that is left out."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

_SHOWN = 5
_log = logging.getLogger(__name__)
_told: set[str] = set()


def printable(path: Path | str) -> str:
    """Return the path with bytes that are not UTF-8 written in hex, so that it can be printed and stored in JSON."""
    return os.fsencode(path).decode(errors="backslashreplace")


def is_utf8(path: Path | str) -> bool:
    """Return whether the name can be printed and written to JSON."""
    return printable(path) == str(path)


def files_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Return all files below `folder`, sorted, and a message for each folder or file that can't be used.

    Links to folders are followed, except one to a folder that contains it. Hidden files are left out without a message:
    they are half-written or belong to another program.
    """
    files: list[Path] = []
    problems: list[str] = []
    _walk(folder, {_identity(folder)}, files, problems)
    return sorted(files), problems


def _walk(folder: Path, above: set[tuple[int, int]], files: list[Path], problems: list[str]) -> None:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{folder} can't be read: {error.strerror}")
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if not is_utf8(entry.name):
            problems.append(f"{printable(path)} has a name that is not UTF-8: rename it")
        elif path.is_dir() if entry.is_symlink() else entry.is_dir():
            identity = _identity(path)
            if identity not in above:
                _walk(path, above | {identity}, files, problems)
        elif entry.is_symlink() and not path.exists() and not path.suffix:
            problems.append(f"{path} is a broken link")  # probably to a folder
        else:
            files.append(path)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def tell_left_out(messages: Sequence[str]) -> None:
    """Warn about the first few `messages`, one line each, and count the others; no message twice per process."""
    new = [message for message in messages if message not in _told]
    _told.update(new)
    shown = new if len(new) == _SHOWN + 1 else new[:_SHOWN]  # "1 more" takes as many lines as its name
    for message in shown:
        _log.warning("left out: %s", message)
    if len(new) > len(shown):
        _log.warning("left out: %d more", len(new) - len(shown))
