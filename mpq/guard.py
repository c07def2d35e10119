"""How a script ends: a user's mistake is one line on standard error and exit status 1, anything else a traceback."""

import errno
import functools
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mpq.commands import setting
from mpq.errors import UserError
from mpq.files import system_error
from mpq.output import accept_every_text

# The prefix of OmegaConf's message about a UserError raised by one of our resolvers.
_RESOLVER = "UserError raised while resolving interpolation: "
# The system refuses to write, which is not a defect in mpq.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
# The first two: a file where a folder should be.
_CANNOT_WRITE += (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EBUSY)
_LAUNCHERS = {"joblib": "cluster", "submitit_slurm": "cluster", "submitit_local": "cluster", "ray": "ray"}
_NO_TEMPORARY = "No usable temporary directory"  # how tempfile's message begins


def guarded(main: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a script's main function; with Hydra, both inside and outside its decorator.

    Inside, because Hydra prints an extra line about every exception that leaves the function; outside, because the
    config is composed, and a wrong word on the command line detected, before the function is called.
    """

    @functools.wraps(main)
    def wrapped(*arguments: Any, **settings: Any) -> Any:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints its errors itself and ends the process
        accept_every_text()
        warnings.filterwarnings("ignore", module=r"(lightning|torch|transformers|wandb)(\..*)?$")
        try:
            with _terminable():
                result = main(*arguments, **settings)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # the reader of our output has stopped reading: `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails at its final flush
            sys.exit(1)
        except KeyboardInterrupt as stop:
            print("; ".join(["interrupted", *map(str, stop.args)]), file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            sys.exit(1)

    return wrapped


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that nothing half-written stays; the exit status is 143.

    While a stage trains, its own handler is in place (`mpq.train.fit`).
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def explain(error: BaseException | None) -> str | None:
    """Return the message for the user about the user's mistake, or None for a defect in mpq."""
    if isinstance(error, UserError):
        # A worker process of PyTorch's DataLoader passes on the whole traceback as the message; ours is its last line.
        return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    if error is None:
        return None
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException  # here, since few need it
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

    if isinstance(error, InterpolationResolutionError) and (found := str(error).removeprefix(_RESOLVER)) != str(error):
        return found.splitlines()[0]
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and choice in _LAUNCHERS:
            extra = _LAUNCHERS[choice]
            return f"hydra/launcher={choice} needs a package that is not installed: pip install -e '.[{extra}]'"
        return f"there is no {group}={choice}{_choose(error.options or [])}"
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        quoted = f"; in quotes: {shlex.quote(setting(key, value))}" if equals and not {*value} & {*"[]{}\"'"} else ""
        return f"{error.override!r} can't be read: settings are written key=value{quoted}"
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):  # model=7
        return f"a file of a group can't be chosen by a number ({error}): name the file, --help lists them"
    if isinstance(error, OmegaConfBaseException) and error.parent_node is not None and error.key is not None:
        return _unknown_key(error)
    number = system_error(error)
    if number is not None and number in _CANNOT_WRITE:
        return _refused(getattr(error, "filename", None), number)
    if isinstance(error, FileNotFoundError) and str(error.strerror).startswith(_NO_TEMPORARY):
        return f"temporary files can't be written ({error.strerror}): set TMPDIR to a folder with free space"
    inner = explain(error.__cause__)
    if inner is None and isinstance(error, (HydraException, OmegaConfBaseException)):
        return " ".join(str(error).split())
    return inner


def _refused(path: str | bytes | None, number: int) -> str:
    """Return the message about a file that the system refuses to write, or to read."""
    name = "a file" if path is None else os.fsencode(path).decode(errors="backslashreplace")  # names may not be UTF-8
    unreadable = path is not None and os.path.isfile(path) and not os.access(path, os.R_OK)
    return f"{name} can't be {'read' if unreadable else 'written'}: {os.strerror(number)}"


def _unknown_key(error: Any) -> str:
    """Return the message about an unknown setting, with the names of its siblings."""
    name = error.full_key or str(error.key)
    known = [str(key) for key in error.parent_node if key != "hydra"] if hasattr(error.parent_node, "keys") else []
    return f"there is no setting {name}{_choose(known, name.rpartition('.')[0])}"


def _choose(names: Iterable[str], owner: str = "") -> str:
    found = ", ".join(sorted(names))
    return f"; choose one of {found}" if found and not owner else f"; {owner} has {found}" if found else ""
