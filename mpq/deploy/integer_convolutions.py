"""Convolutions over time as integer products of their windows: `ConvInteger` is slow with int8 weights."""

import sys
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mpq.deploy.graph import SiteWeight, constant
from mpq.deploy.integer_products import Codes, IntegerInputs, by_row, codes_of, product

_TO_THE_END = sys.maxsize


@dataclass(frozen=True)
class ConvShape:
    """What a one-dimensional convolution has beside its weight; `pads`: zeros before and behind."""

    stride: int
    groups: int
    pads: tuple[int, int]


def shape_of(conv: ir.Node) -> ConvShape | None:
    """Return the shape of a convolution that `windows` or `by_group` can compute, else None.

    That is one without dilation and padding, or one with groups and stride 1.
    """
    given = {name: attribute.value for name, attribute in conv.attributes.items()}
    if given.get("auto_pad", "NOTSET") != "NOTSET" or list(given.get("dilations", [1])) != [1]:
        return None
    (stride,), (before, behind) = given.get("strides", [1]), given.get("pads", [0, 0])
    shape = ConvShape(stride, given.get("group", 1), (before, behind))
    return shape if (shape.stride == 1 if shape.groups > 1 else shape.pads == (0, 0)) else None


def windows(graph: ir.Graph, values: ir.Value, kernel: int, stride: int, count: int | None = None) -> ir.Value:
    """Every window of `kernel` steps of `values` `[batch, time, channels]`: `[batch, windows, kernel * channels]`.

    `count`: how many there are, where that is always the same: one Gather then takes the place of `kernel` slices.
    """
    if kernel == 1 and stride == 1:
        return values
    tape = ir.tape.Tape(graph)
    if count is not None:
        taps = np.arange(count)[:, None] * stride + np.arange(kernel)
        taken = tape.op("Gather", [values, constant(graph, f"taps_{count}_{kernel}_{stride}", taps)], {"axis": 1})
        return tape.op("Reshape", [taken, constant(graph, f"windows_{count}", np.array([0, count, -1]))])
    axis, step = constant(graph, "axis_1", np.array([1])), constant(graph, f"step_{stride}", np.array([stride]))
    shifted = []
    for tap in range(kernel):
        end = tap - kernel + 1 or _TO_THE_END
        limits = [constant(graph, f"index_{index}", np.array([index])) for index in (tap, end)]
        shifted.append(tape.op("Slice", [values, *limits, axis, step]))
    return tape.op("Concat", shifted, {"axis": 2}) if kernel > 1 else shifted[0]


def by_window(graph: ir.Graph, taken: ir.Value, codes: Codes, width: int, out: int) -> ir.Value:
    """The windows `taken` `[batch, windows, in]`, in float32, times `codes`, with an input scale for each window."""
    tape = ir.tape.Tape(graph)
    rows = tape.op("Reshape", [taken, constant(graph, f"rows_of_{width}", np.array([-1, width]))])
    sums = product(graph, by_row(graph, rows), codes)
    recordings = tape.op("Shape", [taken], {"start": 0, "end": 1})
    inner = constant(graph, f"windows_of_{out}", np.array([-1, out]))
    return tape.op("Reshape", [sums, tape.op("Concat", [recordings, inner], {"axis": 0})])


def by_group(graph: ir.Graph, inputs: IntegerInputs, weight: SiteWeight, shape: ConvShape) -> ir.Value:
    """`inputs` `[batch, time, in]`, padded, convolved with the weight's groups: float32 `[batch, windows, out]`.

    One group at a time, because a window of all groups is `kernel` times as large as its step.
    """
    tape = ir.tape.Tape(graph)
    out, channels, kernel = weight.codes.shape
    groups, axis = shape.groups, constant(graph, "axis_1", np.array([1]))
    pads = constant(graph, "pads_{}_{}".format(*shape.pads), np.array(shape.pads))
    padded = tape.op("Pad", [inputs.values, pads, inputs.zero, axis])
    apart = constant(graph, f"groups_{groups}_{channels}", np.array([0, 0, groups, channels]))
    by_group = tape.op("Transpose", [tape.op("Reshape", [padded, apart])], {"perm": [2, 0, 1, 3]})
    taps = _every_window(graph, padded, kernel)
    row = constant(graph, f"windows_{kernel * channels}", np.array([0, 0, kernel * channels]))
    arranged = weight.codes.reshape(groups, out // groups, channels, kernel).transpose(0, 3, 2, 1)
    codes = codes_of(graph, weight, arranged.reshape(groups, kernel * channels, out // groups))
    scales = tape.op("Reshape", [codes.scale, constant(graph, f"scales_{groups}", np.array([groups, -1]))])
    sums = []
    for group in range(groups):
        own = constant(graph, f"group_{group}", np.array(group))
        taken = tape.op("Gather", [tape.op("Gather", [by_group, own]), taps], {"axis": 1})
        part = IntegerInputs(tape.op("Reshape", [taken, row]), inputs.scale, inputs.zero)
        weights = Codes(tape.op("Gather", [codes.values, own]), tape.op("Gather", [scales, own]), codes.zero)
        sums.append(product(graph, part, weights))
    return tape.op("Concat", sums, {"axis": 2})


def _every_window(graph: ir.Graph, values: ir.Value, kernel: int) -> ir.Value:
    """The steps of every window of `values` `[batch, time, channels]`: int64 `[windows, kernel]`."""
    tape, one = ir.tape.Tape(graph), constant(graph, "number_1", np.array([1]))
    time = tape.op("Shape", [values], {"start": 1, "end": 2})
    count = tape.op("Sub", [time, constant(graph, f"number_{kernel - 1}", np.array([kernel - 1]))])
    limits = [constant(graph, "none", np.array(0)), tape.op("Squeeze", [count]), constant(graph, "single", np.array(1))]
    starts = tape.op("Unsqueeze", [tape.op("Range", limits), one])
    return tape.op("Add", [starts, constant(graph, f"taps_{kernel}", np.arange(kernel))])
