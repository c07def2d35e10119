"""Quantized activations in a packed folder: their entry in the config, and restoring their quantizers after loading.

The block has an entry `activations` only if inputs are quantized: `layers` are the linear layers, `kind` is `static`
(the file has the logarithm of each layer's scale, float32 [1], as `<layer>.activation_quantizer.log_scales`) or
`dynamic` (one scale per token, nothing to store).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mpq.errors import UserError
from mpq.quant.activations import BITS, activation_quantizers_of, attach_activations

_KINDS = ("dynamic", "static")


def activations_entry(model: nn.Module) -> dict[str, Any]:
    """Return `{"activations": ...}` for the block, or `{}` if no inputs are quantized.

    Raises:
        UserError: some layers are static, some dynamic, or a static scale is not a finite number.
    """
    quantizers = activation_quantizers_of(model)
    static = [name for name, quantizer in quantizers.items() if quantizer.log_scales is not None]
    if not quantizers:
        return {}
    if static and len(static) < len(quantizers):
        raise UserError("activations must be all static or all dynamic to be stored")
    for name in static:
        if not bool(quantizers[name].log_scales.isfinite().all()):  # pyright: ignore[reportOptionalMemberAccess]
            raise UserError(f"the scale of the inputs of {name} is not a finite number")
    return {"activations": {"bits": BITS, "kind": _KINDS[bool(static)], "layers": sorted(quantizers)}}


def restore_activations(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Attach the quantizers that `config` (the parsed config.json) declares; static scales are in the weights' file.

    Raises:
        UserError: a malformed entry, or a layer that the model lacks.
    """
    block = config.get("quantization_config")
    if not isinstance(block, Mapping) or "activations" not in block:
        return
    entry = block["activations"]
    if not isinstance(entry, dict) or set(entry) != {"bits", "kind", "layers"}:
        raise UserError("'activations' in config.json must have exactly the fields bits, kind and layers")
    bits, kind, layers = entry["bits"], entry["kind"], entry["layers"]
    if type(bits) is not int or bits != BITS or kind not in _KINDS:
        raise UserError(f"activations must be dynamic or static at {BITS} bits, but are {kind!r:.80} at {bits!r:.80}")
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise UserError("the layers of 'activations' in config.json must be a list of names")
    if len(set(layers)) < len(layers):
        raise UserError("config.json names a layer of 'activations' twice")
    device = next(model.parameters()).device
    attach_activations(model, {name: torch.ones(1, device=device) if kind == "static" else None for name in layers})
