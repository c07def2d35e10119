"""The languages of a multilingual CTC model (MMS): one adapter file and one vocabulary for each.

Such a wav2vec 2.0 is a folder with `adapter.<language>.safetensors` (or `.bin`) beside the weights and a `vocab.json`
that maps each language to a vocabulary. Loaded for one language (`target_lang=` of transformers), it is an ordinary CTC
model. A Whisper holds all languages in the same weights and needs nothing from here but the sentence.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mpq.errors import UserError
from mpq.models.hub import on_the_hub, source_of

_log = logging.getLogger(__name__)
_ENDS = ("safetensors", "bin")  # of an adapter's file, in the order in which transformers looks for them
_NAMED, _LISTED = 120, 10  # at most so many languages are named as choices, and so many files as left behind


@dataclass(frozen=True)
class Language:
    """What a model is loaded for: `name`; `adapter` says whether the weights of its file replace the model's own."""

    name: str
    adapter: bool


def language_of(path: str, chosen: str | None) -> Language | None:
    """Return the language for which to load the model at `path` (folder or Hub name); None if it has no adapters.

    Without a choice it is the only one that there is.

    Raises: UserError if several can be chosen and `chosen` is none of them, or its adapter is missing.
    """
    vocabularies = _json(path, "vocab.json")
    if not vocabularies or not all(isinstance(one, dict) for one in vocabularies.values()):
        return None
    own, known = _json(path, "tokenizer_config.json").get("target_lang"), sorted(vocabularies)
    if Path(path).is_dir():  # saved for one language, it may lack the adapters of all others, or all adapters
        known = [name for name in known if _adapter(path, name)] or ([own] if own else known)
    name = known[0] if chosen is None and len(known) == 1 else chosen
    if name not in known:
        raise unknown_language(known, chosen)
    adapter = _adapter(path, name)
    if adapter is None and name not in (own, *(known if len(known) == 1 else ())):
        file = f"adapter.{name}.{_ENDS[0]}"
        get = "add that file" if Path(path).is_dir() else f"run `hf download {path} {file}` where there is a network"
        raise UserError(f"{path} has no {file}, which holds its weights for that language: {get}")
    return Language(name, adapter is not None)


def unknown_language(known: Collection[str], chosen: str | None) -> UserError:
    """Return the error for a language that is missing (None) or not among the `known` ones of a model."""
    names = sorted(known)
    more = f", ... ({len(names)} in all, the keys of vocab.json)" if len(names) > _NAMED else ""
    return UserError(
        "the model is multilingual, and the language of the recordings (model.language= for scripts/run.py, language= "
        f"for the other scripts) must be one of {', '.join(names[:_NAMED])}{more}, but is {chosen}"
    )


def left_behind(path: str, language: str | None) -> str:
    """Return the sentences about the adapters at `path` that a model of `language` lacks; empty for no language."""
    if language is None:
        return ""
    if Path(path).is_dir():
        files = [file.name for file in Path(path).glob("adapter.*") if file.suffix[1:] in _ENDS]
    else:
        files = [f"adapter.{name}.{_ENDS[0]}" for name in _json(path, "vocab.json")]
    others = sorted(name for name in files if name.removeprefix("adapter.").rpartition(".")[0] != language)
    alone = f"The model is for one language, {language}."
    return f"{alone} Adapter files left behind: {_shortened(others)}." if others else alone


@cache
def tell_left_behind(path: str, language: str | None) -> None:
    """Warn with what `left_behind` returns, once per process."""
    if text := left_behind(path, language):
        _log.warning("%s", text)


def keep_language(folder: Path, tokenizer: Any) -> None:
    """Leave, in the vocab.json that `tokenizer` wrote to `folder`, only the vocabulary of its language, if it has one.

    Else a program could choose another language's letters for a model that writes this one's.
    """
    language = getattr(tokenizer, "target_lang", None)
    if language is not None:
        text = json.dumps({language: tokenizer.vocab[language]}, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / "vocab.json").write_text(f"{text}\n", encoding="utf-8")


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _adapter(path: str, language: str) -> str | None:
    """Return the local file of a language's adapter, downloaded if it is on the Hub; None if it can't be had."""
    at = (path, {}) if Path(path).is_dir() else on_the_hub(path)
    return next((found for end in _ENDS if (found := _file(f"adapter.{language}.{end}", *at))), None)


def _json(path: str, name: str) -> dict[str, Any]:
    """Return the content of a file of the model at `path`; empty if it is missing or holds no JSON object."""
    source, revision = source_of(path)
    try:
        found = json.loads(Path(_file(name, source, revision) or "").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # loading the processor will say what is wrong
        return {}
    return found if isinstance(found, dict) else {}


def _file(name: str, source: str, revision: Mapping[str, str]) -> str | None:
    from transformers.utils.hub import cached_file

    try:
        return cached_file(source, name, **revision)
    except OSError:  # missing, or the Hub can't be reached
        return None
