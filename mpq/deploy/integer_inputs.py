"""The inputs of an integer matrix product: float32 values quantized to uint8 inside of the graph.

Unsigned, with a zero point of 128 where the grid is symmetric: ONNX Runtime's fast kernels want unsigned inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from mpq.deploy.float_graph import constant
from mpq.quant.activations import GRID, activation_quantizers_of, detach_activations

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
    """Quantize the `inputs` of `layer` as the packed model does (`scales`), or else with one scale for all of them."""
    if layer not in scales:
        return _per_tensor(graph, inputs)
    scale = scales[layer]
    return _per_token(graph, inputs) if scale is None else _static(graph, inputs, scale)


def _per_tensor(graph: ir.Graph, inputs: ir.Value) -> IntegerInputs:
    """From the smallest to the largest value; layers with the same inputs share the node."""
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
