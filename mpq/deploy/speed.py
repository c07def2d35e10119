"""Layout "speed": linear layers and convolutions in 8-bit integers, whatever the bits on disk.

Codes are cast to int8 when the file is loaded (ONNX Runtime folds constants once), inputs are quantized to 8 bits as
they come, and `MatMulInteger` multiplies the two: a 2-bit weight runs as fast as an 8-bit one. A convolution becomes
one product too, as `ConvInteger` with int8 weights is slower than a float32 convolution. Its inputs have a scale for
each slice of a recording (`slices`), which must be a short one where no layer norm holds them together (wav2vec2-base;
experiments/LOG.md).

What is left becomes float32 at load: embeddings, convolutions with groups or padding, and the first, which hears audio.
"""

import sys
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mpq.deploy.float_graph import constant
from mpq.deploy.integer_inputs import integer_inputs
from mpq.deploy.site_weight import SiteWeight

_TO_THE_END = sys.maxsize


class Speed:
    """See the module."""

    def __init__(self, scales: Mapping[str, np.float32 | None], frames_at_once: int = 8) -> None:
        """Take the `scales` of the packed model's quantized inputs (`integer_inputs.take_activations`)."""
        self._scales = scales
        self.frames_at_once = frames_at_once

    def linear(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        return self._product(graph, inputs, weight, weight.codes.T, taps=None)

    def convolution(self, graph: ir.Graph, conv: ir.Node, weight: SiteWeight) -> ir.Value | None:
        """See `Layout`."""
        channels, kernel = weight.codes.shape[1:]
        if channels == 1 or not _is_plain(conv):
            return None
        inputs, bias = conv.inputs[0], conv.inputs[2] if len(conv.inputs) > 2 else None
        assert inputs is not None
        tape = ir.tape.Tape(graph)
        (stride,) = conv.attributes["strides"].as_ints() if "strides" in conv.attributes else [1]
        in_time = tape.op("Transpose", [inputs], {"perm": [0, 2, 1]})
        codes = weight.codes.transpose(2, 1, 0).reshape(kernel * channels, -1)
        product = self._product(graph, in_time, weight, codes, taps=(kernel, stride))
        shifted = product if bias is None else tape.op("Add", [product, bias])
        return tape.op("Transpose", [shifted], {"perm": [0, 2, 1]})

    def weight(self, graph: ir.Graph, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        tape = ir.tape.Tape(graph)
        value = tape.op("Cast", [tape.initializer(weight.tensor())], {"to": ir.DataType.FLOAT})
        if weight.offset:
            value = tape.op("Add", [value, constant(graph, "offset", np.float32(weight.offset))])
        scale = weight.scale.reshape(-1, *[1] * (weight.codes.ndim - 1))
        return tape.op("Mul", [value, constant(graph, f"{weight.name}_scale", scale)])

    def _product(
        self,
        graph: ir.Graph,
        inputs: ir.Value,
        weight: SiteWeight,
        codes: NDArray[np.int8],
        taps: tuple[int, int] | None,
    ) -> ir.Value:
        """`inputs` `[..., in]`, or windows over time of them, times `codes` `[in, out]` times their scale."""
        tape = ir.tape.Tape(graph)
        quantized = integer_inputs(graph, inputs, weight.name.removesuffix(".weight"), self._scales)
        values = quantized.values if taps is None else _windows(graph, quantized.values, *taps)
        (stored, *stored_zero), scale = _codes(graph, weight, codes)
        sums = tape.op("MatMulInteger", [values, stored, quantized.zero, *stored_zero])
        product = tape.op("Cast", [sums], {"to": ir.DataType.FLOAT})
        if quantized.per_token:
            return tape.op("Mul", [tape.op("Mul", [product, scale]), quantized.scale])
        # In this form and order ONNX Runtime merges product, cast and scales into one operation.
        return tape.op("Mul", [product, tape.op("Mul", [quantized.scale, scale])])


def _windows(graph: ir.Graph, values: ir.Value, kernel: int, stride: int) -> ir.Value:
    """Of `values` `[batch, time, channels]` every window of `kernel` steps: `[batch, windows, kernel * channels]`."""
    tape = ir.tape.Tape(graph)
    axis, step = constant(graph, "axis_1", np.array([1])), constant(graph, f"step_{stride}", np.array([stride]))
    taps = []
    for tap in range(kernel):
        end = tap - kernel + 1 or _TO_THE_END
        limits = [constant(graph, f"index_{index}", np.array([index])) for index in (tap, end)]
        taps.append(tape.op("Slice", [values, *limits, axis, step]))
    return tape.op("Concat", taps, {"axis": 2}) if kernel > 1 else taps[0]


def _codes(graph: ir.Graph, weight: SiteWeight, codes: NDArray[np.int8]) -> tuple[list[ir.Value], ir.Value]:
    """`codes` `[in, out]` as int8, their zero point unless it is 0, and their scale `[out]`.

    A grid of half steps becomes one of whole steps of half the scale.
    """
    tape = ir.tape.Tape(graph)
    value, scale, zero = tape.initializer(weight.tensor(codes)), weight.scale, []
    if weight.offset:  # scale * (code + 1/2) = scale / 2 * (2 code + 1), exactly
        # Add and Mul know no int8, and int32 in between would take four times the memory when the file is opened.
        bits, one = tape.op("Cast", [value], {"to": ir.DataType.UINT8}), constant(graph, "one", np.uint8(1))
        value, scale = tape.op("BitShift", [bits, one], {"direction": "LEFT"}), scale / 2
        zero = [constant(graph, "minus_one", np.int8(-1))]
    if value.dtype != ir.DataType.INT8:
        value = tape.op("Cast", [value], {"to": ir.DataType.INT8})
    return [value, *zero], constant(graph, f"{weight.name}_scale", scale)


def _is_plain(conv: ir.Node) -> bool:
    """Without groups, padding and dilation."""
    plain = {"group": 1, "pads": [0, 0], "dilations": [1], "auto_pad": "NOTSET"}
    given = {name: conv.attributes[name].value for name in plain if name in conv.attributes}
    return all((list(value) if isinstance(value, tuple) else value) == plain[name] for name, value in given.items())
