"""From utterances to padded tensors.

Each utterance goes through the model's own feature extractor alone, so that what a model hears does not depend on its
neighbours in the batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mpq.data import audio
from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.models.processor import spelling


@dataclass(frozen=True)
class Batch:
    """One padded batch.

    inputs: `[batch, time]` float32. lengths: `[batch]` samples. labels: `[batch, characters]`, -100 where padded.
    seconds: audio without padding. skipped: one message for each file that was left out (`on_bad_audio=skip`).
    """

    ids: list[str]
    inputs: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    seconds: float
    skipped: list[str]

    def to(self, device: torch.device | str) -> "Batch":
        """This batch with its tensors on `device`."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("inputs", "lengths", "labels")}
        return Batch(ids=self.ids, seconds=self.seconds, skipped=self.skipped, **moved)

    def pin_memory(self) -> "Batch":
        """This batch in page-locked memory, which a GPU copies from while it computes."""
        pinned = {name: getattr(self, name).pin_memory() for name in ("inputs", "lengths", "labels")}
        return Batch(ids=self.ids, seconds=self.seconds, skipped=self.skipped, **pinned)


class SpeechDataset(Dataset[dict[str, Any]]):
    """Utterances, decoded and turned into model inputs when they are asked for."""

    def __init__(self, utterances: Sequence[Utterance], processor: Any, on_bad_audio: str) -> None:
        self.utterances = list(utterances)
        self._processor = processor
        self._stop = on_bad_audio == "stop"

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> dict[str, Any]:
        utterance = self.utterances[index]
        extractor = self._processor.feature_extractor
        try:
            samples = audio.load(utterance.path, extractor.sampling_rate)
        except audio.BadAudioError as error:
            if self._stop:
                raise UserError(f"{error}; mend it or leave such files out with data.on_bad_audio=skip") from None
            return {"id": utterance.id, "skipped": str(error)}
        features = extractor(samples, sampling_rate=extractor.sampling_rate, return_attention_mask=False)
        labels = self._processor.tokenizer(spelling(self._processor, utterance.text)).input_ids
        return {
            "id": utterance.id,
            "inputs": torch.as_tensor(features["input_values"][0]),
            "labels": torch.as_tensor(labels),
            "seconds": len(samples) / extractor.sampling_rate,
        }


def collate(items: Sequence[dict[str, Any]]) -> Batch:
    """Pad utterances to one batch; inputs with zeros, labels with -100."""
    good = [item for item in items if "skipped" not in item]
    pad = torch.nn.utils.rnn.pad_sequence
    empty = torch.zeros(0, 0)
    return Batch(
        ids=[item["id"] for item in good],
        inputs=pad([item["inputs"] for item in good], batch_first=True) if good else empty,
        lengths=torch.tensor([len(item["inputs"]) for item in good], dtype=torch.long),
        labels=pad([item["labels"] for item in good], batch_first=True, padding_value=-100) if good else empty.long(),
        seconds=sum(item["seconds"] for item in good),
        skipped=[item["skipped"] for item in items if "skipped" in item],
    )


def loader(dataset: SpeechDataset, batches: Iterable[list[int]], workers: int, pin: bool = False) -> DataLoader[Batch]:
    """A DataLoader over given batches, decoded by `workers` processes (0: in this one)."""
    return DataLoader(
        dataset,
        batch_sampler=list(batches),  # type: ignore[arg-type]  # any iterable of index lists serves
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )
