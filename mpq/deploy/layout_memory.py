"""Layout "memory": weights stay packed in memory, and inputs stay float32.

Linear layers become ONNX Runtime's `MatMulNBits`, computing in float32 (accuracy level 1; level 4 would quantize the
inputs to 8 bits). All other weights, including those of narrow layers, are dequantized at each use, because ONNX
Runtime does not fold DequantizeLinear.

*Decoders.* ONNX Runtime 1.31 has no fast kernel for 8-bit weights in float32: it expands them at each call, which a
decoder, with one token per call, can't afford (105 ms a token for Whisper tiny.en instead of 6). There 8-bit weights
take level 4, whose inputs have a scale for each block of a row.
"""

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mpq.deploy.graph import SiteWeight, constant
from mpq.deploy.slices import Slicing

_BLOCKS = (256, 128, 64, 32, 16)  # weights of one row that share a scale; what MatMulNBits supports
_WIDE, _LARGER = 512, 1.1  # narrower layers get one scale per block only if that makes them at most 10 % larger
_FLOAT32_COMPUTE, _INT8_COMPUTE = 1, 4


class Memory:
    """See the module. by_token: for a decoder."""

    def __init__(self, by_token: bool = False, slicing: Slicing | None = None) -> None:
        self._by_token = by_token
        self.slicing = slicing

    def for_decoder(self) -> "Memory":
        """See `Layout`."""
        return Memory(by_token=True)

    def linear(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        tape = ir.tape.Tape(graph)
        out, width = weight.codes.shape
        bits, block = weight.stored_bits, _block_of(weight)
        if f"{weight.name}_codes" not in graph.initializers and _is_narrow(width, bits, block):
            return _narrow(graph, inputs, weight)
        blocks = -(-width // block)
        values = [inputs, *_blocks(graph, weight)]
        # A half-step grid needs the zero point to be a float: scale * (unsigned code - 1.5) is scale * (code + 0.5).
        if weight.offset:
            zeros = np.full((out, blocks), 2 ** (bits - 1) - weight.offset, dtype=np.float32)
            values.append(constant(graph, f"{bits}_bit_zero_points_{out}_{blocks}", zeros))
        level = _INT8_COMPUTE if self._by_token and bits == 8 else _FLOAT32_COMPUTE
        sizes = {"K": width, "N": out, "bits": bits, "block_size": block, "accuracy_level": level}
        return tape.op("MatMulNBits", values, sizes, domain="com.microsoft")

    def convolution(self, graph: ir.Graph, conv: ir.Node, weight: SiteWeight) -> ir.Value | None:
        """See `Layout`."""
        return None

    def embedding(self, graph: ir.Graph, indices: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`. The codes are stored in the form that `linear` reads, too, if it is tied to this weight."""
        tape = ir.tape.Tape(graph)
        width, bits = weight.codes.shape[1], weight.stored_bits
        codes, scale = _blocks(graph, weight)
        taken = tape.op("Gather", [codes, indices])
        last = constant(graph, "last_axis", np.array([-1]))
        if bits < 8:
            shifts = constant(graph, f"{bits}_bit_shifts", np.arange(0, 8, bits, dtype=np.uint8))
            shifted = tape.op("BitShift", [tape.op("Unsqueeze", [taken, last]), shifts], {"direction": "RIGHT"})
            taken = tape.op("BitwiseAnd", [shifted, constant(graph, f"{bits}_bit_mask", np.uint8(2**bits - 1))])
        scales = tape.op("Gather", [scale, indices])
        by_block = tape.op("Concat", [tape.op("Shape", [scales]), last], {"axis": 0})
        values = tape.op("Cast", [tape.op("Reshape", [taken, by_block])], {"to": ir.DataType.FLOAT})
        centre = constant(graph, f"centre_{bits}_{weight.offset}", np.float32(2 ** (bits - 1) - weight.offset))
        values = tape.op("Mul", [tape.op("Sub", [values, centre]), tape.op("Unsqueeze", [scales, last])])
        in_a_row = tape.op("Concat", [tape.op("Shape", [indices]), last], {"axis": 0})
        limits = [constant(graph, f"index_{index}", np.array([index])) for index in (0, width)]
        return tape.op("Slice", [tape.op("Reshape", [values, in_a_row]), *limits, last])

    def weight(self, graph: ir.Graph, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        tape = ir.tape.Tape(graph)
        scale = constant(graph, f"{weight.name}_scale", weight.scale)
        value = tape.op("DequantizeLinear", [tape.initializer(weight.tensor()), scale], {"axis": 0})
        if not weight.offset:
            return value
        half = (weight.offset * weight.scale).reshape(-1, *[1] * (weight.codes.ndim - 1))
        return tape.op("Add", [value, constant(graph, f"{weight.name}_half_step", half)])


def _narrow(graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
    """`inputs` times the dequantized weight.

    If DequantizeLinear applied the scale, ONNX Runtime would fuse it with the MatMul into a MatMulNBits of accuracy
    level 4.
    """
    tape = ir.tape.Tape(graph)
    one = constant(graph, "one", np.float32(1))
    values = tape.op("DequantizeLinear", [tape.initializer(weight.tensor(weight.codes.T)), one])
    if weight.offset:
        values = tape.op("Add", [values, constant(graph, "offset", np.float32(weight.offset))])
    scaled = tape.op("Mul", [values, constant(graph, f"{weight.name}_scale", weight.scale)])
    return tape.op("MatMul", [inputs, scaled])


def _blocks(graph: ir.Graph, weight: SiteWeight) -> tuple[ir.Value, ir.Value]:
    """The codes in blocks, and their scale `[out, blocks]`: one per row, repeated for each of its blocks."""
    block = _block_of(weight)
    blocks = -(-weight.codes.shape[1] // block)
    codes = constant(graph, f"{weight.name}_codes", _blockwise(weight.codes, weight.stored_bits, block))
    scale = np.repeat(weight.scale[:, None], blocks, axis=1)
    return codes, constant(graph, f"{weight.name}_scale", scale)


def _block_of(weight: SiteWeight) -> int:
    return _block_size(weight.codes.shape[1], weight.stored_bits, tensors=2 if weight.offset else 1)


def _is_narrow(width: int, bits: int, block: int) -> bool:
    """Whether one scale per block of a layer's rows would make the file much larger than one per row."""
    in_blocks = math.ceil(width / block) * (block * bits / 8 + 4)
    return width < _WIDE and in_blocks > _LARGER * (width * bits / 8 + 4)


def _block_size(width: int, bits: int, tensors: int) -> int:
    """The block size that stores `width` codes of a row in the fewest bytes, with `tensors` float32 per block."""
    return min(_BLOCKS, key=lambda block: math.ceil(width / block) * (block * bits // 8 + 4 * tensors))


def _blockwise(codes: NDArray[np.int8], bits: int, block: int) -> NDArray[np.uint8]:
    """MatMulNBits' form: unsigned codes `[out, blocks, block * bits / 8]`, the first in the lowest bits of a byte."""
    out, width = codes.shape
    blocks, share = -(-width // block), 8 // bits
    unsigned = np.zeros((out, blocks * block), dtype=np.uint8)
    unsigned[:, :width] = codes.astype(np.int16) + 2 ** (bits - 1)
    places = unsigned.reshape(out, blocks, block // share, share)
    packed = np.zeros(places.shape[:-1], dtype=np.uint8)
    for place in range(share):
        packed |= places[..., place] << np.uint8(bits * place)
    return packed
