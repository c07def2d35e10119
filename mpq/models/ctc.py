"""Any CTC speech model of transformers: loading it, its loss, its frames.

The model is `AutoModelForCTC` and the processor `AutoProcessor`, from a folder or from the Hub; nothing here knows a
model family by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.models.processor import letters_processor

_HUB_SECONDS = 5.0  # how long to wait for the Hub's answer before saying that it can't be reached


def check_available(path: str) -> None:
    """Raise UserError within seconds unless `path` is a model's folder, in the local Hub cache, or on the Hub."""
    if Path(path).is_dir():
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"model.path={path} has no config.json: it must be a folder that save_pretrained wrote")
        return
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    get = f"`hf download {path}` where there is a network, or model.path=<folder> of a model saved by transformers"
    try:
        if isinstance(try_to_load_from_cache(path, "config.json"), str):
            return
        if constants.HF_HUB_OFFLINE:
            raise UserError(f"the model {path} is neither a folder nor in the local Hub cache (HF_HUB_OFFLINE): {get}")
        HfApi().model_info(path, timeout=_HUB_SECONDS)
    except UserError:
        raise
    except HFValidationError:
        raise UserError(f"model.path={path} is neither a folder here nor a name on the Hub: {get}") from None
    except Exception as error:  # whatever the network does, the user needs the same advice
        reason = type(error).__name__
        raise UserError(
            f"the model {path} is neither a folder nor in the local Hub cache, and the Hub gave no answer "
            f"({reason}): {get}"
        ) from None


def load(path: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Any]:
    """The fine-tuned CTC model at `path` (a folder or a Hub name) in eval mode, and its processor.

    Raises: UserError where there is no such model, it has no trained CTC head or no processor.
    """
    from transformers import AutoModelForCTC, AutoProcessor

    check_available(path)
    try:
        model, info = AutoModelForCTC.from_pretrained(path, dtype=dtype, output_loading_info=True)
        processor = AutoProcessor.from_pretrained(path)
    except (ValueError, OSError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is not a CTC speech model that transformers can load: {first}") from None
    untrained = sorted(name for name in info["missing_keys"] if not name.endswith("masked_spec_embed"))
    if untrained:
        raise UserError(f"{path} is not fine-tuned for CTC: its weights lack {', '.join(untrained[:3])}")
    if not hasattr(processor, "tokenizer"):
        raise UserError(f"{path} has no tokenizer, so its output can't be read as text; add the processor's files")
    return _prepare(model), processor


def from_scratch(architecture: Mapping[str, Any], seed: int) -> tuple[nn.Module, Any]:
    """A model with random weights and the processor over letters.

    `architecture`: `model_type` and the arguments of its transformers configuration.

    Raises: UserError where transformers knows no such model type.
    """
    from transformers import AutoConfig, AutoModelForCTC

    processor = letters_processor()
    arguments = dict(architecture)
    try:
        config = AutoConfig.for_model(
            arguments.pop("model_type"), vocab_size=len(processor.tokenizer), pad_token_id=0, **arguments
        )
    except ValueError as error:
        raise UserError(f"model.architecture: {str(error).splitlines()[0]}") from None
    torch.manual_seed(seed)
    return _prepare(AutoModelForCTC.from_config(config)), processor


def _prepare(model: Any) -> nn.Module:
    # Fine-tuning recipes of these models average over characters, and must survive an utterance with fewer frames
    # than characters.
    model.config.ctc_loss_reduction = "mean"
    model.config.ctc_zero_infinity = True
    return model.eval()


def frames(model: Any, lengths: Tensor) -> Tensor:
    """The number of output frames `[batch]` of recordings of `lengths` `[batch]` samples."""
    return model._get_feat_extract_output_lengths(lengths).to(torch.long)


def logits(model: Any, inputs: Tensor, lengths: Tensor, attention_mask: bool) -> Tensor:
    """Log-odds of the characters `[batch, frames, vocabulary]` for padded `inputs` `[batch, time]`.

    `attention_mask`: whether this model was trained to be told where padding begins (its feature extractor's
    `return_attention_mask`).
    """
    mask = None
    if attention_mask:
        mask = (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]).long()
    return model(inputs, attention_mask=mask).logits


def ctc_loss(model: Any, outputs: Tensor, frame_counts: Tensor, labels: Tensor) -> Tensor:
    """CTC loss (Graves et al. 2006) in nats a character, averaged over the batch.

    outputs: `[batch, frames, vocabulary]` before softmax. frame_counts: `[batch]`. labels: `[batch, characters]`, -100
    where padded.
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


def to_accelerator(model: nn.Module, accelerator: str) -> nn.Module:
    """Move `model` to the GPU unless `accelerator` (Lightning's word) is "cpu" or there is none."""
    return model.to("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")
