"""What users are told: the one exception that is meant for them, and options without effect."""

import logging
from collections.abc import Iterable

_log = logging.getLogger(__name__)


class UserError(Exception):
    """Bad input, described in one sentence: the value, the rule, and the choices or the command that fixes it.

    The scripts print it as one line and exit with status 1; any other exception is a defect in mpq.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class SizeError(UserError):
    """A size of a file that a model can't have; `nearest`: the nearest that it can, in megabytes."""

    def __init__(self, message: str, nearest: float) -> None:
        super().__init__(message)
        self.nearest = nearest


ONE_LANGUAGE = "the model is for one language"


def unused(options: Iterable[str], why: str) -> None:
    """Warn that options that were given have no effect in this call; `why` completes the sentence."""
    for name in options:
        _log.warning("%s= has no effect here: %s", name, why)
