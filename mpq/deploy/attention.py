"""Attention that takes and gives `[batch, frames, width]`, not yet split into heads, in a graph traced by PyTorch.

The tracer splits queries, keys and values into heads and swaps frames and heads, each a copy; the operators do it
themselves in less time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mpq.deploy.graph import constant

_LONG = 512  # frames; from here on MultiHeadAttention, which computes in blocks, takes less time (experiments/LOG.md)


def join_heads(graph: ir.Graph, heads: int, masked: bool) -> None:
    """Let each `Attention` of `graph` that is made of heads do without the copies, in place.

    `masked`: whether the graph is told which inputs are padding; if not, a mask of truth values lets everything pass,
    and goes, and long recordings are computed in blocks. Biases of positions, which are numbers, stay.
    """
    long = None
    for node in _found(graph):
        whole, bias = _before_heads(node), [value for value in node.inputs[3:] if value is not None]
        if whole is None:
            continue
        settings = {name: one.value for name, one in node.attributes.items()}
        settings |= {"q_num_heads": heads, "kv_num_heads": heads}
        if masked or any(value.dtype != ir.DataType.BOOL for value in bias):
            _replace(node, ir.tape.Tape(graph).op("Attention", [*whole, *node.inputs[3:]], settings))
        else:
            long = _is_long(graph, whole[0]) if long is None else long
            _replace(node, _by_length(graph, long, whole, settings))


def _is_long(graph: ir.Graph, rows: ir.Value) -> ir.Value:
    """Whether `rows` `[batch, frames, width]` has at least `_LONG` frames."""
    tape = ir.tape.Tape(graph)
    frames = tape.op("Shape", [rows], {"start": 1, "end": 2})
    return tape.op("GreaterOrEqual", [frames, constant(graph, "long", np.array([_LONG]))])


def _by_length(graph: ir.Graph, long: ir.Value, whole: Sequence[ir.Value], settings: dict[str, Any]) -> ir.Value:
    """Attention without a mask, by the operator that is the faster one for so many frames."""
    blocks, at_once = (ir.Graph([], [], nodes=[], name=name) for name in ("blocks", "at_once"))
    blocks.outputs.append(_in_blocks(blocks, whole, settings["q_num_heads"], settings["scale"]))
    at_once.outputs.append(ir.tape.Tape(at_once).op("Attention", whole, settings))
    for branch in (blocks, at_once):
        branch.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return ir.tape.Tape(graph).op("If", [long], {"then_branch": blocks, "else_branch": at_once})


def fuse(graph: ir.Graph, heads: int) -> None:
    """Replace each `Attention` of `graph` with ONNX Runtime's `MultiHeadAttention`, in place; none has a mask."""
    for node in _found(graph):
        whole = _before_heads(node)
        assert whole is not None and len(node.inputs) == 3
        _replace(node, _in_blocks(graph, whole, heads, node.attributes["scale"].as_float()))


def _in_blocks(graph: ir.Graph, whole: Sequence[ir.Value], heads: int, scale: float) -> ir.Value:
    """Attention by ONNX Runtime's own operator.

    `Attention` holds a score for each head and pair of frames, 54 MB for 30 s in Whisper tiny; this one computes them
    in blocks, and in less time if there are many.
    """
    settings = {"num_heads": heads, "scale": scale}
    return ir.tape.Tape(graph).op("MultiHeadAttention", whole, settings, domain="com.microsoft")


def _found(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type == "Attention"]


def _before_heads(node: ir.Node) -> Sequence[ir.Value] | None:
    """Queries, keys and values before they are split into heads; None if they come from something else."""
    split = [_before(_before(value, "Transpose"), "Reshape") for value in node.inputs[:3]]
    found = [value for value in split if value is not None]
    return found if len(found) == 3 else None


def _before(value: Any, operator: str) -> ir.Value | None:
    """What the node `operator` made `value` from; None if another node made it."""
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None and node.op_type == operator else None


def _replace(node: ir.Node, fused: ir.Value) -> None:
    """Let what reads the joined heads of `node` read `fused`."""
    joined = node.outputs[0]
    while (user := next(iter(joined.uses())).node).op_type in ("Transpose", "Reshape"):
        joined = user.outputs[0]
    ir.convenience.replace_all_uses_with(joined, fused)
