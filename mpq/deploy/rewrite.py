"""Puts the packed weights into a float graph: every place where a site's weight is read gets what a layout makes of it.

A layout knows linear layers and convolutions as a whole, and a weight that anything else reads (`weight`: embeddings,
attention that reads weights itself), which it gives as float32 computed from the codes.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import onnx_ir as ir

from mpq.deploy.site_weight import SiteWeight


class Layout(Protocol):
    """How weights are stored and computed with in an ONNX file.

    frames_at_once: how many frames the convolutions over time make at once (`mpq.deploy.slices`).
    """

    frames_at_once: int

    def linear(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
        """Return `inputs @ weight.T`: float32 `[..., in]` -> `[..., out]`."""
        ...

    def convolution(self, graph: ir.Graph, conv: ir.Node, weight: SiteWeight) -> ir.Value | None:
        """Return what the node `conv`, float32 `[batch, in, time]`, gives, or None to leave it a convolution."""
        ...

    def weight(self, graph: ir.Graph, weight: SiteWeight) -> ir.Value:
        """Return the weight itself, float32 `[out, in, ...]`."""
        ...


def rewrite(graph: ir.Graph, weights: Mapping[str, SiteWeight], tied: Mapping[str, str], layout: Layout) -> None:
    """Replace, in place, every initializer that is a site or tied to one; a site that nothing reads is left out."""
    names = {name: name for name in weights} | {name: source for name, source in tied.items() if source in weights}
    for name, source in names.items():
        if name in graph.initializers:
            _replace(graph, graph.initializers.pop(name), weights[source], layout)


def _replace(graph: ir.Graph, old: ir.Value, weight: SiteWeight, layout: Layout) -> None:
    for transpose, matmul in list(_linear_layers(old)):
        inputs = matmul.inputs[0]
        assert inputs is not None
        _substitute(graph, matmul, layout.linear(graph, inputs, weight))
        if not transpose.outputs[0].uses():
            graph.remove(transpose, safe=True)
    for conv in [node for node, position in old.uses() if node.op_type == "Conv" and position == 1]:
        if (value := layout.convolution(graph, conv, weight)) is not None:
            _substitute(graph, conv, value)
    if old.uses():
        ir.convenience.replace_all_uses_with(old, layout.weight(graph, weight))


def _linear_layers(weight: ir.Value) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Every (Transpose, MatMul) that computes `x @ weight.T`."""
    for transpose, _ in weight.uses():
        if transpose.op_type == "Transpose" and len(weight.shape or ()) == 2:
            for matmul, position in transpose.outputs[0].uses():
                if matmul.op_type == "MatMul" and position == 1:
                    yield transpose, matmul


def _substitute(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let `value` take the place of what `node` gives."""
    ir.convenience.replace_all_uses_with(node.outputs[0], value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
