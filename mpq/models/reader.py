"""What turns recordings and transcripts into a model's inputs and labels, without the model itself."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mpq.models.processor import takes_waveform


@dataclass(frozen=True, eq=False)
class Reader(ABC):
    """Reads for a model with the `processor` (feature extractor, tokenizer) of transformers; can be pickled."""

    processor: Any

    @property
    def sampling_rate(self) -> int:
        """The sampling rate of the audio, in Hz."""
        return self.processor.feature_extractor.sampling_rate

    @property
    def takes_waveform(self) -> bool:
        """Whether a model's inputs are the samples themselves rather than features."""
        return takes_waveform(self.processor)

    @property
    @abstractmethod
    def longest_seconds(self) -> float | None:
        """The longest recording that the model can be trained on, in seconds; None if there is no limit."""

    @property
    @abstractmethod
    def normalizer(self) -> str | None:
        """The name, for records, of the normaliser that `scored` applies; None if texts are only spelled alike."""

    @property
    @abstractmethod
    def spelling(self) -> str | None:
        """In words, for records: how labels and `scored` texts are brought to a vocabulary; None if not at all."""

    @abstractmethod
    def inputs(self, samples: np.ndarray) -> tuple[torch.Tensor, int]:
        """Return a model's inputs `[time]` or `[time, features]` for one recording, and their length without padding.

        `samples`: at `sampling_rate`.
        """

    @abstractmethod
    def labels(self, text: str) -> torch.Tensor:
        """Return the tokens `[tokens]` that the model is trained to produce for `text`."""

    @abstractmethod
    def scored(self, text: str) -> str:
        """Return `text` in the form in which references and hypotheses are stored and compared."""
