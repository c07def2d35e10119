"""CTC models of transformers (wav2vec 2.0, HuBERT, WavLM, data2vec and others): frames, logits, loss, text.

Nothing here depends on a model family's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.models import processor
from mpq.models.kinds import CTC
from mpq.models.reader import Reader
from mpq.models.speech import SpeechModel


class CtcReader(Reader):
    """Reads for a CTC model: characters are labels, and texts are spelled as the vocabulary spells them."""

    @property
    def longest_seconds(self) -> float | None:
        """No limit."""
        return None

    @property
    def normalizer(self) -> str | None:
        """None: texts are only spelled alike."""
        return None

    @property
    def spelling(self) -> str:
        """The rule that fits the vocabulary."""
        return processor.spelling_rule(self.processor.tokenizer.get_vocab())

    def inputs(self, samples: np.ndarray) -> tuple[Tensor, int]:
        """See `Reader.inputs`."""
        made = processor.inputs(self.processor, samples)
        return made, len(made)

    def labels(self, text: str) -> Tensor:
        """Return the tokens `[characters]` of `text`; missing characters become the unknown token."""
        return processor.labels(self.processor, text)

    def scored(self, text: str) -> str:
        """Return `text` spelled for the vocabulary (`mpq.models.processor.scored`)."""
        return processor.scored(self.processor.tokenizer.get_vocab(), text)


@dataclass(frozen=True, eq=False)
class CtcModel(SpeechModel):
    """A CTC model: its positions are the output frames.

    Raises: UserError if it was loaded for another language than `choices.language`.
    """

    KIND: ClassVar[str] = CTC
    OPTIONAL_WEIGHTS: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)  # which facebook's checkpoints lack

    def __post_init__(self) -> None:
        own = getattr(self.processor.tokenizer, "target_lang", None)
        if own is not None and self.choices.language not in (None, own):
            raise UserError(
                f"the model is for one language, {own}, not for {self.choices.language}: name the model with all "
                "languages that it was made from"
            )

    @staticmethod
    def prepare(model: Any) -> nn.Module:
        """Return `model` in eval mode, with the settings of its own loss that fine-tuning recipes use.

        Raises: UserError if its head has no output for the blank.
        """
        _check_blank(model.config)
        # They average over characters and must tolerate utterances with fewer frames than characters.
        model.config.ctc_loss_reduction = "mean"
        model.config.ctc_zero_infinity = True
        return model.eval()

    @staticmethod
    def processor_from_scratch(architecture: Mapping[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Return the processor over letters, and the size of its vocabulary and its padding token."""
        made = processor.letters_processor()
        return made, {"vocab_size": len(made.tokenizer), "pad_token_id": 0}, {}

    @property
    def reader(self) -> CtcReader:
        """What turns audio and text into inputs and labels."""
        return CtcReader(self.processor)

    @property
    def takes_attention_mask(self) -> bool:
        """Whether the model gets an attention mask for the padding; otherwise it treats the zeros as audio."""
        return bool(self.processor.feature_extractor.return_attention_mask)

    @property
    def stride(self) -> int:
        """Samples from one output frame to the next."""
        return stride(self.model) * processor.hop(self.processor)

    @property
    def front(self) -> nn.Module | None:
        """The convolutions on the audio; a model that takes features has none."""
        return getattr(self.model.base_model, "feature_extractor", None)

    def freeze_feature_encoder(self) -> None:
        """Exclude the convolutions on the audio from training; a model that takes features has none."""
        if hasattr(self.model, "freeze_feature_encoder"):
            self.model.freeze_feature_encoder()

    def frames(self, lengths: Tensor) -> Tensor:
        """Return the number of output frames `[batch]` for inputs of `lengths` `[batch]`."""
        return frames(self.model, lengths)

    def positions(self, lengths: Tensor, label_counts: Tensor) -> Tensor:
        """Return the number of output frames `[batch]`."""
        return self.frames(lengths)

    def loss_units(self, positions: Tensor) -> Tensor:
        """Return the number of utterances."""
        return torch.tensor(len(positions), device=positions.device)

    def logits(self, inputs: Tensor, lengths: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the logits `[batch, frames, vocabulary]`; the labels are not used.

        Inputs shorter than the convolutions' receptive field are zero-padded to it, although `frames` is 0 for them.
        """
        shortest = reach(self.model)
        if inputs.shape[1] < shortest:
            inputs = F.pad(inputs, [0, 0] * (inputs.ndim - 2) + [0, shortest - inputs.shape[1]])
        mask = None
        if self.takes_attention_mask:
            lengths = lengths.clamp_min(shortest)
            mask = (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]).long()
        return self.model(**{self.model.main_input_name: inputs}, attention_mask=mask).logits

    def loss(self, outputs: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        """Return the CTC loss, a mean over utterances (`ctc_loss`)."""
        return ctc_loss(self.model, outputs, positions, labels)

    def without_padding(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return `inputs` cut to the longest."""
        return inputs[:, : int(lengths.max())]

    def real_rows(self, rows: tuple[int, ...], positions: Tensor) -> Tensor | None:
        """Return the frames without padding, for inputs that have one row per output frame."""
        if rows != (len(positions), int(positions.max())):
            return None
        return torch.arange(rows[1], device=positions.device) < positions[:, None]

    def transcribe(self, inputs: Tensor, lengths: Tensor) -> list[str]:
        """Return the text of each row: the likeliest character of each frame, without a language model."""
        best = self.logits(inputs, lengths).argmax(-1).cpu()
        counts = self.frames(lengths).tolist()
        tokenizer = self.processor.tokenizer
        return [processor.decode(tokenizer, row[:count]) for row, count in zip(best, counts, strict=True)]

    def labels_for_student(self, inputs: Tensor, lengths: Tensor) -> list[str | None]:
        """Return `transcribe`'s texts."""
        return [*self.transcribe(inputs, lengths)]


def _check_blank(config: Any) -> None:
    if config.pad_token_id is None or not 0 <= config.pad_token_id < config.vocab_size:
        raise UserError(
            f"the model has no CTC blank: pad_token_id={config.pad_token_id} in its config.json must be one of the "
            f"head's {config.vocab_size} outputs, 0 to {config.vocab_size - 1}"
        )


def frames(model: Any, lengths: Tensor) -> Tensor:
    """Return the number of output frames `[batch]` for inputs of `lengths` `[batch]` (samples for raw audio)."""
    # transformers has two names for this: one for models that take audio, one for some that take features.
    count = getattr(model, "_get_feat_extract_output_lengths", None) or model._get_subsampling_output_length
    return count(lengths).to(torch.long).clamp_min(0)  # the formula gives negative numbers for very short inputs


def reach(model: Any, count: int = 1) -> int:
    """Return the length of the shortest input with `count` output frames; for 1, the convolutions' receptive field."""
    least = max(count, getattr(model.config, "squeeze_factor", 1))  # SEW pools that many frames and upsamples again
    longest = 1024
    while not bool((found := frames(model, torch.arange(1, longest + 1)) >= least).any()):
        longest *= 2
    return int(found.int().argmax()) + 1


def stride(model: Any) -> int:
    """Return the length of the inputs (samples, or frames of features) from one output frame to the next."""
    return reach(model, 9) - reach(model, 8)


def ctc_loss(model: Any, outputs: Tensor, frame_counts: Tensor, labels: Tensor) -> Tensor:
    """Return the CTC loss (Graves et al. 2006) in nats per character, averaged over the batch.

    outputs: `[batch, frames, vocabulary]` before softmax. frame_counts: `[batch]`. labels: `[batch, characters]`, -100
    for padding.
    """
    log_probabilities = F.log_softmax(outputs.float(), dim=-1).transpose(0, 1)
    present = labels >= 0
    return F.ctc_loss(
        log_probabilities,
        labels.masked_fill(~present, 0),
        frame_counts,
        present.sum(-1),
        blank=model.config.pad_token_id,
        reduction="mean",
        zero_infinity=True,
    )
