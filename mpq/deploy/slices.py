"""Runs a model's convolutions over time in slices, so that their intermediate values stay in a core's cache.

The first convolution of a wav2vec2 outputs 512 channels every 5 samples, 50 times the size of the Transformer's input.
Computed at once, it accounts for most of the memory, and each pass over it is limited by memory bandwidth. An ONNX
`Loop` computes a few frames of one recording at a time instead. Only the order of operations changes, except that
layout `speed` then has one input scale per slice.

A norm over the whole recording would prevent that, so it is computed beforehand (`norm_ahead`). The first convolution
of a wav2vec2 is linear, so the mean and variance of each of its channels follow from the mean `m` and covariance `S` of
the audio windows that it multiplies: `w m` and `w S w`. With `k` samples per window that is `k + k^2` numbers instead
of 512 channels of the whole recording. They are computed in float64: neighbouring samples are similar, and for a filter
that takes their difference `w S w` is a small difference of large numbers.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mpq.deploy.graph import INPUT, constant

_SCOPES = "pkg.torch.onnx.name_scopes"  # where PyTorch notes which modules a node belongs to
_ENCODER = "feature_extractor"  # transformers' name of the module of convolutions over time
_NORMS_OVER_TIME = {"GroupNormalization", "InstanceNormalization"}


def in_slices(graph: ir.Graph, steps: Sequence[tuple[int, int]], frames: int) -> None:
    """Move the convolutions over time into a loop over slices of `frames` output frames, in place.

    `steps` holds the `(kernel, stride)` of each. The graph stays as it is if a norm over time can't be computed ahead.
    """
    audio = next(value for value in graph.inputs if value.name == INPUT)
    features = [node for node in graph if _ENCODER in node.metadata_props.get(_SCOPES, "")][-1].outputs[0]
    ahead = norm_ahead(graph, audio)
    nodes = _between(audio, features, ahead)
    if not _NORMS_OVER_TIME & {node.op_type for node in nodes}:
        _Slices(graph, audio, steps, frames).move(nodes, features, ahead)


class _Slices:
    """Slices of the recordings `audio` `[batch, samples]`, each of which yields `frames` frames."""

    def __init__(self, graph: ir.Graph, audio: ir.Value, steps: Sequence[tuple[int, int]], frames: int) -> None:
        self._graph, self._audio, self._frames = graph, audio, frames
        self._hop = frames * math.prod(stride for _, stride in steps)
        self._span = frames
        for kernel, stride in reversed(steps):
            self._span = (self._span - 1) * stride + kernel
        tape = self._tape = ir.tape.Tape(graph)
        self._recordings = tape.op("Shape", [audio], {"start": 0, "end": 1})
        self._samples = self._count = tape.op("Shape", [audio], {"start": 1, "end": 2})
        for kernel, stride in steps:
            moves = tape.op("Div", [tape.op("Sub", [self._count, self._whole(kernel)]), self._whole(stride)])
            self._count = tape.op("Add", [moves, self._whole(1)])
        up = tape.op("Add", [self._count, self._whole(frames - 1)])
        self._slices = tape.op("Div", [up, self._whole(frames)])  # of a recording

    def move(self, nodes: Sequence[ir.Node], features: ir.Value, ahead: Sequence[ir.Value]) -> None:
        """Make `nodes`, which compute `features` from the recordings and `ahead`, work slice by slice."""
        later = [(node, position) for node, position in features.uses() if node not in nodes]
        turn = ir.val("turn", dtype=ir.DataType.INT64, shape=[])
        go_on = ir.val("go_on", dtype=ir.DataType.BOOL, shape=[])
        body = ir.Graph([turn, go_on], [], nodes=[], name="slice")
        tape = ir.tape.Tape(body)
        recording = tape.op("Div", [turn, self._slices])
        start = tape.op("Mul", [tape.op("Mod", [turn, self._slices]), self._whole(self._hop)])
        corner = tape.op("Concat", [recording, start], {"axis": 0})
        own = {self._audio: self._block(tape, self._padded(), corner, [1, self._span])}
        own |= {value: self._block(tape, value, recording, [1]) for value in ahead}
        self._graph.remove(nodes)
        body.extend(nodes)
        for node in nodes:
            for position, value in enumerate(node.inputs):
                if value in own:
                    node.replace_input_with(position, own[value])
        body.outputs.extend([tape.op("Identity", [go_on]), features])
        turns = self._tape.op("Mul", [self._recordings, self._slices])
        always = constant(self._graph, "always", np.array(True))
        joined = self._joined(self._tape.op("Loop", [turns, always], {"body": body}), features)
        for node, position in later:
            node.replace_input_with(position, joined)
        # ONNX Runtime's option for exact sums (`runtime.add_exactly`) finds them only there.
        for name in read_by_these_alone(nodes):
            body.register_initializer(self._graph.initializers.pop(name))

    def _padded(self) -> ir.Value:
        """The recordings, padded with zeros so that the last slice is as long as the others."""
        wanted = self._tape.op("Mul", [self._slices, self._whole(self._hop)])
        wanted = self._tape.op("Add", [wanted, self._whole(self._span - self._hop)])
        behind = self._tape.op("Max", [self._tape.op("Sub", [wanted, self._samples]), self._whole(0)])
        nothing = constant(self._graph, "no_padding", np.zeros(3, dtype=np.int64))
        return self._tape.op("Pad", [self._audio, self._tape.op("Concat", [nothing, behind], {"axis": 0})])

    def _block(self, tape: ir.tape.Tape, value: ir.Value, corner: ir.Value, size: Sequence[int]) -> ir.Value:
        """The part of `value` that begins at `corner` and spans `size` on the first axes."""
        extent = constant(self._graph, f"extent_{'_'.join(map(str, size))}", np.array(size))
        axes = constant(self._graph, f"first_{len(size)}_axes", np.arange(len(size)))
        return tape.op("Slice", [value, corner, tape.op("Add", [corner, extent]), axes])

    def _joined(self, made: ir.Value, features: ir.Value) -> ir.Value:
        """The slices `[batch * slices, 1, channels, frames]` as one row per recording, `[batch, channels, time]`."""
        assert features.shape is not None
        inner = constant(self._graph, "slices_of_features", np.array([-1, features.shape[1], self._frames]))
        apart = self._tape.op("Concat", [self._recordings, inner], {"axis": 0})
        by_channel = self._tape.op("Transpose", [self._tape.op("Reshape", [made, apart])], {"perm": [0, 2, 1, 3]})
        row = self._tape.op("Reshape", [by_channel, constant(self._graph, "in_a_row", np.array([0, 0, -1]))])
        axis, begin = constant(self._graph, "axis_2", np.array([2])), self._whole(0)
        return self._tape.op("Slice", [row, begin, self._count, axis])

    def _whole(self, number: int) -> ir.Value:
        return constant(self._graph, f"number_{number}", np.array([number]))


def read_by_these_alone(nodes: Sequence[ir.Node]) -> list[str]:
    """The names of the initializers that no other node reads, sorted."""
    read = {value for node in nodes for value in node.inputs if value is not None and value.is_initializer()}
    return sorted(str(value.name) for value in read if all(user in nodes for user, _ in value.uses()))


def _between(audio: ir.Value, features: ir.Value, ahead: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes between `audio` and `features`, in order, without those that compute `ahead` from `audio`."""
    found: dict[ir.Node, bool] = {}

    def depends(value: ir.Value | None) -> bool:
        node = None if value is None or value in ahead else value.producer()
        if node is None:
            return value is audio
        if node not in found:
            reached = [depends(source) for source in node.inputs]
            found[node] = any(reached)
        return found[node]

    depends(features)
    return [node for node, reached in found.items() if reached]


def norm_ahead(graph: ir.Graph, audio: ir.Value) -> list[ir.Value]:
    """Replace the instance norm after the first convolution of `audio` `[batch, samples]` with a product and a sum.

    Returns:
        The scale and the shift, float32 `[batch, channels, 1]`; an empty list if there is no such norm.
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
    """The norm of the output of `conv`, as `scale * conv + shift`."""
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
    """Mean `[batch, k, 1]` and covariance `[batch, k, k]`, float64, of the audio windows of `conv`."""
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
    """`value` in float64, reshaped if `shape` is given."""
    wide = tape.op("Cast", [value], {"to": ir.DataType.DOUBLE})
    if shape is None:
        return wide
    return tape.op("Reshape", [wide, tape.op("Constant", [], {"value_ints": shape})])
