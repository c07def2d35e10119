"""The first convolution of a wav2vec2 and the norm after it, as one product of the audio's windows.

A norm over the whole recording would keep the convolutions from running in slices. The first convolution is linear, so
the mean and variance of each of its channels follow from the mean `m` and covariance `S` of the audio windows that it
multiplies: `w m` and `w S w`. With `k` samples per window that is `k + k^2` numbers instead of 512 channels of the
whole recording. They are computed in float64: neighbouring samples are similar, and for a filter that takes their
difference `w S w` is a small difference of large numbers.

The norm's scale and shift then go into the filters, and a product of windows and filters has its channels last, as the
integer products that follow need them: convolution, norm and transpose are one pass over the largest values of the
model in place of four.
"""

import numpy as np
import onnx_ir as ir

from mpq.deploy.graph import constant

_CHANNELS_LAST = {"perm": [0, 2, 1]}


def norm_ahead(graph: ir.Graph, audio: ir.Value) -> list[ir.Value]:
    """Replace the first convolution of `audio` `[batch, samples]` and the instance norm after it with one product.

    Returns:
        The filters, float32 `[batch, k + 1, channels]`, the last row of which is added to each product; an empty list
        if there is no such norm.
    """
    for unsqueeze in _users(audio, "Unsqueeze"):
        for conv in _users(unsqueeze.outputs[0], "Conv"):
            for norm in _users(conv.outputs[0], "InstanceNormalization"):
                filters = _normed_filters(graph, audio, conv, norm)
                tape = ir.tape.Tape(graph)
                windows = tape.op("Transpose", [_windows(graph, audio, conv, one=True)], _CHANNELS_LAST)
                normed = tape.op("Transpose", [tape.op("MatMul", [windows, filters])], _CHANNELS_LAST)
                ir.convenience.replace_all_uses_with(norm.outputs[0], normed)
                graph.remove(norm, safe=True)
                return [filters]
    return []


def _users(value: ir.Value, operator: str) -> list[ir.Node]:
    return [node for node, position in value.uses() if node.op_type == operator and position == 0]


def _normed_filters(graph: ir.Graph, audio: ir.Value, conv: ir.Node, norm: ir.Node) -> ir.Value:
    """The filters of `conv` with the scale of its `norm` and, as the last row, its shift."""
    tape = ir.tape.Tape(graph)
    (width,) = conv.attributes["kernel_shape"].as_ints()
    weight = _double(tape, conv.inputs[1], [-1, width])
    gain, offset = (_double(tape, value, [-1, 1]) for value in norm.inputs[1:])
    mean, covariance = _statistics(graph, audio, conv)
    centre = tape.op("MatMul", [weight, mean])
    product = tape.op("Mul", [tape.op("MatMul", [weight, covariance]), weight])
    variance = tape.op("ReduceSum", [product, constant(graph, "axis_2", np.array([2]))], {"keepdims": 1})
    epsilon = constant(graph, "norm_epsilon", np.float64(norm.attributes["epsilon"].as_float()))
    scale = tape.op("Div", [gain, tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])])
    # A bias of the convolution is part of the mean: the norm takes it away.
    shift = tape.op("Sub", [offset, tape.op("Mul", [centre, scale])])
    rows = tape.op("Concat", [tape.op("Mul", [weight, scale]), shift], {"axis": 2})
    return tape.op("Cast", [tape.op("Transpose", [rows], _CHANNELS_LAST)], {"to": ir.DataType.FLOAT})


def _statistics(graph: ir.Graph, audio: ir.Value, conv: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Mean `[batch, k, 1]` and covariance `[batch, k, k]`, float64, of the audio windows of `conv`."""
    tape, last = ir.tape.Tape(graph), constant(graph, "axis_2", np.array([2]))
    windows = _double(tape, _windows(graph, audio, conv))
    mean = tape.op("ReduceMean", [windows, last], {"keepdims": 1})
    centred = tape.op("Sub", [windows, mean])
    products = tape.op("MatMul", [centred, tape.op("Transpose", [centred], {"perm": [0, 2, 1]})])
    count = _double(tape, tape.op("Shape", [windows], {"start": 2}))
    return mean, tape.op("Div", [products, count])


def _windows(graph: ir.Graph, audio: ir.Value, conv: ir.Node, one: bool = False) -> ir.Value:
    """The audio windows of `conv`, `[batch, k, time]`, with `one` followed by a row of ones."""
    tape = ir.tape.Tape(graph)
    (width,) = conv.attributes["kernel_shape"].as_ints()
    taps = np.eye(width + one, width, dtype=np.float32)[:, None, :]
    inputs = [tape.op("Unsqueeze", [audio, constant(graph, "axis_1", np.array([1]))])]
    inputs.append(constant(graph, f"taps_{one:d}", taps))
    if one:
        inputs.append(constant(graph, "one_behind", np.eye(1, width + 1, width, dtype=np.float32)[0]))
    return tape.op("Conv", inputs, {"strides": conv.attributes["strides"].as_ints()})


def _double(tape: ir.tape.Tape, value: ir.Value | None, shape: list[int] | None = None) -> ir.Value:
    """`value` in float64, reshaped if `shape` is given."""
    wide = tape.op("Cast", [value], {"to": ir.DataType.DOUBLE})
    if shape is None:
        return wide
    return tape.op("Reshape", [wide, tape.op("Constant", [], {"value_ints": shape})])
