"""Turns a decoder's graph whose past is an input into a merged one, which also serves the first step.

*Tokens so far.* In the first step their keys and values count as empty, whatever shape a reader gives them: onnx-asr
passes `[0, heads, 0, width]`, older versions of Optimum a past of length 1.

*The encoder's output.* Its keys and values are computed in the first step and read from the past in later ones: one
`If` per layer around its attention, so that nothing is copied. Weights are read in one branch only, so none is stored
twice. In later steps the outputs for the encoder are empty, as in Optimum's files: readers keep those of the first
step.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from mpq.deploy.graph import constant
from mpq.deploy.slices import read_by_these_alone


def merge(model: ir.Model, heads: int, width: int) -> None:
    """Add the first step to the graph of `graph_seq2seq.decoder_graph`, in place, after its weights were rewritten."""
    graph = model.graph
    tokens, hidden, *past = graph.inputs
    logits, *states = graph.outputs
    branch = ir.val("use_cache_branch", dtype=ir.DataType.BOOL, shape=[1])
    _count_past_only_later(graph, tokens, past, branch, heads, width)
    inputs, outputs, bodies = [tokens, hidden], [logits], []
    for layer, (keys, values) in enumerate(zip(states[2::4], states[3::4], strict=True)):
        earlier = [ir.val(f"earlier_{layer}_{part}", dtype=ir.DataType.FLOAT) for part in ("keys", "values")]
        nothing = ir.tensor(np.zeros((0, heads, 1, width), dtype=np.float32))
        found, first_step, later = _attention(graph, branch, (keys, values), earlier, nothing)
        for body in (first_step, later):
            for number, value in enumerate(value for node in body for value in node.outputs):
                value.name = f"{body.name}_{layer}_{number}"  # ONNX wants them different in all graphs of a file
        inputs += [*past[2 * layer : 2 * layer + 2], *earlier]
        outputs += [*states[4 * layer : 4 * layer + 2], *found]
        bodies.append(first_step)
    graph.inputs[:] = [*inputs, branch]
    graph.outputs[:] = outputs
    common.RemoveUnusedNodesPass()(model)  # the nodes that were copied into the branches
    for body in bodies:
        # ONNX Runtime's option for exact sums (`runtime.add_exactly`) finds them only there.
        for name in read_by_these_alone(list(body)):
            body.register_initializer(graph.initializers.pop(name))


def _count_past_only_later(
    graph: ir.Graph, tokens: ir.Value, past: Sequence[ir.Value], branch: ir.Value, heads: int, width: int
) -> None:
    """Make each `past` `[batch, heads, length, width]` empty where `branch` is false."""
    users = [(value, list(value.uses())) for value in past]
    tape = ir.tape.Tape(graph)
    batch = tape.op("Shape", [tokens], {"start": 0, "end": 1})
    length = tape.op("Shape", [past[0]], {"start": 2, "end": 3})
    length = tape.op("Mul", [length, tape.op("Cast", [branch], {"to": ir.DataType.INT64})])
    number = {n: constant(graph, f"number_{n}", np.array([n])) for n in (0, 2, heads, width)}
    shape = tape.op("Concat", [batch, number[heads], length, number[width]], {"axis": 0})
    for value, readers in users:
        kept = tape.op("Slice", [value, number[0], length, number[2]])
        kept = tape.op("Reshape", [kept, shape], {"allowzero": 1})
        for node, position in readers:
            node.replace_input_with(position, kept)


def _attention(
    graph: ir.Graph, branch: ir.Value, made: Sequence[ir.Value], earlier: Sequence[ir.Value], nothing: ir.TensorProtocol
) -> tuple[Sequence[ir.Value], ir.Graph, ir.Graph]:
    """Make the attention to `made`, keys and values, attend to `earlier` ones where `branch` is true.

    Returns: the keys and values for the next step, `nothing` in later ones; the branches of the first step and of later
    ones.
    """
    (attention,) = [node for node, _ in made[0].uses() if node.op_type == "Attention"]
    first_step, later = ir.Graph([], [], nodes=[], name="first_step"), ir.Graph([], [], nodes=[], name="later_steps")
    copies: dict[ir.Value, ir.Value] = {}
    for node in [*_upstream(made), attention]:
        first_step.append(_copy(node, copies))
    first_step.outputs.extend(copies[value] for value in (attention.outputs[0], *made))
    again = _copy(attention, dict(zip(made, earlier, strict=True)))
    later.append(again)
    empty = [ir.tape.Tape(later).op("Constant", [], {"value": nothing}) for _ in earlier]
    later.outputs.extend([again.outputs[0], *empty])
    branches = {"then_branch": later, "else_branch": first_step}
    attended, *found = ir.tape.Tape(graph).op_multi_out("If", [branch], branches, num_outputs=3)
    for value in (*first_step.outputs, *later.outputs, attended, *found):
        value.type = ir.TensorType(ir.DataType.FLOAT)
    ir.convenience.replace_all_uses_with(attention.outputs[0], attended)
    return found, first_step, later


def _upstream(values: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes that compute `values` from inputs and initializers, each after those that it reads."""
    found: dict[ir.Node, None] = {}

    def visit(value: ir.Value | None) -> None:
        node = None if value is None else value.producer()
        if node is not None and node not in found:
            for source in node.inputs:
                visit(source)
            found[node] = None

    for value in values:
        visit(value)
    return list(found)


def _copy(node: ir.Node, made: dict[ir.Value, ir.Value]) -> ir.Node:
    """Return a copy of `node` that reads the values in `made` in place of the originals, and add its outputs there."""
    inputs = [value if value is None else made.get(value, value) for value in node.inputs]
    copy = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
    made.update(zip(node.outputs, copy.outputs, strict=True))
    return copy
