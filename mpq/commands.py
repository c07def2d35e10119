"""Command lines to be typed: what messages, summaries and model cards print must work when pasted into a shell."""

import re
import shlex

_PLAIN = re.compile(r"[\w./:+@%-]+", re.ASCII)


def script(name: str, *words: str) -> str:
    """The shell's line for `scripts/<name>.py`; each of `words` becomes one argument, whatever is in it."""
    return shlex.join(["python", f"scripts/{name}.py", *words])


def setting(key: str, value: object) -> str:
    """The word `key=value` of `scripts/run.py`, in quotes where Hydra's grammar would read the value in another way."""
    text = str(value)
    if _PLAIN.fullmatch(text):
        return f"{key}={text}"
    # Inside of quotes a backslash counts only before a quote: there it is doubled, and the quote gets one of its own.
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    return f'{key}="{escaped}"'
