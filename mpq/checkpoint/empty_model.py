"""Builds a model of the right class and shapes, without weights, from config.json alone.

It is built twice: first on the meta device, which uses no memory, so that a config with absurd sizes is refused before
anything is allocated; then on the CPU with initialisation switched off. The second is not on the meta device because a
constructor may compute buffers that no file stores (sinusoidal positions). Memory that is never written to is not
physically allocated, so the empty weights cost nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from mpq.checkpoint.activations import restore_activations
from mpq.checkpoint.format import PackedSite, coded_name, packed_name, scale_name
from mpq.checkpoint.tensors import stored_tensors
from mpq.errors import UserError
from mpq.models.kinds import AUTO_CLASSES, classes
from mpq.quant.sites import fold_weight_norm

_LARGEST_SIZE = 1 << 20  # for an integer in config.json, unless the weights' file has more numbers
_LARGEST_COUNT = 1024  # of layers, heads, groups: constructors loop over these
# Keys that are ignored in building the model; the last three may name code to fetch from the Hub.
_LEFT_OUT = ("quantization_config", "auto_map", "attn_implementation", "experts_implementation")


def check_fits(
    config: Mapping[str, Any],
    sites: Mapping[str, PackedSite],
    tied: Mapping[str, str],
    stored: Mapping[str, Tensor],
) -> None:
    """Refuse a folder whose tensors do not match the model of `config` exactly in name, shape and dtype.

    Raises:
        UserError: not a speech recognition model, a config that transformers rejects or whose sizes exceed the file's,
            a missing or superfluous tensor, or one with a different shape or dtype.
    """
    _check_sizes(config, len(stored), sum(tensor.numel() for tensor in stored.values()))
    with torch.device("meta"):
        model = empty_model(config)
    check_tensors(model, sites, tied, stored)


def check_tensors(
    model: nn.Module,
    sites: Mapping[str, PackedSite],
    tied: Mapping[str, str],
    stored: Mapping[str, Tensor],
    optional: str | None = None,
) -> None:
    """Refuse tensors that do not match `model`, plain and without weight norm, exactly in name, shape and dtype.

    A tensor whose name ends with `optional` may be missing on either side.

    Raises:
        UserError: a missing or superfluous tensor, or one with a different shape or dtype.
    """
    tensors, aliases = stored_tensors(model)
    expected = tensors | {name: tensors[source] for name, source in aliases.items()}
    codes = {key for name in sites for key in (packed_name(name), coded_name(name), scale_name(name))}
    plain = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in stored.items() if name not in codes}
    packed = {name: (site.shape, torch.float32) for name, site in sites.items()}
    shapes = plain | packed
    if unknown := [s for s in tied.values() if s not in shapes or not isinstance(expected.get(s), nn.Parameter)]:
        raise UserError(f"config.json ties a parameter to {unknown[0]}, which is not a parameter in the file")
    if twice := sorted((tied.keys() & shapes.keys()) | (plain.keys() & packed.keys())):
        raise UserError(f"the folder holds {twice[0]} in more than one form")
    shapes |= {name: shapes[source] for name, source in tied.items()}
    if optional:
        one_sided = {name for name in expected.keys() ^ shapes.keys() if name.endswith(optional)}
        expected, shapes = (
            {name: one for name, one in side.items() if name not in one_sided} for side in (expected, shapes)
        )
    if missing := sorted(expected.keys() - shapes.keys()):
        raise UserError(f"the file lacks tensors of the model: {', '.join(missing[:3])} ({len(missing)} in all)")
    if extra := sorted(shapes.keys() - expected.keys()):
        raise UserError(f"the file has tensors that the model lacks: {', '.join(extra[:3])} ({len(extra)} in all)")
    for name, (shape, dtype) in shapes.items():
        if (shape, dtype) != (tuple(expected[name].shape), expected[name].dtype):
            wanted = f"{expected[name].dtype} of shape {tuple(expected[name].shape)}"
            raise UserError(f"{name} must be {wanted} in this model, but the file has {dtype} of shape {shape}")


def empty_model(config: Mapping[str, Any]) -> PreTrainedModel:
    """Return the model with uninitialised weights, the weight norm folded and its inputs quantized as declared.

    Call `check_fits` first.

    Raises:
        UserError: not a speech recognition model, or a config that transformers rejects.
    """
    auto, model_config = _model_config(config)
    try:
        with no_init_weights():
            model = auto.from_config(model_config, trust_remote_code=False)
        fold_weight_norm(model)
    except Exception as error:  # constructors may raise anything on a damaged config
        raise _refused(error) from error
    restore_activations(model, config)
    return model.eval()


def _model_config(config: Mapping[str, Any]) -> tuple[Any, PreTrainedConfig]:
    """Return the auto class and the configuration of the model."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UserError(f"config.json names the model type {model_type!r}, which this transformers does not have")
    architectures = config.get("architectures")
    kind = next((kind for kind in AUTO_CLASSES if architectures == [classes(kind).get(model_type)]), None)
    if kind is None:
        raise UserError(
            f"not a speech recognition model ({' or '.join(AUTO_CLASSES)}): config.json names {architectures} of type "
            f"{model_type!r}"
        )
    fields: dict[str, Any] = {key: value for key, value in config.items() if not key.endswith(_LEFT_OUT)}
    fields["dtype"] = "float32"
    try:
        return getattr(transformers, AUTO_CLASSES[kind]), CONFIG_MAPPING[model_type](**fields)
    except Exception as error:
        raise _refused(error) from error


def _refused(error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    return UserError(f"config.json does not describe a model that transformers can build: {reason}")


def _check_sizes(config: Mapping[str, Any], tensors: int, elements: int) -> None:
    for key, value in _sizes(config):
        largest = max(_LARGEST_COUNT, tensors) if key.startswith("num_") else max(_LARGEST_SIZE, elements)
        if value > largest:
            raise UserError(f"config.json declares {key} = {value}, but such a file justifies at most {largest}")


def _sizes(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every integer in the config, and every list's length as a number of layers."""
    if isinstance(value, dict):
        for inner, item in value.items():
            if inner != "quantization_config":
                yield from _sizes(item, inner)
    elif isinstance(value, list):
        yield f"num_{key}", len(value)
        for item in value:
            yield from _sizes(item, key)
    elif type(value) is int:
        yield key, value
