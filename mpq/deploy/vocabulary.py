"""The tokens of an exported Whisper as text: each stands for bytes, as in GPT-2; two JSON files beside the graphs."""

import json
from pathlib import Path

from mpq.errors import UserError, first_line

VOCABULARY = "vocab.json", "added_tokens.json"


def read_vocabulary(folder: Path) -> dict[int, bytes]:
    """Return the bytes of each token that is text; raises UserError if the files in `folder` are damaged."""
    name = VOCABULARY[0]
    try:
        vocabulary = json.loads((folder / name).read_text(encoding="utf-8"))
        special = set(json.loads((folder / VOCABULARY[1]).read_text(encoding="utf-8")).values())
        characters = _bytes_of_characters()
        return {
            number: bytes(characters[character] for character in token)
            for token, number in vocabulary.items()
            if number not in special
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} has a damaged {' or '.join(VOCABULARY)} ({first_line(error)}): export again"
        ) from None


def _bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a token stands for, as in GPT-2: bytes that can't be printed come after 255."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(others)}
