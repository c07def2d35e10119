"""Takes a norm over a whole recording out of the way of working in slices (`mpq.deploy.slices`).

The first convolution of a wav2vec2 is linear, so mean and variance of each of its channels follow from the mean `m` and
the covariance `S` of the windows of audio that it multiplies: `w m` and `w S w`, for `k` samples a window `k + k^2`
numbers instead of 512 channels of the whole recording. In float64: neighbouring samples are alike, and `w S w` of a
filter that hears their difference is what little of large numbers remains.
"""

import numpy as np
import onnx_ir as ir

from mpq.deploy.float_graph import constant


def norm_ahead(graph: ir.Graph, audio: ir.Value) -> list[ir.Value]:
    """Replace the instance norm after the first convolution of `audio` `[batch, samples]` by a product and a sum.

    Returns:
        What is multiplied and added, float32 `[batch, channels, 1]`; nothing where there is no such norm.
    """
    for unsqueeze in _users(audio, "Unsqueeze"):
        for conv in _users(unsqueeze.outputs[0], "Conv"):
            for norm in _users(conv.outputs[0], "InstanceNormalization"):
                scale, shift = _scale_and_shift(graph, audio, conv, norm)
                tape = ir.tape.Tape(graph)
                normed = tape.op("Add", [tape.op("Mul", [conv.outputs[0], scale]), shift])
                ir.convenience.replace_all_uses_with(norm.outputs[0], normed)
                graph.remove(norm, safe=True)
                return [scale, shift]
    return []


def _users(value: ir.Value, operator: str) -> list[ir.Node]:
    return [node for node, position in value.uses() if node.op_type == operator and position == 0]


def _scale_and_shift(graph: ir.Graph, audio: ir.Value, conv: ir.Node, norm: ir.Node) -> tuple[ir.Value, ir.Value]:
    """The norm of what `conv` gives, as `scale * conv + shift`."""
    tape = ir.tape.Tape(graph)
    (width,) = conv.attributes["kernel_shape"].as_ints()
    weight = _double(tape, conv.inputs[1], [-1, width])
    gain, offset = (_double(tape, value, [-1, 1]) for value in norm.inputs[1:])
    mean, covariance = _windows(graph, audio, conv)
    centre = tape.op("MatMul", [weight, mean])
    if len(conv.inputs) > 2:
        centre = tape.op("Add", [centre, _double(tape, conv.inputs[2], [-1, 1])])
    last = constant(graph, "axis_2", np.array([2]))
    product = tape.op("Mul", [tape.op("MatMul", [weight, covariance]), weight])
    variance = tape.op("ReduceSum", [product, last], {"keepdims": 1})
    epsilon = constant(graph, "norm_epsilon", np.float64(norm.attributes["epsilon"].as_float()))
    scale = tape.op("Div", [gain, tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])])
    shift = tape.op("Sub", [offset, tape.op("Mul", [centre, scale])])
    single = {"to": ir.DataType.FLOAT}
    return tape.op("Cast", [scale], single), tape.op("Cast", [shift], single)


def _windows(graph: ir.Graph, audio: ir.Value, conv: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Mean `[batch, k, 1]` and covariance `[batch, k, k]`, float64, of the windows of audio in `conv`."""
    tape = ir.tape.Tape(graph)
    (width,), last = conv.attributes["kernel_shape"].as_ints(), constant(graph, "axis_2", np.array([2]))
    one_hot = constant(graph, "window", np.eye(width, dtype=np.float32)[:, None, :])
    source = tape.op("Unsqueeze", [audio, constant(graph, "axis_1", np.array([1]))])
    taken = tape.op("Conv", [source, one_hot], {"strides": conv.attributes["strides"].as_ints()})
    windows = _double(tape, taken)
    mean = tape.op("ReduceMean", [windows, last], {"keepdims": 1})
    centred = tape.op("Sub", [windows, mean])
    products = tape.op("MatMul", [centred, tape.op("Transpose", [centred], {"perm": [0, 2, 1]})])
    count = _double(tape, tape.op("Shape", [windows], {"start": 2}))
    return mean, tape.op("Div", [products, count])


def _double(tape: ir.tape.Tape, value: ir.Value | None, shape: list[int] | None = None) -> ir.Value:
    """`value` in float64, and reshaped."""
    wide = tape.op("Cast", [value], {"to": ir.DataType.DOUBLE})
    if shape is None:
        return wide
    return tape.op("Reshape", [wide, tape.op("Constant", [], {"value_ints": shape})])
