"""One process at a time: a claim keeps all others off a run's folder or a shared file.

A claim is a small file, `filelock`'s lease: made by exclusive creation, which network file systems keep to where they
don't keep the kernel's locks, and renewed by its holder's heartbeat. A claim of a process of this machine that is gone,
as after `kill -9`, is taken over at once; any other after a minute without a heartbeat, measured on our own clock, so
that the machines' clocks may differ.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import LeaseCompromise, SoftFileLease, Timeout

from mpq.errors import UserError

_LEASE_SECONDS = 60.0  # without a heartbeat; all processes that share a folder must have the same
_HEARTBEAT_SECONDS = 5.0
_POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)


class TakenError(UserError):
    """Another process works on it: a single run ends here, a sweep goes on with the next row."""


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
    """Get the claim where its holder shows no sign of life for a lease's duration; refuse at the first heartbeat."""
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
    """End this process where another has taken over or the folder is gone; it must not write there any more."""
    if loss.reason == "refresh-failed":  # a full disk, a network that stumbles: the next heartbeat may succeed
        return
    print(f"error: the claim {path} is gone or another process's ({loss.reason}): this one stops", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)  # as after kill -9, whatever is on disk is whole
