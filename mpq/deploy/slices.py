"""Runs a model's convolutions over time in slices, so that their intermediate values stay in a core's cache.

The first convolution of a wav2vec2 outputs 512 channels every 5 samples, 50 times the size of the Transformer's input.
Computed at once, it accounts for most of the memory, and each pass over it is limited by memory bandwidth. An ONNX
`Loop` computes a few frames of one recording at a time instead. Only the order of operations changes, except that
layout `speed` then has one input scale per slice.

Slices may be of two sizes (`Slicing.whole`): the last convolutions have few steps a frame, and a product of a few rows
takes as long as its weights take to come from memory.

A norm over the whole recording would prevent slices, so it is computed beforehand (`mpq.deploy.first_convolution`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mpq.deploy.first_convolution import norm_ahead
from mpq.deploy.graph import INPUT, constant

_SCOPES = "pkg.torch.onnx.name_scopes"  # where PyTorch notes which modules a node belongs to
_ENCODER = "feature_extractor"  # transformers' name of the module of convolutions over time
_NORMS_OVER_TIME = {"GroupNormalization", "InstanceNormalization"}


Steps = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Slicing:
    """How the convolutions over time run: `frames` frames of a recording at a time.

    steps: the `(kernel, stride)` of each. whole: how many of the last ones take such a slice at once, while those
    before them take it in slices of their own, which yield `inner` steps each; with 0 all are alike.
    """

    steps: Steps
    frames: int
    whole: int = 0
    inner: int = 0

    @property
    def early(self) -> Steps:
        """Those before the last `whole`."""
        return self.steps[: len(self.steps) - self.whole]

    def is_late(self, position: int) -> bool:
        """Whether the convolution at `position` is one of the last `whole`."""
        return position >= len(self.early)

    def windows(self, position: int) -> int:
        """How many windows the convolution at `position` has at once."""
        if self.whole and not self.is_late(position):
            return _span(self.early[position + 1 :], self.inner)
        return _span(self.steps[position + 1 :], self.frames)


def in_two_sizes(steps: Steps, late: Steps, most: int) -> Slicing:
    """The slicing of the convolutions `steps` whose last ones, `late`, take up to `most` frames at once.

    The others take two frames at once, less one step: with kernels of 3 and strides of 2, products then have 15, 31 and
    63 rows, and processors multiply 16 at a time. Frames are those that such slices yield with the least left over.
    """
    inner = 2 * math.prod(stride for _, stride in late) - 1

    def cost(frames: int) -> float:
        return math.ceil(_span(late, frames) / inner) / frames

    return Slicing(steps, min(range(most, most // 2, -1), key=cost), len(late), inner)


def _span(steps: Steps, outputs: int) -> int:
    """How many input steps `outputs` steps after the convolutions `steps` depend on."""
    for kernel, stride in reversed(steps):
        outputs = (outputs - 1) * stride + kernel
    return outputs


def features_of(graph: ir.Graph) -> list[ir.Value]:
    """Return what each convolution over time reads, and last what the Transformer reads, of a traced graph."""
    nodes = [node for node in graph if _ENCODER in node.metadata_props.get(_SCOPES, "")]
    inputs = [node.inputs[0] for node in nodes if node.op_type == "Conv"]
    return [*(value for value in inputs if value is not None), nodes[-1].outputs[0]]


def in_slices(graph: ir.Graph, slicing: Slicing, late: ir.Value, features: ir.Value) -> None:
    """Move the convolutions over time, which end in `features`, into a loop over slices, in place.

    `late`: what the first of the last ones (`Slicing.whole`) reads. The graph stays as it is if a norm over time can't
    be computed ahead.
    """
    audio = next(value for value in graph.inputs if value.name == INPUT)
    ahead = norm_ahead(graph, audio)
    nodes = _between(audio, features, ahead)
    if _NORMS_OVER_TIME & {node.op_type for node in nodes}:
        return
    body, own = _Slices(graph, audio, slicing.steps, slicing.frames).move(nodes, features, ahead)
    if slicing.whole:
        ahead = [own[value] for value in ahead]
        early = _between(own[audio], late, ahead)
        _Slices(body, own[audio], slicing.early, slicing.inner, graph).move(early, late, ahead)


class _Slices:
    """Slices of the recordings `audio` `[batch, samples]`, each of which yields `outputs` steps."""

    def __init__(self, graph: ir.Graph, audio: ir.Value, steps: Steps, outputs: int, outer: ir.Graph | None = None):
        """`outer`: the graph that `graph`, if it is a loop's body, is in; its names are not for use again."""
        self._graph, self._audio, self._constants = graph, audio, outer or graph
        self._hop = outputs * math.prod(stride for _, stride in steps)
        self._span = _span(steps, outputs)
        tape = self._tape = ir.tape.Tape(graph)
        self._recordings = tape.op("Shape", [audio], {"start": 0, "end": 1})
        self._samples = self._count = tape.op("Shape", [audio], {"start": 1, "end": 2})
        for kernel, stride in steps:
            moves = tape.op("Div", [tape.op("Sub", [self._count, self._whole(kernel)]), self._whole(stride)])
            self._count = tape.op("Add", [moves, self._whole(1)])
        up = tape.op("Add", [self._count, self._whole(outputs - 1)])
        self._slices = tape.op("Div", [up, self._whole(outputs)])  # of a recording

    def move(
        self, nodes: Sequence[ir.Node], features: ir.Value, ahead: Sequence[ir.Value]
    ) -> tuple[ir.Graph, dict[ir.Value, ir.Value]]:
        """Make `nodes`, which compute `features` from the recordings and `ahead`, work slice by slice.

        Returns: what the loop does, and the parts of the recordings and of `ahead` that it reads.
        """
        later = [(node, position) for node, position in features.uses() if node not in nodes]
        turn = ir.val("turn", dtype=ir.DataType.INT64, shape=[])
        go_on = ir.val("go_on", dtype=ir.DataType.BOOL, shape=[])
        body = ir.Graph([turn, go_on], [], nodes=[], name="slice")
        tape = ir.tape.Tape(body)
        own = {self._audio: tape.op("Gather", [self._cut(), turn])}
        if ahead:
            recording = tape.op("Div", [turn, self._slices])
            own |= {value: tape.op("Gather", [value, recording]) for value in ahead}
        self._graph.remove(nodes)
        body.extend(nodes)
        for node in nodes:
            for position, value in enumerate(node.inputs):
                if value in own:
                    node.replace_input_with(position, own[value])
        in_time = tape.op("Transpose", [features], {"perm": [0, 2, 1]})
        body.outputs.extend([tape.op("Identity", [go_on]), in_time])
        turns = self._tape.op("Mul", [self._recordings, self._slices])
        always = constant(self._constants, "always", np.array(True))
        joined = self._joined(self._tape.op("Loop", [turns, always], {"body": body}), features)
        for node, position in later:
            node.replace_input_with(position, joined)
        # ONNX Runtime's option for exact sums (`runtime.add_exactly`) finds them only there.
        for name in read_by_these_alone(nodes):
            body.register_initializer(self._graph.initializers.pop(name))
        return body, own

    def _cut(self) -> ir.Value:
        """What each slice hears, `[batch * slices, 1, span]`, with zeros behind the end of the recordings."""
        tape, one = self._tape, self._whole(1)
        end = tape.op("Mul", [self._slices, self._whole(self._hop)])
        wanted = tape.op("Add", [end, self._whole(self._span - self._hop)])
        behind = tape.op("Max", [tape.op("Sub", [wanted, self._samples]), self._whole(0)])
        nothing = constant(self._constants, "no_padding", np.zeros(3, dtype=np.int64))
        padded = tape.op("Pad", [self._audio, tape.op("Concat", [nothing, behind], {"axis": 0})])
        zero, single, hop, span = (
            constant(self._constants, f"single_{number}", np.array(number)) for number in (0, 1, self._hop, self._span)
        )
        starts = tape.op("Unsqueeze", [tape.op("Range", [zero, tape.op("Squeeze", [end]), hop]), one])
        samples = tape.op("Add", [starts, tape.op("Range", [zero, span, single])])
        cut = tape.op("Gather", [padded, samples], {"axis": 1})
        return tape.op(
            "Reshape", [cut, constant(self._constants, f"slices_of_{self._span}", np.array([-1, 1, self._span]))]
        )

    def _joined(self, made: ir.Value, features: ir.Value) -> ir.Value:
        """The slices `[batch * slices, 1, outputs, channels]` as one row per recording, `[batch, channels, time]`."""
        assert features.shape is not None
        inner = constant(self._constants, f"slices_by_{features.shape[1]}", np.array([-1, features.shape[1]]))
        apart = self._tape.op("Concat", [self._recordings, inner], {"axis": 0})
        row = self._tape.op("Reshape", [made, apart])
        axis, begin = constant(self._constants, "axis_1", np.array([1])), self._whole(0)
        return self._tape.op(
            "Transpose", [self._tape.op("Slice", [row, begin, self._count, axis])], {"perm": [0, 2, 1]}
        )

    def _whole(self, number: int) -> ir.Value:
        return constant(self._constants, f"number_{number}", np.array([number]))


def read_by_these_alone(nodes: Sequence[ir.Node]) -> list[str]:
    """The names of the initializers that no other node reads, sorted."""
    read = {value for node in nodes for value in node.inputs if value is not None and value.is_initializer()}
    return sorted(str(value.name) for value in read if all(user in nodes for user, _ in value.uses()))


def _between(audio: ir.Value, features: ir.Value, ahead: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes between `audio` and `features`, in order, without those that compute `ahead` from `audio`."""
    found: dict[ir.Node, bool] = {}

    def depends(value: ir.Value | None) -> bool:
        node = None if value is None or value in ahead or value is audio else value.producer()
        if node is None:
            return value is audio
        if node not in found:
            reached = [depends(source) for source in node.inputs]
            found[node] = any(reached)
        return found[node]

    depends(features)
    return [node for node, reached in found.items() if reached]
