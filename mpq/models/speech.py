"""A speech recognition model with its processor: all that the rest of this package needs to know about its kind.

Training, calibration, searches, evaluation and deployment go through `SpeechModel`, so that nothing else asks which
kind a model is of: how audio becomes inputs, what the model predicts, the training loss, what a teacher provides to a
student, and how the outputs become text. The kinds are CTC (`mpq.models.ctc`) and sequence to sequence
(`mpq.models.seq2seq`); `mpq.models.loading` chooses.

A **position** is one prediction of a model: a frame of CTC, or the next token of a sequence-to-sequence model. Losses
and divergences are means over positions that are not padding.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mpq.models.reader import Reader


@dataclass(frozen=True)
class Choices:
    """Settings of `model` in the config that only some kinds use.

    margin_seconds: silence after the batch's longest recording, for a model that was trained on 30 s of audio (None:
    all of the 30 s). language: spoken in the recordings, for a multilingual model. fallback: whether a text that
    repeats itself is decoded again (`mpq.models.fallback`).
    """

    margin_seconds: float | None = None
    language: str | None = None
    fallback: bool = False


DEFAULT = Choices()


@dataclass(frozen=True, eq=False)
class SpeechModel(ABC):
    """A `model` of transformers, and the `processor` (feature extractor, tokenizer) that it was trained with."""

    model: Any
    processor: Any
    choices: Choices = DEFAULT

    KIND: ClassVar[str]
    OPTIONAL_WEIGHTS: ClassVar[tuple[str, ...]]
    """Ends of the names of weights that a checkpoint may lack; they are then zero."""

    @staticmethod
    @abstractmethod
    def prepare(model: Any) -> nn.Module:
        """Return a model just loaded or made, ready for use, in eval mode."""

    @staticmethod
    @abstractmethod
    def processor_from_scratch(architecture: Mapping[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Return a processor for a model with random weights, and what follows for its config and generation config.

        `architecture`: the other settings of its config.
        """

    @property
    @abstractmethod
    def reader(self) -> Reader:
        """What turns audio and text into inputs and labels; it needs no model, so worker processes get no copy."""

    @property
    def sampling_rate(self) -> int:
        """The sampling rate of the audio, in Hz."""
        return self.processor.feature_extractor.sampling_rate

    @property
    def one_language(self) -> str | None:
        """The language whose adapter the model has, of several that it was made with; None if it has no adapters."""
        return getattr(self.model, "target_lang", None)

    @property
    def takes_language(self) -> bool:
        """Whether it was made for several languages, so that one has to be chosen."""
        return self.one_language is not None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    @abstractmethod
    def front(self) -> nn.Module | None:
        """The module that runs first, on the inputs alone, and whose outputs nothing changes in place; None without."""

    def copy(self) -> Self:
        """Return a copy of the model, with the same processor."""
        return replace(self, model=copy.deepcopy(self.model))

    def to_accelerator(self, accelerator: str) -> None:
        """Move the model to the GPU unless `accelerator` (Lightning's word) is "cpu" or there is none."""
        self.model.to("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")

    @abstractmethod
    def freeze_feature_encoder(self) -> None:
        """Exclude the convolutions on the audio from training."""

    @abstractmethod
    def positions(self, lengths: Tensor, label_counts: Tensor) -> Tensor:
        """Return the number of positions `[batch]` for inputs of `lengths` and `label_counts`, both `[batch]`."""

    @abstractmethod
    def loss_units(self, positions: Tensor) -> Tensor:
        """Return the number of utterances or positions that `loss` is a mean over, for `positions` `[batch]`."""

    @abstractmethod
    def logits(self, inputs: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the logits `[batch, positions, vocabulary]` for padded `inputs` `[batch, time, ...]` of `lengths`.

        `labels`: `[batch, tokens]`, -100 for padding.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        """Return the task's loss for a batch's `logits`, `positions` and labels, a mean over `loss_units`."""

    @abstractmethod
    def without_padding(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return `inputs` as if their utterances were a batch of their own."""

    @abstractmethod
    def real_rows(self, rows: tuple[int, ...], positions: Tensor) -> Tensor | None:
        """Return which rows are not padding, boolean, for a layer's input whose leading dimensions are `rows`.

        None if every row counts. `positions`: of the batch, `[batch]`.
        """

    @abstractmethod
    def transcribe(self, inputs: Tensor, lengths: Tensor) -> list[str]:
        """Return the text of each row, decoded greedily, without a language model."""

    @abstractmethod
    def labels_for_student(self, inputs: Tensor, lengths: Tensor) -> list[str | None]:
        """Return `transcribe`'s texts to train a student on; None where the model never ended its text."""

    def targets(self, inputs: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Return the logits as a student's targets: without gradients, after moving the model to the inputs' device."""
        self.model.to(inputs.device)
        with torch.no_grad():
            return self.logits(inputs, lengths, labels)
