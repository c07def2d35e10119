"""What the scripts share: `key=value` arguments, and how a script ends.

A user's mistake is one line on standard error and exit status 1; anything else is a traceback.
"""

import errno
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from mpq.errors import UserError

# How OmegaConf begins what it says of a UserError that a resolver of ours raised.
_RESOLVER = "UserError raised while resolving interpolation: "
# A machine's refusal to write, which is no defect of ours; the last two: a file where a folder should be.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EEXIST, errno.ENOTDIR)


def guarded(main: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a script's main function; under Hydra both inside and outside of its decorator.

    Inside, because Hydra writes a line of its own about every exception that leaves the function; outside, because the
    config is composed, and a wrong word on the command line found, before the function is called.
    """

    @functools.wraps(main)
    def wrapped(*arguments: Any, **settings: Any) -> Any:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints its errors itself and ends the process
        warnings.filterwarnings("ignore", module=r"(lightning|torch|transformers|wandb)(\..*)?$")
        try:
            result = main(*arguments, **settings)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # who reads our output has seen enough: `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails at its own last flush
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoint, where there is one", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            sys.exit(1)

    return wrapped


def explain(error: BaseException | None) -> str | None:
    """The sentence for the user about a mistake of his, or None for a defect of ours."""
    if isinstance(error, UserError):
        # A worker process of PyTorch's DataLoader hands on the whole traceback as the message; our sentence ends it.
        return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    if error is None:
        return None
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException  # here, since few need it
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

    if isinstance(error, InterpolationResolutionError) and (found := str(error).removeprefix(_RESOLVER)) != str(error):
        return found.splitlines()[0]
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"there is no {group}={choice}{_choose(error.options or [])}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} can't be read: settings are written key=value"
    if isinstance(error, OmegaConfBaseException) and error.parent_node is not None and error.key is not None:
        return _unknown_key(error)
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return f"{error.filename or 'a file'} can't be written: {os.strerror(error.errno)}"
    inner = explain(error.__cause__)
    if inner is None and isinstance(error, (HydraException, OmegaConfBaseException)):
        return " ".join(str(error).split())
    return inner


def _unknown_key(error: Any) -> str:
    """What the setting is called that there isn't, and what its neighbours are called."""
    name = error.full_key or str(error.key)
    known = [str(key) for key in error.parent_node if key != "hydra"] if hasattr(error.parent_node, "keys") else []
    return f"there is no setting {name}{_choose(known, name.rpartition('.')[0])}"


def _choose(names: Iterable[str], owner: str = "") -> str:
    found = ", ".join(sorted(names))
    return f"; choose one of {found}" if found and not owner else f"; {owner} has {found}" if found else ""


def key_values(words: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The `defaults` with the values that `words` set; raises UserError for a word that is no known `key=value`."""
    chosen = dict(defaults)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in defaults:
            raise UserError(f"unknown argument {word!r}; the arguments are {', '.join(f'{k}=' for k in defaults)}")
        chosen[key] = value
    return chosen


Options = TypeVar("Options")


def read_options(kind: type[Options], words: Sequence[str]) -> Options:
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


def describe_options(kind: type[Any]) -> str:
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
