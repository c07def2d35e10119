"""Hypotheses and references as JSON lines, so that anyone can recompute a WER or a significance test.

A run's file of hypotheses has a line `{"set", "id", "hypothesis"}` per utterance and is next to its record; the file of
references has lines `{"set", "id", "reference"}` and is written once per corpus. A file compressed by `gzip -n` (to a
sixth of its size, for a repository with a hundred of them) is read directly.
"""

import gzip
import json
import zlib
from pathlib import Path

from mpq.errors import UserError
from mpq.files import claim, write_text

Texts = dict[str, dict[str, str]]
"""Evaluation set -> utterance id -> text, in the order of the file."""


def write_hypotheses(path: Path | str, hypotheses: Texts) -> None:
    """Write a model's hypotheses atomically."""
    write_text(path, _lines(hypotheses, "hypothesis"))


def has_hypotheses(path: Path | str) -> bool:
    """Return whether `read_hypotheses` finds a file for `path`."""
    return Path(path).is_file() or _packed(Path(path)).is_file()


def read_hypotheses(path: Path | str) -> Texts:
    """Read a run's hypotheses from `path`, or from `<path>.gz` if only that exists.

    Raises UserError naming the path and line that is malformed, truncated or a duplicate.
    """
    return _read(Path(path), "hypothesis")


def read_references(path: Path | str) -> Texts:
    """Read the references of one corpus; raises UserError as `read_hypotheses` does."""
    return _read(Path(path), "reference")


def check_references(path: Path, references: Texts) -> None:
    """Raise UserError if `path` has other words for one of `references`: two corpora have the same name."""
    known = read_references(path) if path.exists() else {}
    for name, texts in references.items():
        for identity, text in texts.items():
            if known.get(name, {}).get(identity, text) != text:
                raise UserError(
                    f"{path} has other words for {name} {identity}: another corpus of this name, or changed "
                    "transcripts; root=FOLDER keeps both, overwrite=true replaces them"
                )


def add_references(path: Path, references: Texts, replace: bool = False) -> None:
    """Add `references` to `path` (`run_folder.references_file`), keeping the utterances that are already there.

    Raises UserError as `check_references` does, unless words are to be replaced.
    """
    folder = path.parent
    with claim(folder.parent, f"{folder.name}/{path.name}", wait=True):  # else, if two runs end together, one is lost
        if not replace:
            check_references(path, references)
        _merge(path, references)


class Unfinished:
    """The hypotheses of an evaluation so far, in a file, for the process that goes on after a kill.

    The file's first line is the digest of the weights that they are of; lines of others, or one cut short, are dropped.
    """

    def __init__(self, path: Path, weights: str) -> None:
        """Read `path` if it is there, and drop what does not count."""
        self.texts: Texts = {}
        self._path = path
        head = json.dumps({"weights": weights}).encode() + b"\n"
        found = path.read_bytes() if path.is_file() else b""
        whole = found[: found.rfind(b"\n") + 1]  # bytes: a kill may have cut a character
        try:
            rows = [json.loads(line) for line in whole.split(b"\n")[1:-1]] if whole.startswith(head) else []
            for row in rows:
                self.texts.setdefault(row["set"], {})[row["id"]] = row["hypothesis"]
        except (ValueError, KeyError, TypeError):  # damaged: the evaluation begins anew
            self.texts = {}
        kept = whole if self.texts else head
        if kept != found:
            write_text(path, kept.decode())

    def add(self, name: str, texts: dict[str, str]) -> None:
        """Append hypotheses of utterances of the set `name`."""
        self.texts.setdefault(name, {}).update(texts)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_lines({name: texts}, "hypothesis"))


def _merge(path: Path, references: Texts) -> None:
    known = read_references(path) if path.exists() else {}
    merged = {name: known.get(name, {}) | references.get(name, {}) for name in (known | references)}
    if merged != known:
        write_text(path, _lines(merged, "reference"))


def _lines(texts: Texts, field: str) -> str:
    rows = ({"set": name, "id": identity, field: text} for name, ids in texts.items() for identity, text in ids.items())
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read(path: Path, field: str) -> Texts:
    try:
        content = _content(path).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if content and not content.endswith("\n"):
        raise UserError(f"{path} is truncated: its last line is incomplete; run its experiment again")
    texts: Texts = {}
    # Not splitlines(), which also splits at Unicode's line separators, which may occur inside a text.
    for number, line in enumerate(content.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            name, identity, text = row["set"], row["id"], row[field]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f'{path} line {number} must be {{"set", "id", "{field}"}}, but is {line[:80]!r}') from error
        if identity in texts.setdefault(name, {}):
            raise UserError(f"{path} line {number} repeats {name} {identity}")
        texts[name][identity] = text
    return texts


def _content(path: Path) -> bytes:
    packed = _packed(path)
    if path.exists() or not packed.exists():
        return path.read_bytes()
    whole = packed.read_bytes()
    if not whole:  # which gzip would decompress to an empty text
        raise EOFError(f"{packed.name} is empty")
    return gzip.decompress(whole)


def _packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")
