"""The data of a run: the embedded corpus or a folder, split into training and evaluation sets."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from mpq.data.librispeech import Split, Utterance, check_on_bad_audio, check_splits, read_split
from mpq.data.synthetic import corpus as synthetic
from mpq.errors import UserError

EMBEDDED = "synthetic"
_LIBRISPEECH = (
    "Get LibriSpeech with `python scripts/prepare.py librispeech`, or name a folder of its layout with "
    "data.root=FOLDER 'data.train=[SPLIT]' 'data.test=[SPLIT]'"
)


@dataclass(frozen=True)
class Corpus:
    """The `train` and `test` utterances of a corpus; `skipped` has one message per file that was left out."""

    name: str
    hash: str
    train: list[Utterance]
    test: dict[str, list[Utterance]]
    skipped: list[str]

    @property
    def synthetic(self) -> bool:
        """Whether the speech is synthetic."""
        return self.name == EMBEDDED


def corpus_name(root: str | None) -> str:
    """Return the name of the data in records: the folder's name, or that of the embedded corpus."""
    # Not Path.resolve(): a link's own name is the one that the user chose.
    return os.path.basename(os.path.abspath(root)).lower().replace("-", "_") if root else EMBEDDED


def check(root: str | None, corpus: Any, train: Sequence[str], test: Sequence[str], on_bad_audio: str) -> None:
    """Raise UserError, within a second, if the data can't exist.

    `root`: a folder in LibriSpeech's layout, or None for the embedded corpus, whose settings are `corpus`.
    """
    check_on_bad_audio(on_bad_audio)
    if not train or not test or isinstance(train, str) or isinstance(test, str):
        raise UserError(
            f"data.train={train} and data.test={test} must be lists of splits, such as 'data.train=[train]'"
        )
    if root:
        check_splits(root, [*train, *test], _LIBRISPEECH)
        return
    if corpus is None:
        raise UserError("data.root must name a folder (or use data=synthetic for the embedded corpus)")
    if set(corpus) != {"seed", "utterances"}:
        raise UserError(f"data.corpus must have the settings seed and utterances, but has {', '.join(corpus)}")
    synthetic.check_utterances(corpus["utterances"])
    made = [split for split, count in corpus["utterances"].items() if count > 0]
    for split in [*train, *test]:
        if split not in made:
            raise UserError(f"the embedded corpus has no split {split!r}; it has {', '.join(made) or 'none'}")


def check_evaluated(audio_seconds: Any, per_speaker: Any) -> None:
    """Raise UserError unless evaluation batches can have that many seconds and speakers that many utterances."""
    if type(audio_seconds) not in (int, float) or not 0 < audio_seconds < inf:
        raise UserError(f"data.test_audio_seconds={audio_seconds} must be a number, above 0")
    if per_speaker is not None:
        _check_count(per_speaker)


def _check_count(per_speaker: Any) -> None:
    if type(per_speaker) is not int or per_speaker < 1:
        raise UserError(
            f"data.utterances_per_speaker={per_speaker} must be a whole number of 1 or more, or null for all"
        )


def open_corpus(
    root: str | None,
    corpus: Mapping[str, Any] | None,
    train: Sequence[str],
    test: Sequence[str],
    on_bad_audio: str,
    cache: str | Path,
    utterances_per_speaker: int | None = None,
) -> Corpus:
    """Read the data; make the embedded corpus first if it is requested and does not exist yet.

    A split in both `train` and `test` is divided, so that no training utterance is used for evaluation. Of the test
    sets, the first `utterances_per_speaker` are kept, in the order of their names (None: all).

    Raises: UserError if a split is missing, or at a bad file under `on_bad_audio="stop"`.
    """
    check(root, corpus, train, test, on_bad_audio)
    folder = Path(root) if root else synthetic.make(cache, **(corpus or {}))
    splits = {split: read_split(folder, split, on_bad_audio) for split in dict.fromkeys([*train, *test])}
    parts = {
        name: divide(split.utterances) if name in train and name in test else (split.utterances, split.utterances)
        for name, split in splits.items()
    }
    return Corpus(
        name=corpus_name(root),
        hash=_hash(splits.values(), folder) if root else synthetic.content_hash(folder),
        train=[utterance for split in train for utterance in parts[split][0]],
        test={split: first_of_each(parts[split][1], utterances_per_speaker) for split in test},
        skipped=[message for split in splits.values() for message in split.skipped],
    )


def first_of_each(utterances: Sequence[Utterance], count: int | None) -> list[Utterance]:
    """Return the first `count` utterances of each speaker (None: all), in the given order.

    Raises: UserError if `count` is not a positive whole number.
    """
    if count is None:
        return list(utterances)
    _check_count(count)
    seen = Counter[str]()
    kept = []
    for utterance in utterances:
        seen[utterance.speaker] += 1
        if seen[utterance.speaker] <= count:
            kept.append(utterance)
    return kept


def _hash(splits: Iterable[Split], folder: Path) -> str:
    """Return the SHA-256 of names, sizes and transcripts; hashing 60 GB of audio would cost more than it is worth."""
    digest = hashlib.sha256()
    for split in sorted(splits, key=lambda split: split.name):
        for utterance in split.utterances:
            path = utterance.path
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} {utterance.text}\n".encode())
    return digest.hexdigest()


SHARE = 0.1  # of the utterances, held out
SPEAKERS = 10  # from this number on, whole speakers are held out
_SEED = 0  # regardless of the run's: runs with different seeds are evaluated on the same utterances


def divide(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Return the utterances to train on and the held-out tenth, each in the given order; deterministic.

    With ten or more speakers whole speakers are held out, so that evaluation speakers are not in the training data;
    with fewer, single utterances.

    Raises: UserError if there are fewer than two utterances.
    """
    if len(utterances) < 2:
        raise UserError(f"{len(utterances)} utterance can't be divided into one to train and one to evaluate on")
    speakers = sorted({utterance.speaker for utterance in utterances})
    by_speaker = len(speakers) >= SPEAKERS
    names = speakers if by_speaker else [utterance.id for utterance in utterances]
    named = [utterance.speaker if by_speaker else utterance.id for utterance in utterances]
    held: set[str] = set()
    for index in np.random.default_rng(_SEED).permutation(len(names)):
        if sum(name in held for name in named) >= SHARE * len(utterances):
            break
        held.add(names[index])
    parts = list(zip(utterances, (name in held for name in named), strict=True))
    return [u for u, out in parts if not out], [u for u, out in parts if out]
