"""Evaluates a stored model on every set and compares it with its baseline."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.evaluate.significance import compare
from mpq.evaluate.transcribe import transcribe
from mpq.evaluate.units import rate, units_of
from mpq.evaluate.wer import (
    character_errors_per_utterance,
    total_characters,
    total_words,
    word_errors_and_kinds,
)
from mpq.models.reader import Reader
from mpq.models.speech import SpeechModel
from mpq.record.hypotheses import Texts, Unfinished
from mpq.record.result import Baseline, Significance, WordErrors


def transcribe_sets(
    speech: SpeechModel,
    sets: Mapping[str, list[Utterance]],
    audio_seconds: float,
    on_bad_audio: str,
    so_far: Unfinished | None = None,
) -> tuple[Texts, list[str]]:
    """Return the hypotheses of every set, and a message for each file that was left out.

    `so_far`: takes the hypotheses batch by batch, and has those of an earlier, killed process.
    """
    hypotheses: Texts = {}
    skipped: list[str] = []
    for name, utterances in sets.items():
        given = speech, utterances, audio_seconds, on_bad_audio
        known = {} if so_far is None else so_far.texts.get(name, {})
        keep = None if so_far is None else partial(so_far.add, name)
        hypotheses[name], more = transcribe(*given, title=f"Transcribing {name}", known=known, keep=keep)
        skipped += more
    return hypotheses, skipped


def references_of(sets: Mapping[str, list[Utterance]], reader: Reader) -> Texts:
    """Return the references of the utterances, in the form that the model's `reader` compares."""
    return {name: {u.id: reader.scored(u.text) for u in utterances} for name, utterances in sets.items()}


def score(references: Texts, hypotheses: Texts, sets: Mapping[str, list[Utterance]]) -> dict[str, WordErrors]:
    """Return the word and character errors of every set, each with the interval of its rate and its units."""
    scores = {}
    for name, texts in references.items():
        speakers = speakers_of(sets[name], texts)
        errors, words, kinds = word_errors_and_kinds(texts, hypotheses[name])
        letters = character_errors_per_utterance(texts, hypotheses[name])
        units, of_letters = units_of(speakers, errors, words), units_of(speakers, *letters)
        characters = replace(total_characters(*letters), interval=rate(of_letters).interval, units=of_letters)
        found = replace(total_words(errors, words), characters=characters, interval=rate(units).interval, units=units)
        scores[name] = replace(found, **kinds)
    return scores


def speakers_of(utterances: Iterable[Utterance], references: Mapping[str, str]) -> dict[str, str]:
    """Map the utterances that have `references`, in the order of these, to their speakers."""
    known = {utterance.id: utterance.speaker for utterance in utterances}
    return {name: known[name] for name in references}


def compare_sets(
    baseline: Baseline,
    references: Texts,
    baseline_hypotheses: Texts,
    hypotheses: Texts,
    sets: Mapping[str, list[Utterance]],
    part: bool = False,
) -> dict[str, Significance]:
    """Return MAPSSWE and the interval over speakers for every set.

    `part`: the system was evaluated on part of the utterances; only these are compared.

    Raises: UserError if the baseline's record lacks a set.
    """
    verdicts = {}
    for name, texts in references.items():
        if name not in baseline_hypotheses:
            raise UserError(
                f"the baseline {baseline.exp} seed {baseline.seed} was not evaluated on {name}; run it again "
                "with overwrite=true"
            )
        speakers = speakers_of(sets[name], texts)
        before = {key: text for key, text in baseline_hypotheses[name].items() if key in texts} if part else None
        found = compare(texts, before or baseline_hypotheses[name], hypotheses[name], speakers)
        verdicts[name] = Significance(
            baseline, found.difference, found.interval, found.z, found.p, found.characters, found.change
        )
    return verdicts
