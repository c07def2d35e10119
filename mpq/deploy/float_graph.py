"""The model as an ONNX graph in float32, every weight still an initializer under its own name.

PyTorch's own optimisation of an exported graph would transpose the weights of linear layers ahead of time and so lose
their names; here it is told to leave them, since the names are how `rewrite` finds the sites.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer import optimize_ir
from torch import nn

INPUT, MASK, OUTPUT = "input_values", "attention_mask", "logits"
_SECONDS = 1.0  # of the audio that the graph is traced with; batch and length stay free


def float_graph(model: nn.Module, attention_mask: bool, rate: int, opset: int) -> ir.Model:
    """Trace a CTC model of raw audio and return its graph, of the ONNX operators of version `opset`.

    Inputs: `input_values` float32 `[batch, samples]` and, with `attention_mask`, `attention_mask` int64
    `[batch, samples]`. Output: `logits` float32 `[batch, frames, vocabulary]`. `rate` is in Hz.
    """
    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples")
    audio = torch.randn(2, int(_SECONDS * rate), generator=torch.Generator().manual_seed(0))
    inputs: dict[str, torch.Tensor] = {INPUT: audio}
    if attention_mask:
        inputs[MASK] = torch.ones(audio.shape, dtype=torch.long)
        inputs[MASK][1, audio.shape[1] // 2 :] = 0
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            model,
            kwargs=inputs,
            dynamo=True,
            input_names=list(inputs),
            output_names=[OUTPUT],
            dynamic_shapes={name: {0: batch, 1: samples} for name in inputs},
            opset_version=opset,
            optimize=False,
            verbose=False,
        )
        optimize_ir(program.model, should_fold=_foldable)
    _name_instance_norms(program.model.graph)
    return program.model


def finish(model: ir.Model) -> None:
    """Drop what a runtime doesn't need (traces, types of inner values, unused weights) and put the nodes in order."""
    graph = model.graph
    graph.sort()
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    parts = (graph, *graph.subgraphs())
    results = {value for part in parts for value in part.outputs}
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = value.shape if value in graph.outputs else None
            value.type = value.type if value in results else None
    for value in (value for part in parts for value in part.initializers.values()):
        value.shape, value.type = None, None  # the tensor has both
        value.metadata_props.clear()
    for value, name in ((graph.inputs[0], "samples"), (graph.outputs[0], "frames")):
        assert value.shape is not None
        value.shape = ir.Shape(["batch", name, *value.shape[2:]])
    common.NameFixPass()(model)
    for node in graph.all_nodes():
        node.name = None  # which ONNX does without


def constant(graph: ir.Graph, name: str, value: Any, dtype: ir.DataType | None = None) -> ir.Value:
    """Return the initializer `name` of the graph, made of `value` where it is not there yet."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.asarray(value) if dtype is None else value, dtype=dtype, name=name)
        ir.tape.Tape(graph).initializer(tensor)
    return graph.initializers[name]


def _name_instance_norms(graph: ir.Graph) -> None:
    """Call a group norm whose groups are single channels an instance norm, which it is.

    ONNX Runtime spells GroupNormalization out in ten passes over the largest values of the model.
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
    """False for what is computed from a weight, None to let the optimizer decide."""
    weights = [value for value in node.inputs if value is not None and value.is_initializer()]
    return False if any(len(value.shape or ()) > 1 for value in weights) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own insides (torchvision is not installed, empty attributes)."""
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
