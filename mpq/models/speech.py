"""A speech model with its processor: all that the rest of this package needs to know about a model family.

Training, calibration, evaluation and deployment go through this class, so that a family is described in one place: how
audio becomes inputs, how inputs become logits, the training loss, what a teacher provides to a student, and how logits
become text. The family here is CTC (`mpq.models.ctc`).
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

    Data loading needs only the processor, so worker processes get no copy of the model (`mpq.models.processor`).
    """

    model: Any
    processor: Any

    @property
    def takes_attention_mask(self) -> bool:
        """Whether the model gets an attention mask for the padding; otherwise it treats the zeros as audio."""
        return bool(self.processor.feature_extractor.return_attention_mask)

    @property
    def sampling_rate(self) -> int:
        """The sampling rate of the audio, in Hz."""
        return self.processor.feature_extractor.sampling_rate

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def stride(self) -> int | None:
        """Samples from one output frame to the next; None if unknown."""
        return ctc.stride(self.model)

    def copy(self) -> "SpeechModel":
        """Return a copy of the model, with the same processor."""
        return replace(self, model=copy.deepcopy(self.model))

    def to_accelerator(self, accelerator: str) -> None:
        """Move the model to the GPU unless `accelerator` (Lightning's word) is "cpu" or there is none."""
        self.model.to("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")

    def freeze_feature_encoder(self) -> None:
        """Exclude the convolutions on the audio from training; a model that takes features has none."""
        if hasattr(self.model, "freeze_feature_encoder"):
            self.model.freeze_feature_encoder()

    def inputs(self, samples: np.ndarray) -> Tensor:
        """Return the model's inputs `[time]` or `[time, features]` for one recording of `samples` at its rate."""
        return processor.inputs(self.processor, samples)

    def frames(self, lengths: Tensor) -> Tensor:
        """Return the number of output frames `[batch]` for inputs of `lengths` `[batch]`."""
        return ctc.frames(self.model, lengths)

    def logits(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits `[batch, frames, vocabulary]` for padded `inputs` `[batch, time]` of `lengths` `[batch]`.

        Inputs shorter than the convolutions' receptive field are zero-padded to it, although `frames` is 0 for them.
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
        """Return the task's loss for a batch's `logits`, `frames` and labels (`mpq.models.ctc.ctc_loss`)."""
        return ctc.ctc_loss(self.model, outputs, frame_counts, labels)

    def targets(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits as a student's targets: without gradients, after moving the model to the inputs' device."""
        self.model.to(inputs.device)
        with torch.no_grad():
            return self.logits(inputs, lengths)

    def transcribe(self, inputs: Tensor, lengths: Tensor) -> list[str]:
        """Return the text of each row, decoded greedily (likeliest character per frame), without a language model."""
        best = self.logits(inputs, lengths).argmax(-1).cpu()
        counts = self.frames(lengths).tolist()
        decode = self.processor.tokenizer.decode
        return [decode(characters[:count]) for characters, count in zip(best, counts, strict=True)]
