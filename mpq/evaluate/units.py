"""The units that intervals are drawn over, their errors kept in records: speakers, or utterances where they are few.

Kept in the record, they let tables pool a system's runs without the transcripts, which are not tracked for recorded
speech. The units of an older record are counted from its transcripts, if it has them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from mpq.evaluate.pooled import MIN_SPEAKERS, Pooled, pooled
from mpq.evaluate.wer import character_errors_per_utterance, word_errors_per_utterance
from mpq.record.hypotheses import has_hypotheses, read_hypotheses, read_references
from mpq.record.result import Result, Significance, Units, WordErrors
from mpq.record.run_folder import RunFolder, references_file


def units_of(speakers: Mapping[str, str], errors: np.ndarray, words: np.ndarray) -> Units:
    """Add up errors and words `[utterances]` by unit; `speakers` maps the utterances, in that order, to speakers."""
    count = len(set(speakers.values()))
    by_speaker = count == 1 or count >= MIN_SPEAKERS
    sums: dict[str, tuple[int, int]] = {}
    for (utterance, speaker), more, said in zip(speakers.items(), errors.tolist(), words.tolist(), strict=True):
        unit = speaker if by_speaker else utterance
        before = sums.get(unit, (0, 0))
        sums[unit] = (before[0] + more, before[1] + said)
    return Units("speaker" if by_speaker else "utterance", sums)


def rate(units: Units) -> Pooled:
    """The rate of one set and run, with the interval over its units; raises UserError without any word."""
    return _pooled(units, [errors for errors, _ in units.counts.values()])


def change(units: Units, more: Mapping[str, int]) -> Pooled:
    """The change of a rate against a baseline that made `more` fewer errors at each unit; raises as `rate` does."""
    return _pooled(units, [more[name] for name in units.counts])


def less(units: Units, baseline: Units) -> dict[str, int]:
    """The errors of each unit minus the baseline's; raises KeyError if the units differ."""
    return {name: errors - baseline.counts[name][0] for name, (errors, _) in units.counts.items()}


def _pooled(units: Units, errors: list[int]) -> Pooled:
    words = np.array([said for _, said in units.counts.values()])
    return pooled(np.array(errors), words, list(units.counts), units.kind == "speaker")


def completed(folder: RunFolder) -> Result:
    """Return the record in `folder` with its units: an older one with those of its transcripts.

    An older record without transcripts loses its intervals, which were drawn in another way.

    Raises: UserError if the record or the transcripts can't be read.
    """
    result = folder.read()
    if all(words.units for words in result.wer.values()):
        return result
    own = _of_texts(folder, result.references)
    tests = {}
    for name, test in (result.significance or {}).items():
        before = _of_texts(RunFolder.of(folder.root, test.baseline), result.references)
        tests[name] = _test(test, own.get(name), before.get(name))
    wer = {name: _words(words, own.get(name)) for name, words in result.wer.items()}
    return replace(result, wer=wer, significance=tests or None)


_Both = tuple[Units, Units]  # of words, of characters


def _words(words: WordErrors, both: _Both | None) -> WordErrors:
    units, letters = both or (None, None)
    characters = words.characters
    if characters is not None:
        characters = replace(characters, interval=letters and rate(letters).interval, units=letters)
    return replace(words, characters=characters, interval=units and rate(units).interval, units=units)


def _test(test: Significance, both: _Both | None, before: _Both | None) -> Significance:
    more = letters = interval = interval_of_letters = None
    if both and before and both[0].counts.keys() == before[0].counts.keys():
        more, letters = (less(mine, theirs) for mine, theirs in zip(both, before, strict=True))
        interval, interval_of_letters = change(both[0], more).interval, change(both[1], letters).interval
    characters = test.characters and replace(test.characters, interval=interval_of_letters)
    return replace(test, interval=interval, characters=characters, change=more)


def _of_texts(folder: RunFolder, data: str) -> dict[str, _Both]:
    """The units of words and characters of each set, counted from a run's transcripts; none without them."""
    references = references_file(folder.root, data)
    if not has_hypotheses(folder.hypotheses) or not references.is_file():
        return {}
    files = (*folder.path.glob("hypotheses.*"), references)
    return _counted(folder.hypotheses, references, tuple(path.stat().st_mtime_ns for path in files))


@cache
def _counted(hypotheses: Path, references: Path, changed: tuple[int, ...]) -> dict[str, _Both]:
    said, found = read_references(references), {}
    for name, heard in read_hypotheses(hypotheses).items():
        if heard.keys() <= said.get(name, {}).keys():
            texts = {key: said[name][key] for key in heard}
            speakers = {key: key.partition("-")[0] for key in heard}  # as LibriSpeech names utterances
            counts = (word_errors_per_utterance(texts, heard), character_errors_per_utterance(texts, heard))
            found[name] = tuple(units_of(speakers, *count) for count in counts)
    return found
