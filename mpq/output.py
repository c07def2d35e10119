"""Standard output and standard error that take every text: whatever their encoding, and even if they are closed."""

import codecs
import os
import sys

_HANDLER = "mpq.other_signs"
_SIGNS = {"↓": "v", "↑": "^", "±": "+/-", "–": "-", "’": "'", "“": '"', "”": '"', "≥": ">=", "·": "-"}


def accept_every_text() -> None:
    """Let both streams write other signs for those that their encoding lacks; replace closed ones by /dev/null.

    An arrow of a table then becomes an ASCII sign, any other letter a backslash and its number, instead of an error
    (output to Windows' cp1252, or in the C locale).
    """
    codecs.register_error(_HANDLER, _other_signs)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before Python started (`>&-`): else the next file opened would be taken for it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (until the process ends)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def _other_signs(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    said = (_SIGNS.get(one) or one.encode("ascii", "backslashreplace").decode() for one in letters)
    return "".join(said), error.end
