"""Saves and loads packed folders: models with their quantized weights as bit-packed codes, coded or not.

The loader returns plain layers. Their weights come from the same `quantize` and `dequantize` as the fake-quantized ones
in training, so in float32 the logits are equal, not just close. Nothing in a folder is executed: the tensors are
safetensors and the class comes from transformers' own lists of speech recognition models. `save_model` and `load_model`
also accept a model without quantizers, which they store as transformers does.
"""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME, logging

from mpq.checkpoint.activations import activations_entry
from mpq.checkpoint.coding import in_coding, take_packed
from mpq.checkpoint.empty_model import check_fits, empty_model
from mpq.checkpoint.format import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Coding,
    PackedSite,
    check_coding,
    complete_config,
    language_entry,
    make_block,
    packed_language,
    packed_name,
    read_declared,
    scale_name,
    write_config,
)
from mpq.checkpoint.packing import pack, unpack
from mpq.checkpoint.tensors import check_scale, digest, put_tensor, read_tensors, stored_tensors
from mpq.errors import UserError, first_line
from mpq.files import replacing
from mpq.models.loading import load
from mpq.models.processor import load_processor, save_processor
from mpq.quant.fake_quantize import dequantize, quantize
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import quantizers_of

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def save_packed(folder: Path | str, model: PreTrainedModel, processor: Any = None, coding: Coding = "zstd") -> None:
    """Write `model`, with quantizers attached and every precision chosen, as a packed folder; deterministic.

    `processor` is any object with `save_pretrained(folder)`; its files make the folder complete. The folder appears
    whole or not at all, and replaces a packed folder of that name. Other weights are stored in float32. `coding`: zstd
    codes the codes without loss where that makes them smaller (version 2 of the format), none only packs them (1).

    Raises:
        UserError: no quantizer attached, a precision not chosen yet, a scale that is not a positive finite number, not
            a speech recognition model of transformers, or `folder` exists and is not a packed folder.
    """
    folder = Path(folder)
    check_coding(coding)
    if not _may_replace(folder):
        raise UserError(f"{folder} exists and is not a packed model: choose another folder, or remove it first")
    sites, tied, stored = _stored_form(model)
    version, stored = in_coding(coding, sites, stored)
    block = make_block(sites, tied, version) | activations_entry(model) | language_entry(model)
    block["sha256"] = digest(block, stored)
    config = complete_config(model, block)
    check_fits(config, sites, tied, stored)  # a folder that the loader would refuse must not be written
    with replacing(folder) as temporary:
        temporary.mkdir()
        if processor is not None:
            save_processor(temporary, processor)
        if model.can_generate():
            model.generation_config.save_pretrained(temporary)
        save_file(stored, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        write_config(temporary / CONFIG_FILE, config)
        (temporary / WEIGHTS_FILE).chmod((temporary / CONFIG_FILE).stat().st_mode)  # safetensors makes it private


def load_packed(folder: Path | str) -> tuple[PreTrainedModel, Any]:
    """Read a packed folder: the model with plain float32 layers in evaluation mode, and its processor (None if none).

    Raises:
        UserError: the folder or a file is missing, it is not a packed model or has a different format version, it is
            truncated or damaged (checksum), or its declarations are inconsistent; all of this is checked before memory
            is allocated for weights.
    """
    folder = Path(folder)
    config, sites, tied, stored = read_folder(folder)
    check_fits(config, sites, tied, stored)
    model = empty_model(config)
    if language := packed_language(config):
        cast(Any, model).target_lang = language
    for name, site in sites.items():
        put_tensor(model, name, _unpacked(site, take_packed(stored, name, site), stored.pop(scale_name(name))))
    for name, tensor in stored.items():
        put_tensor(model, name, tensor)
    for name, source in tied.items():
        put_tensor(model, name, model.get_parameter(source))
    if model.can_generate():
        model.generation_config = _load_generation_config(folder)
    return model, _load_processor(folder)


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, PackedSite], dict[str, str], dict[str, Tensor]]:
    """Return config.json's content, the sites and ties that it declares, and the tensors as they are stored.

    Raises:
        UserError: a file is missing or damaged, has a different format version, or lacks what is declared. Whether the
            tensors match the model is checked by `check_fits`.
    """
    config, sites, tied = read_declared(folder)
    return config, sites, tied, read_tensors(folder / WEIGHTS_FILE, sites, config["quantization_config"])


def _stored_form(model: PreTrainedModel) -> tuple[dict[str, PackedSite], dict[str, str], dict[str, Tensor]]:
    quantizers = quantizers_of(model)
    if not quantizers or not isinstance(model, PreTrainedModel):
        raise UserError(f"{type(model).__name__} must be a transformers model with quantizers attached")
    tensors, tied = stored_tensors(model)
    sites: dict[str, PackedSite] = {}
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in quantizers:
            sites[name], stored[packed_name(name)], stored[scale_name(name)] = _packed(name, tensor, quantizers[name])
        else:
            small = tensor.is_floating_point() and tensor.element_size() < 4
            stored[name] = tensor.detach().to("cpu", torch.float32 if small else tensor.dtype, copy=True).contiguous()
    return sites, tied, stored


def _packed(name: str, weight: Tensor, quantizer: WeightQuantizer) -> tuple[PackedSite, Tensor, Tensor]:
    bits = quantizer.bits
    if bits is None:
        raise UserError(f"{name} has no chosen precision yet: freeze it at one of {list(quantizer.candidates)} bits")
    grid = quantizer.grid(bits)
    with torch.no_grad():
        scale = quantizer.scale(bits)  # on the model's own device: exp may differ by one bit on another
        check_scale(name, scale)
        codes = quantize(weight, scale, grid).cpu().numpy()
    site = PackedSite(bits, float(grid.offset), tuple(weight.shape))
    return site, torch.from_numpy(pack(codes, bits)), scale.cpu().contiguous()


def _unpacked(site: PackedSite, packed: Tensor, scale: Tensor) -> Tensor:
    codes = unpack(packed.numpy(), site.bits, int(np.prod(site.shape)))
    return dequantize(torch.from_numpy(codes).reshape(site.shape), scale, site.grid)


def _may_replace(folder: Path) -> bool:
    if not folder.exists():
        return True
    return folder.is_dir() and ((folder / WEIGHTS_FILE).is_file() or not any(folder.iterdir()))


def _load_processor(folder: Path) -> Any:
    if not any((folder / file).is_file() for file in _PROCESSOR_FILES):
        return None
    try:
        return load_processor(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers may raise anything on damaged files
        raise UserError(f"the processor's files in {folder} are damaged: {first_line(error)}") from error


def _load_generation_config(folder: Path) -> GenerationConfig:
    if not (folder / GENERATION_CONFIG_NAME).is_file():
        raise UserError(f"{folder} is not complete: {GENERATION_CONFIG_NAME} is missing; copy the folder again")
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # as above
        raise UserError(f"{folder / GENERATION_CONFIG_NAME} is damaged: {first_line(error)}") from error


def save_model(folder: Path, model: nn.Module, processor: Any, coding: Coding = "zstd") -> None:
    """Write `model` and `processor` to `folder`, whole or not at all; `coding` as for `save_packed`."""
    if quantizers_of(model):
        save_packed(folder, model, processor, coding)  # type: ignore[arg-type]  # every model here is transformers'
        return
    logging.disable_progress_bar()  # one file, written in a moment
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)  # type: ignore[operator]
        save_processor(temporary, processor)


def load_model(folder: Path, language: str | None = None) -> tuple[nn.Module, Any]:
    """Read what `save_model` or transformers wrote, into plain float32 layers; `language`: see `mpq.models.loading`.

    Raises: UserError if the folder is missing or damaged, or `language` is not one of several that can be chosen.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a model's folder: {CONFIG_FILE} can't be read ({error})") from None
    return load_packed(folder) if "quantization_config" in config else load(str(folder), language=language)
