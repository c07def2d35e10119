"""Compares exported ONNX files with the model that they were made from, on the evaluation sets of that model's run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from mpq.data.audio import load
from mpq.data.batching import by_length
from mpq.data.corpus import open_corpus
from mpq.data.librispeech import Utterance
from mpq.deploy.runtime import OnnxRecognizer
from mpq.deploy.runtime_seq2seq import OnnxWhisper, is_whisper
from mpq.errors import UserError
from mpq.evaluate.significance import Comparison, compare
from mpq.evaluate.units import units_of
from mpq.evaluate.verdict import Verdict, of_sets
from mpq.evaluate.wer import total_words, word_errors_and_kinds
from mpq.progress import track
from mpq.record.hypotheses import read_hypotheses
from mpq.record.result import Units
from mpq.record.run_folder import RunFolder


@dataclass(frozen=True)
class SetResult:
    """One evaluation set: word error rates of the run's model and of the file in percent, and the test between them.

    changed: how many of the `utterances` got a different transcript. run_loops, file_loops: see
    `mpq.evaluate.wer.word_errors_and_kinds`. units: the file's errors.
    """

    name: str
    run: float
    file: float
    run_loops: int
    file_loops: int
    changed: int
    utterances: int
    verdict: Comparison
    units: Units


@dataclass(frozen=True)
class Reading:
    """Exported files in use: a batch of waveforms at `rate` Hz to texts, and a text to the form that is compared."""

    transcribe: Callable[[Sequence[np.ndarray]], list[str]]
    rate: int
    scored: Callable[[str], str]


def compare_with_run(file: Path, run: Path, cache: str, sets: Sequence[str]) -> list[SetResult]:
    """Transcribe `sets` (empty: all) of the run's data with the exported file and compare with the run's hypotheses.

    `file` is an ONNX file, or a Whisper's folder of them. `run` is `<root>/<name>/seed<k>`, `cache` the folder of the
    embedded corpus. A Whisper hears as much silence after a batch's longest recording as in the run.

    Raises: UserError if the run's record or data is missing, its recordings have changed since, it was not evaluated
    on one of `sets`, or its model is of another kind than the file's.
    """
    folder = RunFolder.at(run)
    config, before = _config(folder), read_hypotheses(folder.hypotheses)
    data = config["data"]
    if unknown := [name for name in sets if name not in before]:
        raise UserError(f"{run} was not evaluated on {unknown[0]}; its sets are {', '.join(before)}")
    # The embedded corpus takes minutes to make: a wrong file is told before.
    reading = None if data["root"] else _open(file, run, config["model"])
    corpus = open_corpus(**{key: data[key] for key in ("root", "corpus", "train", "test", "on_bad_audio")}, cache=cache)
    if data["root"] and corpus.hash != folder.read().provenance.data.hash:
        raise UserError(f"{data['root']} has changed since {run}: its hypotheses are of other recordings")
    reading = reading or _open(file, run, config["model"])
    chosen = list(sets) or list(before)
    return [_compared(reading, name, corpus.test[name], before[name], data["test_audio_seconds"]) for name in chosen]


def over_all(results: Sequence[SetResult]) -> Verdict | None:
    """The verdict on the file against its run, pooled over all sets."""
    return of_sets({result.name: (result.units, result.verdict.change) for result in results})


def transcribe_set(
    reading: Reading, utterances: Sequence[Utterance], audio_seconds: float, title: str
) -> dict[str, str]:
    """The hypotheses by utterance id, with the batches and the form of `mpq.evaluate.transcribe`."""
    found: dict[str, str] = {}
    for batch in track(by_length([utterance.seconds for utterance in utterances], audio_seconds), title, "batches"):
        texts = reading.transcribe([load(utterances[index].path, reading.rate) for index in batch])
        found |= {utterances[index].id: reading.scored(text) for index, text in zip(batch, texts, strict=True)}
    return {utterance.id: found[utterance.id] for utterance in utterances}


def _open(file: Path, run: Path, model: Mapping[str, Any]) -> Reading:
    whisper = is_whisper(file)
    if whisper != (model["architecture"]["model_type"] == "whisper"):
        raise UserError(f"{file} is of another kind than the model of {run}: name what was exported from {run}/model")
    if whisper:
        margin = model["margin_seconds"]
        silence, fallback = inf if margin is None else margin, bool(model.get("fallback"))
        recognizer = OnnxWhisper(file, model["language"], silence=silence, fallback=fallback)
        return Reading(recognizer.transcribe, recognizer.sampling_rate, _normal_form(file, recognizer))
    recognizer = OnnxRecognizer(file)
    about = recognizer.description
    from mpq.models.processor import scored  # here: torch takes seconds, which no mistake needs

    return Reading(recognizer.transcribe, about.sampling_rate, lambda text: scored(about.vocabulary, text))


def _normal_form(folder: Path, recognizer: OnnxWhisper) -> Callable[[str], str]:
    from mpq.models.processor import load_processor
    from mpq.models.seq2seq import Seq2SeqReader

    about = recognizer.description
    return Seq2SeqReader(load_processor(folder), about.longest, recognizer.english).scored


def _compared(
    reading: Reading, name: str, utterances: list[Utterance], before: Mapping[str, str], seconds: float
) -> SetResult:
    utterances = [utterance for utterance in utterances if utterance.id in before]
    after = transcribe_set(reading, utterances, seconds, f"Transcribing {name}")
    references = {utterance.id: reading.scored(utterance.text) for utterance in utterances}
    speakers = {utterance.id: utterance.speaker for utterance in utterances}
    errors, words, kinds = word_errors_and_kinds(references, after)
    run_errors, _, run_kinds = word_errors_and_kinds(references, before)
    return SetResult(
        name=name,
        run=total_words(run_errors, words).wer,
        file=total_words(errors, words).wer,
        run_loops=run_kinds["loops"],
        file_loops=kinds["loops"],
        changed=sum(after[key] != before[key] for key in after),
        utterances=len(after),
        verdict=compare(references, before, after, speakers),
        units=units_of(speakers, errors, words),
    )


def _config(folder: RunFolder) -> dict[str, Any]:
    """The run's config."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(folder.read_config())  # type: ignore[return-value]  # a DictConfig gives a dict
