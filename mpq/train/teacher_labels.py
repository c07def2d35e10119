"""Transcripts that the teacher writes for its student: labels in its own form, from audio alone.

A sequence-to-sequence model predicts casing, punctuation and numerals as it learnt them, and a corpus in capitals has
none of these. So such a student is trained on what its teacher writes (greedy), with the teacher's posteriors. Texts
are made when an utterance is first needed and kept on disk, one file per utterance, for later epochs, other runs and
after a kill. Where the teacher does not end its text (a loop), the corpus's own transcript is taken.

The ledger does not count the time for it: a text serves every system and seed, so the first run would pay for all.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from mpq.checkpoint.tensors import weights_digest
from mpq.data.batching import by_length
from mpq.data.dataset import SpeechDataset, loader
from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.files import write_text
from mpq.models.speech import SpeechModel
from mpq.progress import track
from mpq.train import processes

_SECONDS = 100.0  # of padded audio per batch


class TeacherLabels:
    """The labeller of a `SpeechDataset`: texts by `teacher`, kept in a folder of `cache`."""

    def __init__(
        self,
        teacher: SpeechModel,
        cache: Path | str,
        data_hash: str,
        accelerator: str,
        paused: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Take the `teacher`, the folder of all caches, the data's hash, and what stops the clock of a stage."""
        self._teacher = teacher
        self._accelerator = accelerator
        self._paused = paused
        generation = getattr(teacher.model, "generation_config", None)
        extractor = teacher.processor.feature_extractor.to_json_string()
        parts = [weights_digest(teacher.model), asdict(teacher.choices), extractor, data_hash]
        parts += [generation.to_json_string()] if generation else []
        name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        self._folder = Path(cache) / f"transcripts-{name}"

    def __call__(self, utterances: Sequence[Utterance], stop: bool) -> Mapping[str, str]:
        """Return the texts of `utterances` by id: those on disk, and, with a progress bar, those that were missing.

        Raises: UserError if a text can't be written, or at a bad file if told to `stop`.
        """
        found = {utterance.id: self._read(utterance.id) for utterance in utterances}
        if missing := [utterance for utterance in utterances if found[utterance.id] is None]:
            with self._paused():
                found |= dict(self._written(missing, stop))
        return {name: text for name, text in found.items() if text is not None}

    def _written(self, utterances: Sequence[Utterance], stop: bool) -> Iterator[tuple[str, str]]:
        """Transcribe and keep, batch by batch; files that can't be read are left out."""
        self._teacher.to_accelerator(self._accelerator)
        self._teacher.model.eval()
        own = {utterance.id: utterance.text for utterance in utterances}
        dataset = SpeechDataset(utterances, self._teacher.reader, "stop" if stop else "skip")
        batches = by_length([utterance.seconds for utterance in utterances], _SECONDS)
        shown = processes.rank() == 0
        for batch in track(loader(dataset, batches, 0), "Teacher's transcripts", "batches", len(batches), shown):
            if not batch.ids:
                continue
            batch = batch.to(self._teacher.device)
            texts = self._teacher.labels_for_student(batch.inputs, batch.lengths)
            for name, text in zip(batch.ids, texts, strict=True):
                text = own[name] if text is None else text
                try:
                    write_text(self._path(name), json.dumps({"text": text}, ensure_ascii=False))
                except OSError as error:
                    raise UserError(f"{self._path(name)} can't be written ({error}): choose another cache=") from None
                yield name, text

    def _read(self, name: str) -> str | None:
        """Return the text of an utterance; None if there is no file or it is damaged."""
        try:
            text = json.loads(self._path(name).read_text(encoding="utf-8"))["text"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return text if isinstance(text, str) else None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
