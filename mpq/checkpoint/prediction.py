"""Predicts the bytes of a model's files from its shapes alone: without weights, and without writing anything.

So the size columns of a table are known before any model of that size is trained. The prediction is exact for the same
config; a fine-tuned checkpoint's own config.json can be a few hundred bytes longer.
"""

import json
import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from mpq.checkpoint.format import PackedSite, complete_config, language_entry, make_block, packed_name, scale_name
from mpq.checkpoint.tensors import stored_tensors
from mpq.quant.activations import BITS as ACTIVATION_BITS
from mpq.quant.grid import grid
from mpq.quant.sites import Site

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> safetensors' dtype and the shape."""
_BYTES = {"I64": 8, "F32": 4, "U8": 1}
_DIGEST = "0" * 64  # the length of a SHA-256


def packed_file_bytes(
    model: PreTrainedModel,
    sites: Sequence[Site],
    bits: Mapping[str, int],
    per_channel: bool = True,
    dynamic_activations: bool = False,
) -> int:
    """Return the bytes of `model.safetensors` and `config.json` of a packed model.

    `model` may be on the meta device; its weight norm must be folded already. `bits` has every site of `sites`;
    `dynamic_activations`: the inputs of the quantized linear layers have 8 bits.
    """
    by_name = {site.name: site for site in sites}
    packed, stored = {}, {}
    tensors, tied = stored_tensors(model)
    for name, tensor in tensors.items():
        if name in by_name:
            site = PackedSite(bits[name], grid(bits[name]).offset, by_name[name].shape)
            packed[name] = site
            stored[packed_name(name)] = ("U8", (site.packed_bytes,))
            stored[scale_name(name)] = ("F32", site.scale_shapes[int(per_channel)])
        else:
            stored[name] = _as_stored(tensor)
    block = make_block(packed, tied) | language_entry(model) | {"sha256": _DIGEST}
    if dynamic_activations:
        linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
        layers = sorted(name for name in linear if f"{name}.weight" in packed)
        block["activations"] = {"bits": ACTIVATION_BITS, "kind": "dynamic", "layers": layers}
    config = json.dumps(complete_config(model, block), indent=1, sort_keys=True) + "\n"
    return safetensors_bytes(stored) + len(config.encode())


def overhead_bytes(model: PreTrainedModel, sites: Sequence[Site]) -> int:
    """Return the bytes of a packed model's files that are not codes, with one scale a weight, at most.

    Exact for codes of 8 bits that are only packed; shorter ones need up to a few digits fewer to say where they are.
    """
    widest = packed_file_bytes(model, sites, {site.name: 8 for site in sites}, per_channel=False)
    return widest - sum(site.numel for site in sites)


def float_file_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of `model.safetensors` and `config.json` as transformers saves the float32 model."""
    stored = {name: _as_stored(tensor) for name, tensor in stored_tensors(model)[0].items()}
    config = model.config.__class__.from_dict({**model.config.to_dict(), "architectures": [type(model).__name__]})
    config.dtype = "float32"
    return safetensors_bytes(stored) + len(config.to_json_string().encode())


def safetensors_bytes(tensors: Shapes) -> int:
    """Return the bytes of a safetensors file: a length, the JSON header padded to 8 bytes, and the tensors, no gaps.

    Tensors are laid out as safetensors does, widest type first and then by name.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (-_BYTES[item[1][0]], item[0])):
        end = offset + _BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    length = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + length + -length % 8 + offset


def _as_stored(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape in the file: floats have 32 bits; speech models' only integers are batch norms' counts."""
    return "F32" if tensor.is_floating_point() else "I64", tuple(tensor.shape)
