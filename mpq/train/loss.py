"""The training loss: the task's own (CTC, or cross-entropy of the next token), and the divergence from the teacher.

*Shares.* An update's gradient is the mean over its batches (as in Lightning and DDP), but CTC is a mean over utterances
and KL a mean over frames or tokens, and batches differ in both. So each batch's means are multiplied by its share of
all utterances or positions, times the number of batches: the update then equals that of one big batch, however it is
split.

*Cached posteriors* (`distill.keep=true`). The teacher's posteriors are kept on disk, for later epochs and other runs.
The teacher runs on each utterance alone, so a cached posterior is independent of the batch, and an update is the same
whether its targets were computed or read. For a model with an attention mask they equal those of a batch up to
rounding; a model with group norm, which sees the padding of its batch, would give slightly different ones there. There
is one float32 file per utterance: 23 MB per hour of speech for 32 characters and 50 frames per second.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mpq.checkpoint.tensors import weights_digest
from mpq.data.corpus import Corpus
from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.files import replacing
from mpq.models.divergence import kl_divergence
from mpq.models.speech import SpeechModel
from mpq.train.rules import check_loss


@dataclass(frozen=True)
class Share:
    """The factors (scalars) for a batch's mean over `loss_units` and its mean over `positions`."""

    loss_units: Tensor
    positions: Tensor


def share_of(batch: Batch, student: SpeechModel, batches: int, everyones: Callable[[Tensor], Tensor]) -> Share | None:
    """Return the share of `batch` in an update of `batches` batches; None if it is the only one.

    `everyones` sums a tensor over all processes, which must all call it at the same time.
    """
    if batches == 1:
        return None
    lengths = batch.lengths if batch.update_lengths is None else batch.update_lengths
    label_counts = batch.label_counts if batch.update_label_counts is None else batch.update_label_counts
    # 0 if all files of all batches were left out
    total = everyones(_counts(student, lengths, label_counts)).clamp_min(1)
    return Share(*(batches * _counts(student, batch.lengths, batch.label_counts) / total))


def _counts(student: SpeechModel, lengths: Tensor, label_counts: Tensor) -> Tensor:
    """Return the numbers of loss units and positions [2] for inputs and labels of these lengths [utterances]."""
    positions = student.positions(lengths, label_counts)
    return torch.stack([student.loss_units(positions), positions.sum()]).float()


def no_loss(module: nn.Module) -> Tensor:
    """Return a zero loss with zero gradients: a process without gradients would leave the others waiting for it."""
    return torch.stack([0.0 * parameter.sum() for parameter in module.parameters() if parameter.requires_grad]).sum()


_KEY = "posteriors"


class Posteriors:
    """Reads a teacher's posteriors from `folder`, and has the teacher compute missing ones."""

    def __init__(self, folder: Path, teacher: SpeechModel) -> None:
        """Take the `folder` of this teacher and data (`folder_of`)."""
        self._folder = folder
        self._teacher = teacher
        teacher.model.eval()

    def count(self) -> int:
        """Return how many utterances' posteriors are on disk."""
        return sum(1 for _ in self._folder.rglob("*.safetensors"))

    def __call__(self, batch: Batch, longest: int) -> Tensor:
        """Return log posteriors `[batch, longest, vocabulary]`, float32, zeros after an utterance's last position.

        Raises: UserError if computed posteriors can't be written.
        """
        rows = []
        for row, count in enumerate(self._teacher.positions(batch.lengths, batch.label_counts).tolist()):
            kept = self._read(batch.ids[row], count)
            rows.append(self._make(batch, row, count) if kept is None else kept.to(batch.inputs.device))
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return nn.functional.pad(padded, (0, 0, 0, longest - padded.shape[1]))

    def _read(self, name: str, count: int) -> Tensor | None:
        """Return the cached posteriors of the utterance; None if there is no file or it is damaged."""
        try:
            kept = load_file(self._path(name)).get(_KEY)
        except (OSError, SafetensorError):
            return None
        fits = kept is not None and kept.dtype == torch.float32 and kept.ndim == 2 and len(kept) == count
        return kept if fits else None

    def _make(self, batch: Batch, row: int, count: int) -> Tensor:
        """Run the teacher on one utterance of the batch, without its padding, and cache its posteriors."""
        inputs, length, labels = (x[row : row + 1] for x in (batch.inputs, batch.lengths, batch.labels))
        outputs = self._teacher.targets(self._teacher.without_padding(inputs, length), length, labels)
        posteriors = outputs[0, :count].float().log_softmax(-1)
        path = self._path(batch.ids[row])
        try:
            with replacing(path) as temporary:
                save_file({_KEY: posteriors.cpu().contiguous()}, temporary)
        except (OSError, SafetensorError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise UserError(f"{path} can't be written ({reason}): distill.keep=false works without it") from None
        return posteriors

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


def folder_of(
    cache: Path | str, teacher: SpeechModel, corpus: Corpus, precision: str, labels: str = "transcripts"
) -> Path:
    """Return the folder in `cache` for this `teacher`'s posteriors on this `corpus`, in the trainer's `precision`.

    Its name is a hash of all that the posteriors depend on: the teacher's weights, config and choices, how its
    processor turns audio into inputs, the data, the labels (`data.labels`), on which tokens depend, and the precision.

    Raises: UserError if two training utterances have the same name.
    """
    for name, count in Counter(utterance.id for utterance in corpus.train).items():
        if count > 1:
            raise UserError(
                f"distill.keep=true needs one name for each utterance, but {name} is in the training data twice"
            )
    config = json.loads(teacher.model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)  # from where the teacher was read
    extractor = teacher.processor.feature_extractor.to_json_string()
    parts = [weights_digest(teacher.model), config, extractor, corpus.hash, precision, labels, asdict(teacher.choices)]
    return Path(cache) / f"posteriors-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}"


class Loss:
    """`ctc_weight` x the task's loss (CTC or cross-entropy) + `kl_weight` x KL(teacher || student).

    There is one copy of the teacher, in eval mode, which runs without gradients. This class is not an `nn.Module`, so
    the teacher is neither trained nor checkpointed.
    """

    def __init__(
        self,
        ctc_weight: float,
        kl_weight: float,
        temperature: float,
        teacher: SpeechModel | None,
        posteriors: Posteriors | None = None,
    ) -> None:
        """Take the weights, the `temperature` of the posteriors, and the `teacher`, not needed if `kl_weight` is 0.

        `posteriors`, if given, replace forward passes of the teacher.

        Raises: UserError for a negative weight, two weights of zero, a temperature that is not positive, or a
        `kl_weight` without a teacher.
        """
        check_loss(ctc_weight, kl_weight, temperature, has_teacher=teacher is not None)
        self._weights = (ctc_weight, kl_weight)
        self._temperature = temperature
        # Its parameters keep their `requires_grad`: the next stage's student may be a copy of it.
        self._teacher = teacher if kl_weight > 0 else None
        if self._teacher is not None:
            self._teacher.model.eval()
        self._posteriors = posteriors

    def posteriors_found(self) -> int | None:
        """Return how many of the teacher's posteriors are on disk; None if they are not kept."""
        return None if self._posteriors is None else self._posteriors.count()

    def __call__(
        self, student: SpeechModel, batch: Batch, share: Share | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the student's loss on `batch`, weighted by its `share` of an update if given, and parts to log."""
        outputs = student.logits(batch.inputs, batch.lengths, batch.labels)
        return self.of(student, batch, outputs, self.targets(batch, outputs.shape[1]), share)

    def targets(self, batch: Batch, longest: int) -> Tensor | None:
        """Return the teacher's outputs on `batch` `[batch, longest, vocabulary]`; None without a teacher."""
        if self._teacher is None:
            return None
        if self._posteriors is None:
            return self._teacher.targets(batch.inputs, batch.lengths, batch.labels)
        return self._posteriors(batch, longest)

    def of(
        self, student: SpeechModel, batch: Batch, outputs: Tensor, targets: Tensor | None, share: Share | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return what calling this returns, given the student's `outputs`, and `targets` for them (None: no KL)."""
        positions = student.positions(batch.lengths, batch.label_counts)
        parts = {}
        loss = outputs.new_zeros((), dtype=torch.float32)
        if self._weights[0] > 0:
            parts["ctc"] = student.loss(outputs, positions, batch.labels)
            loss = loss + self._weights[0] * (parts["ctc"] if share is None else share.loss_units * parts["ctc"])
        if targets is not None and self._weights[1] > 0:
            parts["kl"] = kl_divergence(outputs, targets, positions, self._temperature)
            loss = loss + self._weights[1] * (parts["kl"] if share is None else share.positions * parts["kl"])
        return loss, {name: part.detach() for name, part in parts.items()}
