"""The teacher's posteriors, kept on disk: what it has heard once it need not hear again, in this run or in another.

The teacher hears each utterance alone, so what is kept depends on no batch, and an update is the same whether its
targets were made or read. For a model that is told where padding begins they are those of a batch but for rounding; one
with a group norm, which hears the padding of its batch, would say something slightly different of it.

A float32 file an utterance: 23 MB an hour of speech for 32 characters and 50 frames a second.
"""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mpq.checkpoint.parameters import weights_digest
from mpq.data.corpus import Corpus
from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models import ctc
from mpq.record.atomic import replacing

_KEY = "posteriors"


def hear(teacher: nn.Module, inputs: Tensor, lengths: Tensor, attention_mask: bool) -> Tensor:
    """What the teacher says, without gradients, on the device of `inputs`; shapes as in `ctc.logits`."""
    teacher.to(inputs.device)
    with torch.no_grad():
        return ctc.logits(teacher, inputs, lengths, attention_mask)


class Posteriors:
    """Reads a teacher's posteriors from `folder`, and has the teacher make those that are not there."""

    def __init__(self, folder: Path, teacher: nn.Module, attention_mask: bool) -> None:
        """Take the `folder` of this teacher and data (`folder_of`); `attention_mask` is that of `ctc.logits`."""
        self._folder = folder
        self._teacher = teacher.eval()
        self._attention_mask = attention_mask

    def __call__(self, batch: Batch, frames: int) -> Tensor:
        """Log posteriors `[batch, frames, vocabulary]`, float32, zeros where an utterance has ended.

        Raises: UserError where what the teacher made can't be written.
        """
        rows = []
        for row, count in enumerate(ctc.frames(self._teacher, batch.lengths).tolist()):
            kept = self._read(batch.ids[row], count)
            rows.append(self._make(batch, row, count) if kept is None else kept.to(batch.inputs.device))
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return nn.functional.pad(padded, (0, 0, 0, frames - padded.shape[1]))

    def _read(self, name: str, frames: int) -> Tensor | None:
        """What is kept of the utterance; None where nothing is, or a damaged file."""
        try:
            kept = load_file(self._path(name)).get(_KEY)
        except (OSError, SafetensorError):
            return None
        fits = kept is not None and kept.dtype == torch.float32 and kept.ndim == 2 and len(kept) == frames
        return kept if fits else None

    def _make(self, batch: Batch, row: int, frames: int) -> Tensor:
        """Have the teacher hear one utterance of the batch, without its padding, and keep what it says."""
        length = batch.lengths[row : row + 1]
        outputs = hear(self._teacher, batch.inputs[row : row + 1, : int(length)], length, self._attention_mask)
        posteriors = outputs[0, :frames].float().log_softmax(-1)
        path = self._path(batch.ids[row])
        try:
            with replacing(path) as temporary:
                save_file({_KEY: posteriors.cpu().contiguous()}, temporary)
        except (OSError, SafetensorError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise UserError(f"{path} can't be written ({reason}): distill.keep=false does without it") from None
        return posteriors

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


def folder_of(cache: Path | str, teacher: Any, processor: Any, corpus: Corpus, precision: str) -> Path:
    """The folder in `cache` of what this `teacher` says of this `corpus`, computed in the trainer's `precision`.

    Its name is made of all that the posteriors depend on: weights and config of the teacher, how its processor makes
    inputs of audio, and the data.

    Raises: UserError where two training utterances have the same name.
    """
    for name, count in Counter(utterance.id for utterance in corpus.train).items():
        if count > 1:
            raise UserError(
                f"distill.keep=true needs one name for each utterance, but {name} is in the training data twice"
            )
    config = json.loads(teacher.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)  # where the teacher was read from
    extractor = processor.feature_extractor.to_json_string()
    parts = [weights_digest(teacher), config, extractor, corpus.hash, precision]
    return Path(cache) / f"posteriors-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}"
