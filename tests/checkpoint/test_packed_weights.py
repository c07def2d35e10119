"""Weights held packed in a module, on plain modules."""

import copy
import math

import pytest
import torch
from torch import nn

from mpq.checkpoint.format import PackedSite
from mpq.checkpoint.packed_weights import hold_packed, hold_unpacked, is_packed, unpack_codes
from mpq.checkpoint.packing import pack, unpack


def codes_of(bits, shape):
    return torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, dtype=torch.int8)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (8, 8), (11, 3, 2), (257, 9)])
def test_torch_unpacks_what_numpy_packed(bits, shape):
    codes = codes_of(bits, shape)
    packed = pack(codes.numpy(), bits)
    assert torch.equal(unpack_codes(torch.from_numpy(packed), bits, shape), codes)
    assert torch.equal(
        unpack_codes(torch.from_numpy(packed), bits, shape).flatten(),
        torch.from_numpy(unpack(packed, bits, math.prod(shape))),
    )


def packed_attention():
    """A module with two packed weights of its own, one in a child, and the same module with plain weights."""
    plain = nn.MultiheadAttention(6, 2, kdim=4, vdim=6).eval()
    packed = copy.deepcopy(plain)
    for name, bits, offset in [("q_proj_weight", 3, 0.0), ("k_proj_weight", 2, 0.5), ("out_proj.weight", 7, 0.0)]:
        shape = tuple(plain.get_parameter(name).shape)
        codes, scale = codes_of(bits, shape), torch.rand(shape[0], 1) + 0.1
        with torch.no_grad():
            plain.get_parameter(name).copy_((codes + offset) * scale)
        hold_packed(packed, name, PackedSite(bits, offset, shape), torch.from_numpy(pack(codes.numpy(), bits)), scale)
    return plain, packed


def attend(model, inputs):
    with torch.no_grad():
        return model(inputs, inputs[..., :4], inputs)[0]


def test_a_packed_module_computes_the_same_and_stores_codes():
    plain, packed = packed_attention()
    inputs = torch.randn(5, 2, 6)
    assert torch.equal(attend(packed, inputs), attend(plain, inputs))
    names = {"q_proj_weight", "k_proj_weight", "out_proj.weight"}
    assert all(is_packed(packed, name) for name in names) and not is_packed(packed, "v_proj_weight")
    state = packed.state_dict()
    assert names.isdisjoint(state) and {f"{name}_packed" for name in names} <= state.keys()
    assert isinstance(packed, nn.MultiheadAttention) and isinstance(packed.out_proj, nn.Linear)


def test_unpacking_one_weight_leaves_the_others_packed():
    plain, packed = packed_attention()
    twin = copy.deepcopy(packed)
    hold_unpacked(packed, "q_proj_weight")
    assert not is_packed(packed, "q_proj_weight") and is_packed(packed, "k_proj_weight")
    assert is_packed(twin, "q_proj_weight")
    hold_unpacked(packed, "k_proj_weight")
    hold_unpacked(packed, "out_proj.weight")
    inputs = torch.randn(5, 2, 6)
    for model in (packed, twin):
        assert torch.equal(attend(model, inputs), attend(plain, inputs))
    assert type(packed) is nn.MultiheadAttention
    assert packed.state_dict().keys() == plain.state_dict().keys()
