"""Changes a transformers model for `hf`: packed buffers before loading, float weights after, packed again to save."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from transformers import PreTrainedModel

from mpq.checkpoint.activations import restore_activations
from mpq.checkpoint.coding import coded_form, decode
from mpq.checkpoint.empty_model import check_fits, check_tensors
from mpq.checkpoint.format import (
    CODED_VERSION,
    CONFIG_FILE,
    WEIGHTS_FILE,
    PackedSite,
    coded_name,
    complete_config,
    packed_language,
    packed_name,
    parse_block,
    scale_name,
    write_config,
)
from mpq.checkpoint.packed import read_folder
from mpq.checkpoint.packed_weights import (
    count_packed,
    has_codes,
    hold_codes,
    hold_later,
    hold_packed,
    hold_unpacked,
    is_packed,
)
from mpq.checkpoint.packing import pack
from mpq.checkpoint.tensors import digest, put_tensor, read_tensor, stored_tensors
from mpq.errors import UserError
from mpq.models.kinds import AUTO_CLASSES, kind_of
from mpq.quant.activations import detach_activations
from mpq.quant.fake_quantize import dequantize, quantize
from mpq.quant.sites import fold_weight_norm

# Replaces masked frames in training. A model has it only if it masks, which from_pretrained(folder, mask_time_prob=...)
# may switch on or off; transformers then draws it or leaves it out, as for a float model.
_MASK = "masked_spec_embed"
_ONE_FILE = 2**60  # bytes of a shard: more than any model has


def make_packed(model: PreTrainedModel, folder: Path) -> dict[str, int]:
    """Check `folder` and add to the empty `model` (on the meta device) the buffers that its file fills.

    Returns the dimension of every weight norm that was folded, by module name.

    Raises:
        UserError: as for `load_packed`, or if the model class is not the one that was packed, or `target_lang=` is
            another language than was packed.
    """
    config, sites, tied, stored = read_folder(folder)
    if config.get("architectures") != [type(model).__name__]:
        kind = kind_of(config)
        advice = f": use {AUTO_CLASSES[kind]}" if kind else ""
        raise UserError(f"{folder} holds {config.get('architectures')}, not {type(model).__name__}{advice}")
    _take_language(model, packed_language(config), folder)
    norms = {name: module for name, module in model.named_modules() if parametrize.is_parametrized(module, "weight")}
    dimensions = {name: cast(Any, module.parametrizations)["weight"][0].dim for name, module in norms.items()}
    fold_weight_norm(model)
    restore_activations(model, config)
    check_tensors(model, sites, tied, stored, optional=_MASK)
    for name, site in sites.items():
        scale = stored[scale_name(name)].to("meta")
        if coded_name(name) in stored:
            hold_later(model, name, site, scale)
        else:
            hold_packed(model, name, site, stored[packed_name(name)].to("meta"), scale)
    # A tied name is not in the file. `tie` sets its value; until then transformers must not report it as missing.
    missing = {f"^{re.escape(name)}$" for name in tied}
    model._keys_to_ignore_on_load_missing = set(model._keys_to_ignore_on_load_missing or ()) | missing
    # `decode_all` reads these itself.
    coded = {f"^{re.escape(coded_name(name))}$" for name in sites}
    model._keys_to_ignore_on_load_unexpected = set(model._keys_to_ignore_on_load_unexpected or ()) | coded
    return dimensions


def _take_language(model: Any, packed: str | None, folder: Path) -> None:
    """Check `target_lang=` of `from_pretrained`, and keep transformers from looking for the adapter's file."""
    asked = getattr(model, "target_lang", None)
    if asked not in (None, packed):
        holds = f"for the language {packed} alone" if packed else "without adapters for languages"
        raise UserError(f"{folder} was packed {holds}: target_lang={asked!r} needs the model that it was made from")
    if asked:
        model.target_lang = None


def decode_all(model: PreTrainedModel, folder: Path, block: Mapping[str, Any]) -> None:
    """Read and decode what is coded in `folder`, so that every weight is packed.

    transformers would keep all coded tensors beside the packed ones in memory; here it is one at a time.

    Raises:
        UserError: a coded tensor is damaged.
    """
    for name, site in parse_block({"quantization_config": block})[0].items():
        if not has_codes(model, name):
            coded = read_tensor(folder / WEIGHTS_FILE, coded_name(name))
            hold_codes(model, name, torch.from_numpy(decode(name, coded.numpy(), site)))


def unpack_all(model: PreTrainedModel, block: Mapping[str, Any]) -> None:
    """Replace every packed weight by a float parameter, computed once."""
    for name in block["sites"]:
        if is_packed(model, name):
            hold_unpacked(model, name)


def tie(model: PreTrainedModel, block: Mapping[str, Any]) -> None:
    """Make each tied name share what its source holds now, packed or unpacked."""
    sites, tied = parse_block({"quantization_config": block})
    for name, source in tied.items():
        if is_packed(model, source):
            packed, scale = model.get_buffer(packed_name(source)), model.get_buffer(scale_name(source))
            hold_packed(model, name, sites[source], packed, scale, persistent=False)
        else:
            if is_packed(model, name):
                hold_unpacked(model, name)
            put_tensor(model, name, model.get_parameter(source))


def make_float(model: PreTrainedModel, block: Mapping[str, Any], weight_norms: Mapping[str, int]) -> None:
    """Make every weight a plain parameter and restore the weight norms, which the class expects in a file.

    Inputs are then no longer quantized. A weight norm divides by a norm and multiplies by it again, so those weights
    may change by a rounding error.

    Raises:
        UserError: adapters are attached, which would keep the old weights.
    """
    if has_adapters(model):
        raise UserError("adapters are attached to this model: merge or delete them before model.dequantize()")
    unpack_all(model, block)
    tie(model, block)
    detach_activations(model)
    for name in [*block["sites"], *block["tied"]]:
        path, _, leaf = scale_name(name).rpartition(".")
        model.get_submodule(path)._buffers.pop(leaf, None)
    for name, dimension in weight_norms.items():
        weight_norm(model.get_submodule(name), dim=dimension)


def packed_state(model: PreTrainedModel, block: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the packed file on the CPU, coded if it is of version 2; put their digest into `block`.

    Raises:
        UserError: a quantized weight, a shape or a dtype has changed since loading.
    """
    sites, tied = parse_block({"quantization_config": block})
    tensors, _ = stored_tensors(model)
    for name, site in sites.items():
        if not is_packed(model, name):
            scale = model.get_buffer(scale_name(name))
            tensors[packed_name(name)] = _packed_again(name, site, tensors.pop(name), scale)
            tensors[scale_name(name)] = scale
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if block["format_version"] == CODED_VERSION:
        state = coded_form(sites, state)
    check_fits(complete_config(model, block), sites, tied, state)
    block["sha256"] = digest(block, state)
    return state


def save_pretrained(model: PreTrainedModel, save_directory: str | Path, **kwargs: Any) -> None:
    """Replace a loaded model's `save_pretrained`: run transformers' own, then write config.json as `save_packed` does.

    transformers omits values from config.json that equal its current defaults, and writes no digest. A packed model is
    one file with one name, so `max_shard_size` has no effect. Of a model with adapters only these are written, as
    transformers does for every model.

    Raises:
        UserError: if a `variant` is given, which would be part of that name.
    """
    if has_adapters(model):
        return type(model).save_pretrained(model, save_directory, **kwargs)
    if kwargs.get("variant"):
        raise UserError(
            f"variant={kwargs['variant']!r} can't be saved: a packed model's weights are {WEIGHTS_FILE} alone"
        )
    type(model).save_pretrained(model, save_directory, **{**kwargs, "max_shard_size": _ONE_FILE})
    if kwargs.get("is_main_process", True):
        write_config(
            Path(save_directory) / CONFIG_FILE, complete_config(model, model.config.quantization_config.to_dict())
        )


def num_parameters(model: PreTrainedModel, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
    """Replace a loaded model's `num_parameters`, which would leave out weights that are packed in memory."""
    count = type(model).num_parameters(model, only_trainable, exclude_embeddings)
    return count if only_trainable else count + count_packed(model)


def has_adapters(model: PreTrainedModel) -> bool:
    """Whether adapters (LoRA and others of peft) are attached, by `add_adapter` or by peft itself."""
    return getattr(model, "_hf_peft_config_loaded", False) or any(
        hasattr(module, "base_layer") for module in model.modules()
    )


def _packed_again(name: str, site: PackedSite, weight: Tensor, scale: Tensor) -> Tensor:
    codes = quantize(weight.detach(), scale, site.grid)
    if not torch.equal(dequantize(codes, scale, site.grid), weight):
        raise UserError(
            f"{name} was changed after it was loaded, so it no longer has {site.bits} bits: "
            "call model.dequantize() to save a float model, or mpq.quantize to quantize it again"
        )
    return torch.from_numpy(pack(codes.cpu().numpy(), site.bits))
