"""Weights that stay packed in memory: codes and scale are buffers, the float weight is computed on access.

The buffers have the names of the file's tensors, so that a module's state dict matches the file. The weight is a
property of a class made for the module, as in `torch.nn.utils.parametrize`, which would name the buffers differently.
Reading `module.weight` (in a layer's forward, or in an attention that reads the weights of layers it never calls)
returns a float tensor, bit for bit the one that `load_packed` would have stored. It can't be written to. An embedding
unpacks only the rows that it looks up: a decoder looks up one per token.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.checkpoint.format import PackedSite, packed_name, scale_name
from mpq.checkpoint.read_only import REFUSED, ReadOnly
from mpq.errors import UserError
from mpq.quant.fake_quantize import dequantize

_GROUP = 8  # codes; of n bits they take n whole bytes


def unpack_codes(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Return the int8 codes of `shape` that `packed` (uint8, [bytes], any device) holds; see `packing` for the layout.

    Equivalent to `packing.unpack`, but with torch operations on bytes instead of numpy operations on words: it runs on
    the weights' device, and its working memory is one byte per code.
    """
    if bits == 8:
        return packed.view(torch.int8).view(shape)
    count = math.prod(shape)
    groups = -(-count // _GROUP)
    whole = F.pad(packed, (0, groups * bits - packed.numel())).view(groups, bits)
    codes = torch.empty(groups, _GROUP, dtype=torch.int8, device=packed.device)
    for place in range(_GROUP):
        byte, shift = divmod(bits * place, 8)
        code = whole[:, byte] >> shift
        if shift + bits > 8:
            code = code | (whole[:, byte + 1] << (8 - shift))
        # To the top of the byte; the arithmetic shift of int8 then extends the sign.
        codes[:, place] = (code << (8 - bits)).view(torch.int8) >> (8 - bits)
    return codes.view(-1)[:count].view(shape)


class _PackedWeight:
    """A read-only attribute: the weight that a module's packed buffers encode."""

    def __init__(self, leaf: str, site: PackedSite) -> None:
        self.leaf = leaf
        self.site = site

    def __get__(self, module: nn.Module | None, owner: type) -> "Tensor | _PackedWeight":
        if module is None:
            return self
        weight = self.compute(module)
        return weight if torch.compiler.is_compiling() else weight.as_subclass(ReadOnly)

    def __set__(self, module: nn.Module, value: object) -> None:
        raise UserError(REFUSED)

    def compute(self, module: nn.Module) -> Tensor:
        if packed_name(self.leaf) not in module._buffers:  # transformers looks at weights while it loads a model
            return torch.empty(self.site.shape, device="meta")
        packed, scale = module.get_buffer(packed_name(self.leaf)), module.get_buffer(scale_name(self.leaf))
        return dequantize(unpack_codes(packed, self.site.bits, self.site.shape), scale, self.site.grid)


def hold_packed(
    model: nn.Module, name: str, site: PackedSite, packed: Tensor, scale: Tensor, persistent: bool = True
) -> None:
    """Replace the parameter `name` by the buffers `packed` and `scale` and a weight computed from them.

    `persistent` is false for the further names of a tied weight, which no file lists.
    """
    module, leaf = _place(model, name)
    del module._parameters[leaf]
    module.register_buffer(packed_name(leaf), packed, persistent=persistent)
    module.register_buffer(scale_name(leaf), scale, persistent=persistent)
    _set_properties(module, _properties(module) | {leaf: _PackedWeight(leaf, site)})


def hold_later(model: nn.Module, name: str, site: PackedSite, scale: Tensor) -> None:
    """Replace the parameter `name` like `hold_packed`, but leave the codes to `hold_codes`."""
    hold_packed(model, name, site, torch.empty(0, dtype=torch.uint8), scale)
    module, leaf = _place(model, name)
    del module._buffers[packed_name(leaf)]


def hold_codes(model: nn.Module, name: str, packed: Tensor) -> None:
    """Add the buffer `packed` that `hold_later` left out, on the device of the scale."""
    module, leaf = _place(model, name)
    module.register_buffer(packed_name(leaf), packed.to(module.get_buffer(scale_name(leaf)).device))


def has_codes(model: nn.Module, name: str) -> bool:
    """Return whether the codes of the packed weight `name` are there."""
    module, leaf = _place(model, name)
    return packed_name(leaf) in module._buffers


def is_packed(model: nn.Module, name: str) -> bool:
    """Return whether the weight `name` is packed."""
    module, leaf = _place(model, name)
    return leaf in _properties(module)


def count_packed(model: nn.Module) -> int:
    """Return how many weights the model holds packed, a tied one counted once."""
    held = {
        id(module.get_buffer(packed_name(leaf))): math.prod(weight.site.shape)
        for module in model.modules()
        for leaf, weight in _properties(module).items()
    }
    return sum(held.values())


def hold_unpacked(model: nn.Module, name: str) -> None:
    """Replace a packed weight by a plain float parameter.

    The scale stays, as a buffer that is not in the state dict: it allows the codes to be recovered exactly.
    """
    module, leaf = _place(model, name)
    weight, scale = _properties(module)[leaf].compute(module), module.get_buffer(scale_name(leaf))
    for buffer in (packed_name(leaf), scale_name(leaf)):
        delattr(module, buffer)
    _set_properties(module, {key: value for key, value in _properties(module).items() if key != leaf})
    setattr(module, leaf, nn.Parameter(weight))
    module.register_buffer(scale_name(leaf), scale, persistent=False)


def _look_up(module: nn.Embedding, ids: Tensor) -> Tensor:
    """Replace the forward of `nn.Embedding`: return the rows `[*ids, columns]`."""
    site = _properties(module)["weight"].site
    rows, columns = site.shape
    if columns % _GROUP or module.max_norm is not None:  # a row may begin inside a byte, or rows change when used
        return nn.Embedding.forward(module, ids)
    packed, scale = module.get_buffer(packed_name("weight")), module.get_buffer(scale_name("weight"))
    chosen = F.embedding(ids, packed.view(rows, -1))
    codes = unpack_codes(chosen.flatten(), site.bits, (*ids.shape, columns))
    return dequantize(codes, scale if len(scale) == 1 else F.embedding(ids, scale), site.grid)


def _properties(module: nn.Module) -> dict[str, _PackedWeight]:
    return {key: value for key, value in vars(type(module)).items() if isinstance(value, _PackedWeight)}


def _set_properties(module: nn.Module, properties: dict[str, _PackedWeight]) -> None:
    """Give the module its own class with just these properties, or restore its plain class if there are none."""
    plain = vars(type(module)).get("_plain", type(module))
    attributes: dict[str, Any] = {**properties, "_plain": plain}
    if plain.forward is nn.Embedding.forward:
        attributes["forward"] = _look_up
    own = type(plain.__name__, (plain,), attributes) if properties else plain
    module.__class__ = own  # pyright: ignore[reportAttributeAccessIssue]


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
