"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input, told in one sentence: the value, the rule, and the choices or the command that mends it.

    The scripts print it as one line and exit with status 1; anything else that is raised is a defect of ours.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
