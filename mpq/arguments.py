"""The command lines of the scripts that need no Hydra: words `key=value`, each with a default."""

from collections.abc import Mapping, Sequence

from mpq.errors import UserError


def key_values(words: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The `defaults` with the values that `words` set; raises UserError for a word that is no known `key=value`."""
    chosen = dict(defaults)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in defaults:
            raise UserError(f"unknown argument {word!r}; the arguments are {', '.join(f'{k}=' for k in defaults)}")
        chosen[key] = value
    return chosen
