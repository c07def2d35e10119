"""Products of 8-bit integers in an ONNX graph: quantized inputs, the codes of a weight, and their scales."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from mpq.deploy.graph import SiteWeight, constant
from mpq.quant.activations import GRID

ZERO = 128  # the code of 0 on a symmetric grid


@dataclass(frozen=True)
class IntegerInputs:
    """uint8 values, their float32 scale (scalar, or `[..., 1]` for a scale per token) and uint8 zero point."""

    values: ir.Value
    scale: ir.Value
    zero: ir.Value
    per_token: bool = False


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
    zero = constant(graph, "zero_point", np.uint8(ZERO))
    return IntegerInputs(ir.tape.Tape(graph).op("QuantizeLinear", [inputs, step, zero]), step, zero)


def _per_token(graph: ir.Graph, inputs: ir.Value) -> IntegerInputs:
    """The formula of `mpq.quant.activations`, operation by operation."""
    tape = ir.tape.Tape(graph)
    last = constant(graph, "last_axis", np.array([-1], dtype=np.int64))
    peak = tape.op("ReduceMax", [tape.op("Abs", [inputs]), last], {"keepdims": 1})
    scale = _spanning(graph, peak, GRID.top + 0.5)
    levels = tape.op("Round", [tape.op("Div", [inputs, scale])])
    low, high = constant(graph, "low", np.float32(GRID.low)), constant(graph, "high", np.float32(GRID.high))
    shifted = tape.op("Add", [tape.op("Clip", [levels, low, high]), constant(graph, "shift", np.float32(ZERO))])
    values = tape.op("Cast", [shifted], {"to": ir.DataType.UINT8})
    return IntegerInputs(values, scale, constant(graph, "zero_point", np.uint8(ZERO)), per_token=True)


def _spanning(graph: ir.Graph, peak: ir.Value, levels: float) -> ir.Value:
    """The scale at which `peak` is `levels` steps above 0; never 0."""
    tape = ir.tape.Tape(graph)
    tiny = constant(graph, "tiny", np.float32(torch.finfo(torch.float32).eps ** 2))
    return tape.op("Div", [tape.op("Max", [peak, tiny]), constant(graph, f"levels_{levels}", np.float32(levels))])


def by_row(graph: ir.Graph, rows: ir.Value) -> IntegerInputs:
    """Quantize `rows` `[rows, in]` symmetrically with a scale for each; the scales are `[rows, 1]`."""
    tape = ir.tape.Tape(graph)
    last = constant(graph, "last_axis", np.array([-1]))
    high, low = (tape.op(name, [rows, last], {"keepdims": 0}) for name in ("ReduceMax", "ReduceMin"))
    scale = _spanning(graph, tape.op("Max", [high, tape.op("Neg", [low])]), ZERO - 1)
    zero = constant(graph, "zero_point", np.uint8(ZERO))
    zeros = tape.op("Expand", [zero, tape.op("Shape", [scale])])
    values = tape.op("QuantizeLinear", [rows, scale, zeros], {"axis": 0})
    return IntegerInputs(values, tape.op("Unsqueeze", [scale, last]), zero, per_token=True)


@dataclass(frozen=True)
class Codes:
    """int8 values `[in, out]`, their float32 scale `[out]`, and their zero point unless it is 0."""

    values: ir.Value
    scale: ir.Value
    zero: list[ir.Value]


def codes_of(graph: ir.Graph, weight: SiteWeight, codes: NDArray[np.int8]) -> Codes:
    """The `codes` of the weight, in an order of their own, stored at their bits, expanded at load."""
    stored = ir.tape.Tape(graph).initializer(weight.tensor(codes))
    return Codes(as_int8(graph, weight, stored), *scale_of(graph, weight))


def product(graph: ir.Graph, inputs: IntegerInputs, codes: Codes) -> ir.Value:
    """`inputs` `[..., in]` times `codes`, times the scales: float32 `[..., out]`."""
    tape = ir.tape.Tape(graph)
    sums = tape.op("MatMulInteger", [inputs.values, codes.values, inputs.zero, *codes.zero])
    result = tape.op("Cast", [sums], {"to": ir.DataType.FLOAT})
    if inputs.per_token:
        return tape.op("Mul", [tape.op("Mul", [result, codes.scale]), inputs.scale])
    # In this form and order ONNX Runtime merges product, cast and scales into one operation.
    return tape.op("Mul", [result, tape.op("Mul", [inputs.scale, codes.scale])])


def as_int8(graph: ir.Graph, weight: SiteWeight, value: ir.Value) -> ir.Value:
    """Stored codes as int8; those of a half-step grid on the whole-step grid `2 code`, for `scale_of`."""
    tape = ir.tape.Tape(graph)
    if weight.offset:
        # Add and Mul do not support int8, and going through int32 would take four times the memory at load.
        bits, one = tape.op("Cast", [value], {"to": ir.DataType.UINT8}), constant(graph, "one", np.uint8(1))
        value = tape.op("BitShift", [bits, one], {"direction": "LEFT"})
    return value if value.dtype == ir.DataType.INT8 else tape.op("Cast", [value], {"to": ir.DataType.INT8})


def scale_of(graph: ir.Graph, weight: SiteWeight) -> tuple[ir.Value, list[ir.Value]]:
    """The scale `[out]` of the codes of `as_int8`, and their zero point unless it is 0.

    A half-step grid becomes a whole-step grid with half the scale: `scale (code + 1/2) = scale / 2 (2 code + 1)`.
    """
    scale = weight.scale / 2 if weight.offset else weight.scale
    zero = [constant(graph, "minus_one", np.int8(-1))] if weight.offset else []
    return constant(graph, f"{weight.name}_scale", scale), zero
