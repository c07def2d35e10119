"""The model as an ONNX graph, first in float32, then with its packed weights.

By default, PyTorch's optimisation of an exported graph transposes the weights of linear layers ahead of time, which
loses their names. `_foldable` prevents that, because `rewrite` finds the sites by name.

`rewrite` replaces each use of a site's weight with nodes from a layout. A layout replaces linear layers and
convolutions as a whole; any other use (embeddings, attention that reads weights itself) gets float32 values computed
from the codes.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from mpq.checkpoint.coding import take_packed
from mpq.checkpoint.format import PackedSite, scale_name
from mpq.checkpoint.packing import unpack
from mpq.models.ctc import CtcModel

if TYPE_CHECKING:
    from mpq.deploy.slices import Slicing

INPUT, MASK, OUTPUT = "input_values", "attention_mask", "logits"
_SECONDS = 1.0  # of the audio that the graph is traced with; batch and length stay free


def float_graph(speech: CtcModel, opset: int, fewest: int = 0) -> ir.Model:
    """Trace a CTC model of raw audio and return its graph in ONNX operators of version `opset`.

    `fewest`: number of samples below which a recording is not like others. Left at 0, the exporter finds it by a failed
    attempt, which takes about a quarter of its time.

    Inputs: `input_values` float32 `[batch, samples]` and, where the model takes one, `attention_mask` int64
    `[batch, samples]`. Output: `logits` float32 `[batch, frames, vocabulary]`.
    """
    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples", min=fewest)
    audio = torch.randn(2, int(_SECONDS * speech.sampling_rate), generator=torch.Generator().manual_seed(0))
    inputs: dict[str, torch.Tensor] = {INPUT: audio}
    if speech.takes_attention_mask:
        inputs[MASK] = torch.ones(audio.shape, dtype=torch.long)
        inputs[MASK][1, audio.shape[1] // 2 :] = 0
    return trace(speech.model, inputs, {name: {0: batch, 1: samples} for name in inputs}, opset)


def trace(module: nn.Module, inputs: Mapping[str, Any], axes: Mapping[str, Any], opset: int) -> ir.Model:
    """Return the graph of a call of `module` with the keyword arguments `inputs`.

    `axes`: their dynamic shapes, as `torch.onnx.export` takes them.
    """
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            module,
            kwargs=dict(inputs),
            dynamo=True,
            dynamic_shapes=dict(axes),
            opset_version=opset,
            optimize=False,
            verbose=False,
        )
        optimize_ir(program.model, should_fold=_foldable)
    _name_instance_norms(program.model.graph)
    return program.model


Shapes = Mapping[str, Sequence[int | str]]


def finish(model: ir.Model, inputs: Shapes, outputs: Shapes) -> None:
    """Drop what a runtime doesn't need (traces, types of inner values, unused weights) and sort the nodes.

    `inputs` and `outputs` hold the names and shapes, in the graph's order; outputs are float32.
    """
    graph = model.graph
    graph.sort()
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    parts = (graph, *graph.subgraphs())
    results = {value for part in parts for value in part.outputs}
    for number, value in enumerate(value for node in graph.all_nodes() for value in node.outputs):
        value.name = f"value_{number}"  # a loop in a loop must not use a name again
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = None
            value.type = value.type if value in results else None
    for value in (value for part in parts for value in part.initializers.values()):
        value.shape, value.type = None, None  # the tensor has both
        value.metadata_props.clear()
    for value, (name, shape) in zip(graph.inputs, inputs.items(), strict=True):
        value.name, value.shape = name, ir.Shape(shape)
    for value, (name, shape) in zip(graph.outputs, outputs.items(), strict=True):
        value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    common.NameFixPass()(model)
    for node in graph.all_nodes():
        node.name = None  # optional in ONNX


def constant(graph: ir.Graph, name: str, value: Any, dtype: ir.DataType | None = None) -> ir.Value:
    """Return the initializer `name` of the graph, creating it from `value` if it doesn't exist yet."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.asarray(value) if dtype is None else value, dtype=dtype, name=name)
        ir.tape.Tape(graph).initializer(tensor)
    return graph.initializers[name]


def _name_instance_norms(graph: ir.Graph) -> None:
    """Replace a group norm whose groups are single channels with the equivalent instance norm.

    ONNX Runtime expands GroupNormalization into ten passes over the largest activations of the model.
    """
    for node in [node for node in graph if node.op_type == "GroupNormalization"]:
        source, scale, _ = node.inputs
        assert source is not None and scale is not None and scale.shape is not None
        if node.attributes["num_groups"].as_int() == scale.shape[0]:
            settings = {"epsilon": node.attributes["epsilon"].as_float()}
            norm = ir.tape.Tape(graph).op("InstanceNormalization", node.inputs, settings)
            ir.convenience.replace_all_uses_with(node.outputs[0], norm)
            graph.remove(node, safe=True)


def _foldable(node: ir.Node) -> bool | None:
    """False for a node computed from a weight, None to let the optimizer decide."""
    weights = [value for value in node.inputs if value is not None and value.is_initializer()]
    return False if any(len(value.shape or ()) > 1 for value in weights) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about its own internals (torchvision is not installed, empty attributes)."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


_STORED = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8}


@dataclass(frozen=True)
class SiteWeight:
    """The weight `scale * (codes + offset)`: codes int8 `[out, in, ...]`, scale float32 `[out]`, offset 0 or 0.5."""

    name: str
    bits: int
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    offset: float

    @property
    def stored_bits(self) -> int:
        """Bits per code in the ONNX file: the smallest of 2, 4 and 8 that holds every code."""
        return next(bits for bits in _STORED if bits >= self.bits)

    def tensor(self, codes: NDArray[np.int8] | None = None) -> ir.Tensor:
        """Return the codes, or `codes` (a rearrangement of them), as a tensor of INT2, INT4 or INT8."""
        arranged = np.ascontiguousarray(self.codes if codes is None else codes)
        return ir.Tensor(arranged.astype(_STORED[self.stored_bits]), name=self.name)


def read_weights(sites: Mapping[str, PackedSite], stored: Mapping[str, Tensor]) -> dict[str, SiteWeight]:
    """Return the weights of all `sites` from the tensors of a packed folder (`mpq.checkpoint.packed.read_folder`)."""
    weights, tensors = {}, dict(stored)
    for name, site in sites.items():
        codes = unpack(take_packed(tensors, name, site).numpy(), site.bits, math.prod(site.shape)).reshape(site.shape)
        scale = np.broadcast_to(stored[scale_name(name)].numpy().reshape(-1), (site.shape[0],)).copy()
        weights[name] = SiteWeight(name, site.bits, codes, scale, site.offset)
    return weights


class Layout(Protocol):
    """How an ONNX file stores weights and computes with them.

    slicing: how the convolutions over time run (`mpq.deploy.slices`); None for a model of another kind.
    """

    slicing: "Slicing | None"

    def for_decoder(self) -> "Layout":
        """Return the layout for a graph that computes one token at a time."""
        ...

    def linear(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
        """Return `inputs @ weight.T`: float32 `[..., in]` -> `[..., out]`."""
        ...

    def convolution(self, graph: ir.Graph, conv: ir.Node, weight: SiteWeight) -> ir.Value | None:
        """Return the output of `conv`, whose input is float32 `[batch, in, time]`, or None to keep the node."""
        ...

    def embedding(self, graph: ir.Graph, indices: ir.Value, weight: SiteWeight) -> ir.Value:
        """Return the rows of the weight that `indices` name: int64 `[...]` -> float32 `[..., in]`."""
        ...

    def weight(self, graph: ir.Graph, weight: SiteWeight) -> ir.Value:
        """Return the weight itself, float32 `[out, in, ...]`."""
        ...


def rewrite(graph: ir.Graph, weights: Mapping[str, SiteWeight], tied: Mapping[str, str], layout: Layout) -> None:
    """Replace, in place, every initializer that is a site or tied to one; a site that no node reads is skipped.

    Embeddings come first: a linear layer tied to one then finds its codes stored, and shares them.
    """
    names = {name: name for name in weights} | {name: source for name, source in tied.items() if source in weights}
    found = [
        (graph.initializers.pop(name), weights[source]) for name, source in names.items() if name in graph.initializers
    ]
    for old, weight in found:
        for gather in [node for node, position in old.uses() if _takes_rows(node, position)]:
            indices = gather.inputs[1]
            assert indices is not None
            _substitute(graph, gather, layout.embedding(graph, indices, weight))
    for old, weight in found:
        _replace(graph, old, weight, layout)


def _takes_rows(node: ir.Node, position: int) -> bool:
    return node.op_type == "Gather" and position == 0 and node.attributes.get_int("axis", 0) == 0


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
    """Replace the output of `node` with `value`, and remove the node."""
    ir.convenience.replace_all_uses_with(node.outputs[0], value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
