"""Writing files and folders atomically, and claiming them for one process at a time.

A killed run must leave either no result or a complete one, so everything is written next to its destination and then
renamed onto it, which a POSIX file system does in one step.

A claim is `filelock`'s lease file. It is created exclusively, which works on network file systems that don't support
kernel locks, and its holder renews it with a heartbeat. If the holder is a process of this machine that no longer
exists (`kill -9`), the claim is taken over at once; otherwise after a minute without a heartbeat, measured on our own
clock, so that the clocks of several machines may differ.
"""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import LeaseCompromise, SoftFileLease, Timeout

from mpq.errors import UserError

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


_LEASE_SECONDS = 60.0  # without a heartbeat; must be the same in all processes that share a folder
_HEARTBEAT_SECONDS = 5.0
_POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)


class TakenError(UserError):
    """Another process is working on it: a single run ends here, a sweep continues with the next row."""


@contextmanager
def claim(root: Path | str, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the claim of `what`, a path below `root`, while the block runs; its file is in `<root>/.claims`.

    Where another process holds it: `wait` for its end, or raise TakenError, which names that process.
    """
    path = Path(root) / ".claims" / what.replace("/", "-")  # not in the folder itself, which may come and go
    path.parent.mkdir(parents=True, exist_ok=True)
    lease = SoftFileLease(
        path,
        lease_duration=_LEASE_SECONDS,
        heartbeat_interval=_HEARTBEAT_SECONDS,
        on_compromise=lambda loss: _lost(path, loss),
    )
    try:
        lease.acquire(timeout=0)
    except Timeout:
        if wait:
            _log.warning("waiting for %s, which %s works on", Path(root) / what, _holder(lease))
            lease.acquire(poll_interval=_POLL_SECONDS)
        else:
            _take_over_or_refuse(lease, path, Path(root) / what)
    try:
        yield
    finally:
        lease.release()


def _take_over_or_refuse(lease: SoftFileLease, path: Path, what: Path) -> None:
    """Acquire the claim if its holder shows no heartbeat for a lease's duration; refuse at the first heartbeat."""
    before = _renewed(path)
    try:
        lease.acquire(poll_interval=_POLL_SECONDS, cancel_check=lambda: _renewed(path) != before)
    except Timeout:  # it was cancelled
        holder = _holder(lease)
        raise TakenError(f"{what} is being worked on by {holder}; root=FOLDER works elsewhere") from None


def _renewed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _holder(lease: SoftFileLease) -> str:
    owner = lease.owner
    return f"process {owner.pid} on {owner.hostname.partition('?')[0]}" if owner else "another process"


def _lost(path: Path, loss: LeaseCompromise) -> None:
    """End this process if another has taken over or the folder is gone; it must no longer write there."""
    if loss.reason == "refresh-failed":  # a full disk, a network that stumbles: the next heartbeat may succeed
        return
    print(f"error: the claim {path} is gone or another process's ({loss.reason}): this one stops", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)  # as after kill -9, whatever is on disk is whole
