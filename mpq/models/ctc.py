"""Any CTC speech model of transformers: loading, frame counts, loss.

The model is loaded by `AutoModelForCTC` and the processor by `AutoProcessor`, from a folder or the Hub; nothing here
depends on a model family's name.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.errors import UserError, first_line
from mpq.models.hub import check_available, local_folder
from mpq.models.processor import letters_processor, load_processor

_MASK = "masked_spec_embed"  # replaces masked frames in training; facebook's fine-tuned checkpoints lack it


def load(path: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Any]:
    """Return the fine-tuned CTC model at `path` (a folder or a Hub name) in eval mode, and its processor.

    A model in the local Hub cache is read from there without contacting the Hub. A mask embedding that the checkpoint
    lacks is set to zero.

    Raises: UserError if there is no such model, it has no trained CTC head or no processor, or it is damaged.
    """
    check_available(path)
    from transformers import AutoModelForCTC
    from transformers.utils import logging

    source = str(local_folder(path) or path)
    if local_folder(path):
        logging.disable_progress_bar()  # needed only for downloads; reading a file from disk takes no time
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # hides its table of mismatched tensors; the errors below say what matters
    try:
        model, info = AutoModelForCTC.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except Exception as error:  # transformers may raise anything on damaged files
        reason = first_line(error)
        if "ignore_mismatched_sizes" in reason:
            reason = "the shapes of its weights differ from those in its config.json"
        raise UserError(f"{path} is not a CTC speech model that transformers can load: {reason}") from None
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(info["missing_keys"])
    if untrained := [name for name in missing if not name.endswith(_MASK)]:
        raise UserError(f"{path} is not fine-tuned for CTC: its weights lack {', '.join(untrained[:3])}")
    for name in missing:
        model.get_parameter(name).data.zero_()  # else transformers draws it at each load, and no two loads are equal
    return _prepare(model), _load_processor(path, source)


def _load_processor(path: str, source: str) -> Any:
    mend = "add the files that its processor's save_pretrained writes"
    try:
        processor = load_processor(source)
    except (ValueError, OSError, KeyError, TypeError, ImportError) as error:  # TypeError: no vocabulary file
        raise UserError(f"{path} has no processor that can be loaded ({first_line(error)}): {mend}") from None
    for part in ("feature_extractor", "tokenizer"):
        if not hasattr(processor, part):
            raise UserError(f"{path} has no {part}: {mend}")
    return processor


def from_scratch(architecture: Mapping[str, Any], seed: int) -> tuple[nn.Module, Any]:
    """Return a model with random weights and the processor over letters.

    `architecture`: `model_type` and the arguments of its transformers configuration.

    Raises: UserError if transformers has no CTC model of that type.
    """
    from transformers import AutoConfig, AutoModelForCTC
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    processor = letters_processor()
    arguments = dict(architecture)
    model_type = arguments.pop("model_type", None)
    if model_type not in MODEL_FOR_CTC_MAPPING_NAMES:
        choices = ", ".join(MODEL_FOR_CTC_MAPPING_NAMES)
        raise UserError(f"model.architecture.model_type={model_type} has no CTC model; it must be one of {choices}")
    config = AutoConfig.for_model(model_type, vocab_size=len(processor.tokenizer), pad_token_id=0, **arguments)
    torch.manual_seed(seed)
    return _prepare(AutoModelForCTC.from_config(config)), processor


def _prepare(model: Any) -> nn.Module:
    # Fine-tuning recipes for these models average over characters and must tolerate utterances with fewer frames than
    # characters.
    model.config.ctc_loss_reduction = "mean"
    model.config.ctc_zero_infinity = True
    return model.eval()


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


def stride(model: Any) -> int | None:
    """Return the samples from one output frame to the next; None if a model of features doesn't state it."""
    if model.main_input_name != "input_values":
        return getattr(model.config, "inputs_to_logits_ratio", None)
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


def kl_divergence(student: Tensor, teacher: Tensor, frame_counts: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) of the frame posteriors in nats, averaged over the frames without padding.

    student, teacher: `[batch, frames, vocabulary]` before softmax. frame_counts: `[batch]`. With a `temperature` T the
    posteriors are softmax(x / T) and the divergence is multiplied by T^2 (Hinton et al. 2015, section 2).
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
    real = torch.arange(student.shape[1], device=student.device) < frame_counts[:, None]
    return temperature**2 * (divergence * real).sum() / real.sum().clamp_min(1)
