"""The one exception that is meant for users."""


class UserError(Exception):
    """Bad input, described in one sentence: the value, the rule, and the choices or the command that fixes it.

    The scripts print it as one line and exit with status 1; any other exception is a defect in mpq.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
