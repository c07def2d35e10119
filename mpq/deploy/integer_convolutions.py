"""Convolutions over time as integer products of their windows: `ConvInteger` is slow with int8 weights."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mpq.deploy.graph import SiteWeight, constant
from mpq.deploy.integer_products import Codes, IntegerInputs, by_row, codes_of, product


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


def windows(graph: ir.Graph, values: ir.Value, weight: SiteWeight, stride: int, count: int | None = None) -> ir.Value:
    """Every window of `values` `[batch, time, in]` that the weight covers: `[batch, windows, kernel * in]`.

    `count`: how many there are, where that is always the same.
    """
    _, channels, kernel = weight.codes.shape
    if kernel == 1 and stride == 1:
        return values
    return _taken(graph, values, _taps(graph, values, kernel, stride, count), kernel * channels)


def _taps(graph: ir.Graph, values: ir.Value, kernel: int, stride: int, count: int | None = None) -> ir.Value:
    """The steps of every window of `values` `[batch, time, channels]`: int64 `[windows, kernel]`.

    Where `count` is known, ONNX Runtime computes them when it loads the file, in which they would take room.
    """
    tape = ir.tape.Tape(graph)
    first, overlap, step = (constant(graph, f"single_{number}", np.array(number)) for number in (0, kernel - 1, stride))
    if count is None:
        time = tape.op("Squeeze", [tape.op("Shape", [values], {"start": 1, "end": 2})])
        end = tape.op("Sub", [time, overlap])
    else:
        end = constant(graph, f"single_{count * stride}", np.array(count * stride))
    column = tape.op("Unsqueeze", [tape.op("Range", [first, end, step]), constant(graph, "axis_1", np.array([1]))])
    return tape.op("Add", [column, constant(graph, f"taps_{kernel}", np.arange(kernel))])


def _taken(graph: ir.Graph, values: ir.Value, taps: ir.Value, width: int) -> ir.Value:
    """The steps `taps` `[windows, kernel]` of `values` `[batch, time, channels]`: `[batch, windows, width]`."""
    tape = ir.tape.Tape(graph)
    row = constant(graph, f"windows_of_{width}", np.array([0, 0, width]))
    return tape.op("Reshape", [tape.op("Gather", [values, taps], {"axis": 1}), row])


def by_window(graph: ir.Graph, taken: ir.Value, weight: SiteWeight, codes: Codes) -> ir.Value:
    """The windows `taken` `[batch, windows, in]`, in float32, times `codes`, with an input scale for each window."""
    tape = ir.tape.Tape(graph)
    out, width = weight.codes.shape[0], weight.codes[0].size
    rows = tape.op("Reshape", [taken, constant(graph, f"rows_of_{width}", np.array([-1, width]))])
    sums = product(graph, by_row(graph, rows), codes)
    recordings = tape.op("Shape", [taken], {"start": 0, "end": 1})
    inner = constant(graph, f"products_of_{out}", np.array([-1, out]))
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
    taps = _taps(graph, padded, kernel, stride=1)
    arranged = weight.codes.reshape(groups, out // groups, channels, kernel).transpose(0, 3, 2, 1)
    codes = codes_of(graph, weight, arranged.reshape(groups, kernel * channels, out // groups))
    scales = tape.op("Reshape", [codes.scale, constant(graph, f"scales_{groups}", np.array([groups, -1]))])
    sums = []
    for group in range(groups):
        own = constant(graph, f"group_{group}", np.array(group))
        taken = _taken(graph, tape.op("Gather", [by_group, own]), taps, kernel * channels)
        part = IntegerInputs(taken, inputs.scale, inputs.zero)
        weights = Codes(tape.op("Gather", [codes.values, own]), tape.op("Gather", [scales, own]), codes.zero)
        sums.append(product(graph, part, weights))
    return tape.op("Concat", sums, {"axis": 2})
