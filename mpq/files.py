"""Writing files and folders atomically, and claiming them for one process at a time.

A killed run must leave either no result or a complete one, so everything is written next to its destination and then
renamed onto it, which a POSIX file system does in one step. It then has the permissions that the umask says:
safetensors and `tempfile` make private files.

A claim is `filelock`'s lease file. It is created exclusively, which works on network file systems that don't support
kernel locks, and its holder renews it with a heartbeat. If the holder is a process of this machine that no longer
exists (`kill -9`), the claim is taken over at once; otherwise after a minute without a heartbeat, measured on our own
clock, so that the clocks of several machines may differ.
"""

import logging
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import LeaseCompromise, SoftFileLease, Timeout

from mpq.errors import UserError

_PARTIAL = ".partial"
_PROBE = 2**16  # bytes: more than a full disk's last free block
_UMASK = os.umask(0o077)  # it can only be read by setting it: here, while the process has few threads
os.umask(_UMASK)


def check_writable(path: Path | str, size: float = 0) -> None:
    """Check, before the work, that `path` can be created or replaced and `size` bytes fit; leaves nothing behind.

    Raises: UserError if a file stands where a folder must be, permission or space is missing, or it is a mount point.
    """
    if os.path.ismount(path):
        raise UserError(f"{path} is a mount point, which can't be replaced: name a folder in it, {Path(path, 'NAME')}")
    _check(path, followed(path).absolute().parent, size)


def check_folder(folder: Path | str, size: float = 0) -> None:
    """Check, before the work, that files of `size` bytes can be written into `folder`, as `check_writable` does."""
    _check(folder, Path(folder).absolute(), size)


def _check(path: Path | str, folder: Path, size: float) -> None:
    above = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    try:
        with tempfile.TemporaryFile(dir=above) as probe:
            probe.write(bytes(_PROBE))
        free = shutil.disk_usage(above).free
    except OSError as error:
        raise UserError(f"{path} can't be written: {os.strerror(error.errno or 0)}") from None
    if free < size:
        raise UserError(f"{path} needs about {size / 1e9:.2g} GB, but its disk has only {free / 1e9:.2g} GB free")


def followed(path: Path | str) -> Path:
    """Return where `path` leads if it is a symbolic link, else itself: a link to another disk stays one."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that is renamed onto `path` when the block ends well.

    The block may write a file or make a folder there. When it raises, the temporary is removed and `path` is as before.
    What a symbolic link leads to is replaced, not the link.

    Raises: OSError that names `path`, also where a library in the block raised an error of its own for the system's.
    """
    path = followed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    _remove(temporary)
    try:
        with naming(path, temporary):
            yield temporary
            _publish(temporary)
            if path.is_dir():
                _replace_folder(path, temporary)
            else:
                temporary.replace(path)
    finally:
        _remove(temporary)


@contextmanager
def naming(path: Path, temporary: Path | str) -> Iterator[None]:
    """Turn the system's errors about `temporary`, or about no named file, into an OSError about `path`."""
    try:
        yield
    except Exception as error:
        number = system_error(error)
        if number is None or not (str(Path(temporary)) in str(error) or getattr(error, "filename", None) is None):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` (UTF-8) in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def system_error(error: BaseException) -> int | None:
    """Return the system's number of an error: an OSError's, or the one in the text of a library written in Rust."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _replace_folder(path: Path, new: Path) -> None:
    """Rename `new` onto a folder, which must be moved away for that; it is back if that fails."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old{_PARTIAL}")
    path.replace(old)
    try:
        new.replace(path)
    except BaseException:
        old.replace(path)
        raise
    _remove(old)


def _publish(path: Path) -> None:
    """Let others read what was written, as far as the umask lets them."""
    below = [Path(folder, name) for folder, folders, files in os.walk(path) for name in folders + files]
    for one in [path, *below]:
        mode = one.lstat().st_mode
        if not stat.S_ISLNK(mode):
            wanted = stat.S_IMODE(mode) | (0o777 if stat.S_ISDIR(mode) else 0o666) & ~_UMASK
            if wanted != stat.S_IMODE(mode):
                one.chmod(wanted)


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
