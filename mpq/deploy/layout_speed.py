"""Layout "speed": linear layers and convolutions compute in 8-bit integers, whatever the precision on disk.

Codes are cast to int8 when the file is loaded (ONNX Runtime folds constants once), inputs are quantized to 8 bits
inside the graph, and `MatMulInteger` multiplies the two: a 2-bit weight runs as fast as an 8-bit one. Inputs are
unsigned, with a zero point of 128 where the grid is symmetric, because ONNX Runtime's fast kernels require unsigned
inputs. A convolution becomes one product too, because `ConvInteger` with int8 weights is slower than a float32
convolution. Its inputs have one scale per slice of a recording (`slices`); slices must be short where no layer norm
bounds the inputs (wav2vec2-base; experiments/LOG.md).

The other weights become float32 at load: embeddings, convolutions with groups or padding, and the first convolution,
whose input is audio.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from mpq.deploy.graph import SiteWeight, constant
from mpq.quant.activations import GRID, activation_quantizers_of, detach_activations

_TO_THE_END = sys.maxsize


class Speed:
    """See the module."""

    def __init__(self, scales: Mapping[str, np.float32 | None], frames_at_once: int = 8) -> None:
        """`scales`: those of the packed model's quantized inputs, from `take_activations`."""
        self._scales = scales
        self.frames_at_once = frames_at_once

    def for_decoder(self) -> "Speed":
        """See `Layout`."""
        return self

    def linear(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        rows = graph.initializers.get(weight.name)  # of an embedding that the layer is tied to
        if rows is None:
            codes = _int8(graph, weight, _stored(graph, weight, weight.codes.T))
        else:
            codes = ir.tape.Tape(graph).op("Transpose", [_int8(graph, weight, rows)], {"perm": [1, 0]})
        return self._product(graph, inputs, weight, codes, taps=None)

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
        in_order = weight.codes.transpose(2, 1, 0).reshape(kernel * channels, -1)
        codes = _int8(graph, weight, _stored(graph, weight, in_order))
        product = self._product(graph, in_time, weight, codes, taps=(kernel, stride))
        shifted = product if bias is None else tape.op("Add", [product, bias])
        return tape.op("Transpose", [shifted], {"perm": [0, 2, 1]})

    def embedding(self, graph: ir.Graph, indices: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`. Only the rows that are taken become float32."""
        tape = ir.tape.Tape(graph)
        codes, (scale, zero) = _int8(graph, weight, _stored(graph, weight, weight.codes)), _scale(graph, weight)
        rows = tape.op("Cast", [tape.op("Gather", [codes, indices])], {"to": ir.DataType.FLOAT})
        if zero:
            rows = tape.op("Sub", [rows, tape.op("Cast", zero, {"to": ir.DataType.FLOAT})])
        scales = tape.op(
            "Unsqueeze", [tape.op("Gather", [scale, indices]), constant(graph, "last_axis", np.array([-1]))]
        )
        return tape.op("Mul", [rows, scales])

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
        codes: ir.Value,
        taps: tuple[int, int] | None,
    ) -> ir.Value:
        """`inputs` `[..., in]`, or their windows over time (`taps`), times `codes` `[in, out]`, times the scales."""
        tape = ir.tape.Tape(graph)
        quantized = integer_inputs(graph, inputs, weight.name.removesuffix(".weight"), self._scales)
        values = quantized.values if taps is None else _windows(graph, quantized.values, *taps)
        scale, zero = _scale(graph, weight)
        sums = tape.op("MatMulInteger", [values, codes, quantized.zero, *zero])
        product = tape.op("Cast", [sums], {"to": ir.DataType.FLOAT})
        if quantized.per_token:
            return tape.op("Mul", [tape.op("Mul", [product, scale]), quantized.scale])
        # In this form and order ONNX Runtime merges product, cast and scales into one operation.
        return tape.op("Mul", [product, tape.op("Mul", [quantized.scale, scale])])


def _windows(graph: ir.Graph, values: ir.Value, kernel: int, stride: int) -> ir.Value:
    """Every window of `kernel` steps of `values` `[batch, time, channels]`: `[batch, windows, kernel * channels]`."""
    tape = ir.tape.Tape(graph)
    axis, step = constant(graph, "axis_1", np.array([1])), constant(graph, f"step_{stride}", np.array([stride]))
    taps = []
    for tap in range(kernel):
        end = tap - kernel + 1 or _TO_THE_END
        limits = [constant(graph, f"index_{index}", np.array([index])) for index in (tap, end)]
        taps.append(tape.op("Slice", [values, *limits, axis, step]))
    return tape.op("Concat", taps, {"axis": 2}) if kernel > 1 else taps[0]


def _stored(graph: ir.Graph, weight: SiteWeight, codes: NDArray[np.int8]) -> ir.Value:
    """The `codes` of the weight, in an order of their own, as an initializer."""
    return ir.tape.Tape(graph).initializer(weight.tensor(codes))


def _int8(graph: ir.Graph, weight: SiteWeight, value: ir.Value) -> ir.Value:
    """Stored codes as int8; those of a half-step grid on the whole-step grid `2 code`, for `_scale`."""
    tape = ir.tape.Tape(graph)
    if weight.offset:
        # Add and Mul do not support int8, and going through int32 would take four times the memory at load.
        bits, one = tape.op("Cast", [value], {"to": ir.DataType.UINT8}), constant(graph, "one", np.uint8(1))
        value = tape.op("BitShift", [bits, one], {"direction": "LEFT"})
    return value if value.dtype == ir.DataType.INT8 else tape.op("Cast", [value], {"to": ir.DataType.INT8})


def _scale(graph: ir.Graph, weight: SiteWeight) -> tuple[ir.Value, list[ir.Value]]:
    """The scale `[out]` of the codes of `_int8`, and their zero point unless it is 0.

    A half-step grid becomes a whole-step grid with half the scale: `scale (code + 1/2) = scale / 2 (2 code + 1)`.
    """
    scale = weight.scale / 2 if weight.offset else weight.scale
    zero = [constant(graph, "minus_one", np.int8(-1))] if weight.offset else []
    return constant(graph, f"{weight.name}_scale", scale), zero


def _is_plain(conv: ir.Node) -> bool:
    """Without groups, padding and dilation."""
    plain = {"group": 1, "pads": [0, 0], "dilations": [1], "auto_pad": "NOTSET"}
    given = {name: conv.attributes[name].value for name in plain if name in conv.attributes}
    return all((list(value) if isinstance(value, tuple) else value) == plain[name] for name, value in given.items())


_ZERO = 128


@dataclass(frozen=True)
class IntegerInputs:
    """uint8 values, their float32 scale (scalar, or `[..., 1]` for a scale per token) and uint8 zero point."""

    values: ir.Value
    scale: ir.Value
    zero: ir.Value
    per_token: bool = False


def take_activations(model: nn.Module) -> dict[str, np.float32 | None]:
    """Take the activation quantizers off a model; return the static scale, or None for dynamic, by layer."""
    quantizers = activation_quantizers_of(model)
    with torch.no_grad():
        scales = {
            name: None if quantizer.log_scales is None else np.float32(quantizer.log_scales.exp().item())
            for name, quantizer in quantizers.items()
        }
    detach_activations(model)
    return scales


def integer_inputs(
    graph: ir.Graph, inputs: ir.Value, layer: str, scales: Mapping[str, np.float32 | None]
) -> IntegerInputs:
    """Quantize the `inputs` of `layer` as the packed model does (`scales`), else with one scale per tensor."""
    if layer not in scales:
        return _per_tensor(graph, inputs)
    scale = scales[layer]
    return _per_token(graph, inputs) if scale is None else _static(graph, inputs, scale)


def _per_tensor(graph: ir.Graph, inputs: ir.Value) -> IntegerInputs:
    """A grid from the smallest to the largest value; layers with the same inputs share the node."""
    for node, _ in inputs.uses():
        if node.op_type == "DynamicQuantizeLinear":
            values, scale, zero = node.outputs
            return IntegerInputs(values, scale, zero)
    values, scale, zero = ir.tape.Tape(graph).op_multi_out("DynamicQuantizeLinear", [inputs], num_outputs=3)
    return IntegerInputs(values, scale, zero)


def _static(graph: ir.Graph, inputs: ir.Value, scale: np.float32) -> IntegerInputs:
    step = constant(graph, f"input_scale_{scale!r}", scale)
    zero = constant(graph, "zero_point", np.uint8(_ZERO))
    return IntegerInputs(ir.tape.Tape(graph).op("QuantizeLinear", [inputs, step, zero]), step, zero)


def _per_token(graph: ir.Graph, inputs: ir.Value) -> IntegerInputs:
    """The formula of `mpq.quant.activations`, operation by operation."""
    tape = ir.tape.Tape(graph)
    last = constant(graph, "last_axis", np.array([-1], dtype=np.int64))
    peak = tape.op("ReduceMax", [tape.op("Abs", [inputs]), last], {"keepdims": 1})
    tiny = constant(graph, "tiny", np.float32(torch.finfo(torch.float32).eps ** 2))
    scale = tape.op("Div", [tape.op("Max", [peak, tiny]), constant(graph, "top", np.float32(GRID.top + 0.5))])
    levels = tape.op("Round", [tape.op("Div", [inputs, scale])])
    low, high = constant(graph, "low", np.float32(GRID.low)), constant(graph, "high", np.float32(GRID.high))
    shifted = tape.op("Add", [tape.op("Clip", [levels, low, high]), constant(graph, "shift", np.float32(_ZERO))])
    values = tape.op("Cast", [shifted], {"to": ir.DataType.UINT8})
    return IntegerInputs(values, scale, constant(graph, "zero_point", np.uint8(_ZERO)), per_token=True)
