"""Turns utterances into padded tensors.

Each utterance goes through the model's feature extractor alone, so that its input does not depend on the other
utterances of the batch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mpq.data import audio
from mpq.data.librispeech import Utterance
from mpq.data.worker import outlive_signals
from mpq.errors import UserError
from mpq.models.reader import Reader

_TENSORS = ("inputs", "lengths", "labels", "update_lengths", "update_label_counts")


@dataclass(frozen=True)
class Batch:
    """One padded batch.

    inputs: `[batch, time]` float32, or `[batch, time, features]` for a model that takes features. lengths: `[batch]`
    along the time axis. labels: `[batch, tokens]`, -100 for padding. seconds: audio without padding. skipped: one
    message per file that was left out (`on_bad_audio=skip`). update_lengths, update_label_counts: the `lengths` and
    `label_counts` of all batches that this process contributes to the same update, if there are several.
    """

    ids: list[str]
    inputs: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    seconds: float
    skipped: list[str]
    update_lengths: torch.Tensor | None = None
    update_label_counts: torch.Tensor | None = None

    @property
    def label_counts(self) -> torch.Tensor:
        """The number of labels `[batch]` without padding."""
        return (self.labels >= 0).sum(-1)

    def to(self, device: torch.device | str) -> "Batch":
        """Return this batch with its tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return this batch in page-locked memory, from which a GPU can copy while it computes."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


Labeller = Callable[[Sequence[Utterance], bool], Mapping[str, str]]
"""Returns texts to train on by utterance id; the flag says whether to stop at a bad file."""


class SpeechDataset(Dataset[dict[str, Any]]):
    """Utterances, decoded and turned into model inputs on access.

    The tokenizer turns a character that is not in the vocabulary into the unknown token: the model learns that
    something is said there, and the reference keeps the character, so that it counts as a word error.
    """

    def __init__(
        self, utterances: Sequence[Utterance], reader: Reader, on_bad_audio: str, labeller: Labeller | None = None
    ) -> None:
        """Take what to read, how, and the `labeller` whose texts, if given, are the labels instead of transcripts."""
        self.utterances = list(utterances)
        self.reader = reader
        self.stop = on_bad_audio == "stop"
        self._labeller = labeller
        self._texts: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the labeller, which may hold a model: processes that decode audio only need its texts."""
        return {**self.__dict__, "_labeller": None}

    def label(self, indices: Iterable[int]) -> None:
        """Have the labeller write the texts of these utterances, unless they are known."""
        if self._labeller is not None:
            unknown = [self.utterances[index] for index in dict.fromkeys(indices)]
            self._texts |= self._labeller([u for u in unknown if u.id not in self._texts], self.stop)

    def multiple_of(self, seconds: float) -> int:
        """Return how many samples of a waveform last `seconds`, at least one; 1 for a model that takes features."""
        return max(1, round(seconds * self.reader.sampling_rate)) if self.reader.takes_waveform else 1

    def check_labels(self, outputs: int) -> None:
        """Raise UserError if a transcript needs a token beyond the model's `outputs`, which has no loss."""
        vocabulary = self.reader.processor.tokenizer.get_vocab()
        beyond = {number: token for token, number in vocabulary.items() if number >= outputs}
        for utterance in self.utterances if beyond else ():
            if found := [beyond[label] for label in self.reader.labels(utterance.text).tolist() if label in beyond]:
                raise UserError(
                    f"the transcript of {utterance.id} needs the token {found[0]!r}, number {vocabulary[found[0]]} of "
                    f"the tokenizer's {len(vocabulary)}, but the model's head has {outputs} outputs: give the model a "
                    "tokenizer whose vocabulary matches its head"
                )

    def __getitem__(self, index: int) -> dict[str, Any]:
        utterance = self.utterances[index]
        rate = self.reader.sampling_rate
        try:
            samples = audio.load(utterance.path, rate)
        except audio.BadAudioError as error:
            return {"id": utterance.id, "skipped": str(error)}
        inputs, length = self.reader.inputs(samples)
        return {
            "id": utterance.id,
            "inputs": inputs,
            "length": length,
            "labels": self.reader.labels(self._texts.get(utterance.id, utterance.text)),
            "seconds": len(samples) / rate,
        }


def collate(items: Sequence[dict[str, Any]], multiple: int = 1) -> Batch:
    """Pad utterances to one batch: inputs with zeros, to a multiple of `multiple` in length, labels with -100."""
    good = [item for item in items if "skipped" not in item]
    pad = torch.nn.utils.rnn.pad_sequence
    empty = torch.zeros(0, 0)
    inputs = pad([item["inputs"] for item in good], batch_first=True) if good else empty
    beyond = [0, 0] * (inputs.ndim - 2) + [0, -inputs.shape[1] % multiple]
    return Batch(
        ids=[item["id"] for item in good],
        inputs=torch.nn.functional.pad(inputs, beyond) if good and beyond[-1] else inputs,
        lengths=torch.tensor([item["length"] for item in good], dtype=torch.long),
        labels=pad([item["labels"] for item in good], batch_first=True, padding_value=-100) if good else empty.long(),
        seconds=sum((item["seconds"] for item in good), start=0.0),
        skipped=[item["skipped"] for item in items if "skipped" in item],
    )


class _Loader(DataLoader[Any]):
    """Stops at a bad file here, not where it is decoded: an error raised in a worker arrives as a traceback."""

    accumulate = 1

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # as PyTorch's own, but checked
        batches = self._checked()
        while update := list(islice(batches, self.accumulate)):
            if self.accumulate > 1:
                lengths = torch.cat([batch.lengths for batch in update])
                counts = torch.cat([batch.label_counts for batch in update])
                update = [replace(b, update_lengths=lengths, update_label_counts=counts) for b in update]
            yield from update

    def _checked(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if batch.skipped and self.dataset.stop:  # type: ignore[attr-defined]
                raise UserError(f"{batch.skipped[0]}; fix it or skip such files with data.on_bad_audio=skip")
            yield batch


def loader(
    dataset: SpeechDataset,
    batches: Iterable[list[int]],
    workers: int,
    pin: bool = False,
    accumulate: int = 1,
    multiple: int = 1,
) -> DataLoader[Batch]:
    """Return a DataLoader over the given batches, decoded by `workers` processes (0: by this one).

    `accumulate`: batches per update. `multiple`: batches are padded to a multiple of this length along time.

    Iterating raises UserError at a bad file if the dataset's `on_bad_audio` is "stop".
    """
    batches = list(batches)
    dataset.label(index for batch in batches for index in batch)
    made = _Loader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of index lists works
        collate_fn=partial(collate, multiple=multiple),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=outlive_signals,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )
    made.accumulate = accumulate
    return made
