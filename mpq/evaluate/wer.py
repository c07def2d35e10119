"""Word and character error rates, from counts per utterance.

jiwer counts the errors; this module adds what a corpus needs: utterances are matched by id, so that a missing or
duplicate hypothesis is an error and not a silent shift of all that follow, and counts are kept per utterance, to be
added up by speaker.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jiwer
import numpy as np

from mpq.errors import UserError
from mpq.record.result import CharacterErrors, WordErrors


def total_words(errors: np.ndarray, words: np.ndarray) -> WordErrors:
    """Add up what `word_errors_per_utterance` returns.

    Raises:
        UserError: there is no reference word, so the rate is undefined.
    """
    total, count = int(errors.sum()), int(words.sum())
    return WordErrors(_percent(total, count), total, count, len(errors))


def total_characters(errors: np.ndarray, characters: np.ndarray) -> CharacterErrors:
    """Add up what `character_errors_per_utterance` returns.

    Raises:
        UserError: there is no reference character.
    """
    total, count = int(errors.sum()), int(characters.sum())
    return CharacterErrors(_percent(total, count), total, count)


def word_errors(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> WordErrors:
    """Count the word errors of a set; both arguments map utterance ids to text.

    Text is compared as it is, including case; words are separated by white space. An empty hypothesis counts all words
    of its reference as errors; with an empty reference, every word of the hypothesis is an insertion.

    Raises:
        UserError: the ids differ, or there is no reference word.
    """
    return total_words(*word_errors_per_utterance(references, hypotheses))


def word_errors_per_utterance(
    references: Mapping[str, str], hypotheses: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and reference words, both int `[utterances]`, in the order of the references.

    Raises:
        UserError: the ids differ.
    """
    return word_errors_and_kinds(references, hypotheses)[:2]


def word_errors_and_kinds(
    references: Mapping[str, str], hypotheses: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Like `word_errors_per_utterance`, and how many errors are `insertions`, `deletions` and `substitutions`.

    The third part also has the number of `loops`. A loop is a hypothesis of more than twice as many words as its
    reference: a decoder that repeats itself.

    Raises:
        UserError: the ids differ.
    """
    check_ids(references, hypotheses)
    truths, guesses = _tidy(references.values()), _tidy(hypotheses[name] for name in references)
    words, heard = (np.array([len(text.split()) for text in texts], dtype=np.int64) for texts in (truths, guesses))
    errors, output = _errors(truths, guesses, jiwer.process_words)
    kinds = {name: getattr(output, name, 0) for name in ("insertions", "deletions", "substitutions")}
    return errors, words, kinds | {"loops": int((heard > 2 * words).sum())}


def character_errors(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> CharacterErrors:
    """Count the character errors of a set; both arguments map utterance ids to text.

    The rate is that of `jiwer.cer`: spaces inside a text count as characters, spaces around it do not.

    Raises:
        UserError: the ids differ, or there is no reference character.
    """
    return total_characters(*character_errors_per_utterance(references, hypotheses))


def character_errors_per_utterance(
    references: Mapping[str, str], hypotheses: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and reference characters, both int `[utterances]`, in the order of the references.

    Raises:
        UserError: the ids differ.
    """
    check_ids(references, hypotheses)
    truths = [text.strip() for text in references.values()]
    guesses = [hypotheses[name].strip() for name in references]
    characters = np.array([len(truth) for truth in truths], dtype=np.int64)
    return _errors(truths, guesses, jiwer.process_characters)[0], characters


def check_ids(references: Mapping[str, object], others: Mapping[str, object], what: str = "hypotheses") -> None:
    """Check that `others`, called `what` in the message, has exactly the utterances of the references.

    Raises:
        UserError: an utterance is missing or unknown, or there are no references.
    """
    if not references:
        raise UserError("there must be at least one reference utterance to score, but there is none")
    for problem, names in (
        ("lack", references.keys() - others.keys()),
        ("have, beyond the references,", others.keys() - references.keys()),
    ):
        if names:
            raise UserError(
                f"the {what} must have the utterance ids of the references, but they {problem} {len(names)} "
                f"of them, for example {min(names)!r}"
            )


def _tidy(texts: Iterable[str]) -> list[str]:
    return [" ".join(text.split()) for text in texts]


def _errors(
    truths: list[str], guesses: list[str], process: Callable[[list[str], list[str]], Any]
) -> tuple[np.ndarray, Any]:
    """Return the errors of every utterance, and jiwer's output, None without errors.

    `process` is jiwer's function for the unit that is counted.
    """
    errors, output = np.zeros(len(truths), dtype=np.int64), None
    # Most utterances of a good system are correct, and jiwer spends its time on objects, not on the alignment.
    wrong = [k for k, (truth, guess) in enumerate(zip(truths, guesses, strict=True)) if truth != guess]
    if wrong:
        output = process([truths[k] for k in wrong], [guesses[k] for k in wrong])
        errors[wrong] = [_edits(chunks) for chunks in output.alignments]
    return errors, output


def _edits(chunks: list[jiwer.AlignmentChunk]) -> int:
    return sum(
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in chunks
        if chunk.type != "equal"
    )


def _percent(errors: int, units: int) -> float:
    if units == 0:
        raise UserError("an error rate needs at least one word in the references, but all references are empty")
    return 100.0 * errors / units
