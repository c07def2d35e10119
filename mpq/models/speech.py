"""A speech model together with its processor: all that the rest of this package needs to know of its family.

Training, calibration, evaluation and deployment go through this class, so that a family is described in one place: how
audio becomes inputs, how inputs become logits, which loss they are trained with, what a teacher passes on to a student,
and how logits become text. The family here is CTC (`mpq.models.ctc`).
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mpq.models import ctc, processor


@dataclass(frozen=True, eq=False)
class SpeechModel:
    """A `model` of transformers, and the `processor` (feature extractor, tokenizer) that it was trained with.

    Data loading needs the processor alone: worker processes get no copy of the model (`mpq.models.processor`).
    """

    model: Any
    processor: Any

    @property
    def takes_attention_mask(self) -> bool:
        """Whether an attention mask tells the model where padding begins; otherwise it takes the zeros as audio."""
        return bool(self.processor.feature_extractor.return_attention_mask)

    @property
    def sampling_rate(self) -> int:
        """Of the audio, in Hz."""
        return self.processor.feature_extractor.sampling_rate

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def stride(self) -> int | None:
        """Samples from one output frame to the next; None where that is not known."""
        return ctc.stride(self.model)

    def copy(self) -> "SpeechModel":
        """A copy of the model, with the same processor."""
        return replace(self, model=copy.deepcopy(self.model))

    def to_accelerator(self, accelerator: str) -> None:
        """Move the model to the GPU unless `accelerator` (Lightning's word) is "cpu" or there is none."""
        self.model.to("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")

    def inputs(self, samples: np.ndarray) -> Tensor:
        """The model's inputs `[time]`, or `[time, features]`, of one recording: `samples` `[time]` at its rate."""
        return processor.inputs(self.processor, samples)

    def frames(self, lengths: Tensor) -> Tensor:
        """The number of output frames `[batch]` of inputs of `lengths` `[batch]`."""
        return ctc.frames(self.model, lengths)

    def logits(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Log-odds of the characters `[batch, frames, vocabulary]`, for padded `inputs` `[batch, time]` of `lengths`.

        Inputs shorter than the convolutions' reach are padded with zeros to it, although `frames` counts no frame for
        them.
        """
        shortest = ctc.reach(self.model)
        if inputs.shape[1] < shortest:
            inputs = F.pad(inputs, [0, 0] * (inputs.ndim - 2) + [0, shortest - inputs.shape[1]])
        mask = None
        if self.takes_attention_mask:
            lengths = lengths.clamp_min(shortest)
            mask = (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]).long()
        return self.model(**{self.model.main_input_name: inputs}, attention_mask=mask).logits

    def loss(self, outputs: Tensor, frame_counts: Tensor, labels: Tensor) -> Tensor:
        """The loss of the task, for `logits` and `frames` of a batch and its labels (`mpq.models.ctc.ctc_loss`)."""
        return ctc.ctc_loss(self.model, outputs, frame_counts, labels)

    def targets(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """The logits as a student's targets: without gradients, the model moved to the device of `inputs`."""
        self.model.to(inputs.device)
        with torch.no_grad():
            return self.logits(inputs, lengths)

    def transcribe(self, inputs: Tensor, lengths: Tensor) -> list[str]:
        """The text of each row: the likeliest character of each frame (greedy), without a language model."""
        best = self.logits(inputs, lengths).argmax(-1).cpu()
        counts = self.frames(lengths).tolist()
        decode = self.processor.tokenizer.decode
        return [decode(characters[:count]) for characters, count in zip(best, counts, strict=True)]
