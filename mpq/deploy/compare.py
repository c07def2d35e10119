"""Compares an exported ONNX file with the model that it was made from, on the evaluation sets of that model's run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpq.data.audio import load
from mpq.data.batching import by_length
from mpq.data.corpus import open_corpus
from mpq.data.librispeech import Utterance
from mpq.deploy.runtime import OnnxRecognizer
from mpq.errors import UserError
from mpq.evaluate.significance import Comparison, compare
from mpq.evaluate.wer import word_errors
from mpq.progress import track
from mpq.record.hypotheses import read_hypotheses
from mpq.record.run_folder import RunFolder


@dataclass(frozen=True)
class SetResult:
    """One evaluation set: word error rates of the run's model and of the file in percent, and the test between them.

    changed: how many of the `utterances` got a different transcript.
    """

    name: str
    run: float
    file: float
    changed: int
    utterances: int
    verdict: Comparison


def compare_with_run(file: Path, run: Path, cache: str, sets: Sequence[str]) -> list[SetResult]:
    """Transcribe `sets` (empty: all) of the run's data with the ONNX file and compare with the run's hypotheses.

    `run` is `<root>/<name>/seed<k>`, `cache` the folder of the embedded corpus.

    Raises: UserError if the run's record or data is missing, its recordings have changed since, or it was not evaluated
    on one of `sets`.
    """
    folder = RunFolder.at(run)
    data, before = _data(folder), read_hypotheses(folder.hypotheses)
    if unknown := [name for name in sets if name not in before]:
        raise UserError(f"{run} was not evaluated on {unknown[0]}; its sets are {', '.join(before)}")
    corpus = open_corpus(**{key: data[key] for key in ("root", "corpus", "train", "test", "on_bad_audio")}, cache=cache)
    if data["root"] and corpus.hash != folder.read().provenance.data.hash:
        raise UserError(f"{data['root']} has changed since {run}: its hypotheses are of other recordings")
    recognizer = OnnxRecognizer(file)
    chosen = list(sets) or list(before)
    return [_compared(recognizer, name, corpus.test[name], before[name], data["test_audio_seconds"]) for name in chosen]


def transcribe_set(
    recognizer: OnnxRecognizer, utterances: Sequence[Utterance], audio_seconds: float, title: str
) -> dict[str, str]:
    """The hypotheses by utterance id, with the batches and the spelling of `mpq.evaluate.transcribe`."""
    from mpq.models.processor import scored  # here: torch takes seconds, which no mistake needs

    rate = recognizer.description.sampling_rate
    found: dict[str, str] = {}
    for batch in track(by_length([utterance.seconds for utterance in utterances], audio_seconds), title, "batches"):
        texts = recognizer.transcribe([load(utterances[index].path, rate) for index in batch])
        found |= {
            utterances[index].id: scored(recognizer.description.vocabulary, text)
            for index, text in zip(batch, texts, strict=True)
        }
    return found


def _compared(
    recognizer: OnnxRecognizer, name: str, utterances: list[Utterance], before: Mapping[str, str], seconds: float
) -> SetResult:
    utterances = [utterance for utterance in utterances if utterance.id in before]
    after = transcribe_set(recognizer, utterances, seconds, f"Transcribing {name}")
    from mpq.models.processor import scored

    references = {utterance.id: scored(recognizer.description.vocabulary, utterance.text) for utterance in utterances}
    speakers = {utterance.id: utterance.speaker for utterance in utterances}
    return SetResult(
        name=name,
        run=word_errors(references, before).wer,
        file=word_errors(references, after).wer,
        changed=sum(after[key] != before[key] for key in after),
        utterances=len(after),
        verdict=compare(references, before, after, speakers),
    )


def _data(folder: RunFolder) -> dict[str, Any]:
    """The section `data` of the run's config."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(folder.read_config().data)  # type: ignore[return-value]  # a DictConfig gives a dict
