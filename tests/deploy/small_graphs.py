"""ONNX graphs of one layer, put together by hand as PyTorch's exporter would, and run."""

import numpy as np
import onnx_ir as ir
import onnxruntime

from mpq.deploy.graph import SiteWeight, rewrite
from mpq.deploy.layout_speed import Speed
from mpq.deploy.runtime import add_exactly, saturates
from mpq.quant.grid import grid

NAME = "layer.weight"


def random_weight(rng, shape, bits, centred=True):
    """Random codes over the whole grid of `bits`, and a scale for each output channel."""
    levels = grid(bits, centred)
    codes = rng.integers(levels.low, levels.high + 1, shape).astype(np.int8)
    return SiteWeight(NAME, bits, codes, rng.uniform(0.01, 0.1, shape[0]).astype(np.float32), levels.offset)


def values_of(weight):
    """The float64 weight that codes and scale stand for."""
    scale = weight.scale.astype(np.float64).reshape(-1, *[1] * (weight.codes.ndim - 1))
    return scale * (weight.codes + weight.offset)


def run_layer(layout, weight, inputs, operator, attributes=None):
    """Rewrite a graph of one `operator` (MatMul, Conv or Gather) and run it; return its output and the model."""
    dtype = ir.DataType.INT64 if operator == "Gather" else ir.DataType.FLOAT
    source = ir.val("inputs", dtype=dtype, shape=[f"d{axis}" for axis in range(inputs.ndim)])
    if operator == "MatMul":
        source.shape = ir.Shape(["batch", "time", inputs.shape[-1]])
    graph = ir.Graph([source], [], nodes=[], name="layer", opset_imports={"": 25, "com.microsoft": 1})
    tape = ir.tape.Tape(graph)
    old = tape.initializer(ir.tensor(np.zeros(weight.codes.shape, dtype=np.float32), name=weight.name))
    if operator == "MatMul":
        result = tape.op("MatMul", [source, tape.op("Transpose", [old], {"perm": [1, 0]})])
    else:
        first, second = (old, source) if operator == "Gather" else (source, old)
        result = tape.op(operator, [first, second], attributes or {})
    result.type, result.name = ir.TensorType(ir.DataType.FLOAT), "outputs"
    graph.outputs.append(tape.op("Identity", [result]))
    graph.outputs[0].type, graph.outputs[0].name = ir.TensorType(ir.DataType.FLOAT), "final"
    return *_run(graph, weight, layout, inputs), ir.Model(graph, ir_version=13)


def run_tied(layout, weight, rows):
    """Rewrite and run a graph that takes `rows` of the weight and multiplies them by it, under a second name.

    Returns: the product, the rows, and the model.
    """
    source = ir.val("inputs", dtype=ir.DataType.INT64, shape=["batch", "time"])
    graph = ir.Graph([source], [], nodes=[], name="layer", opset_imports={"": 25, "com.microsoft": 1})
    tape = ir.tape.Tape(graph)
    zeros = np.zeros(weight.codes.shape, dtype=np.float32)
    table, head = (tape.initializer(ir.tensor(zeros, name=name)) for name in (NAME, "head.weight"))
    taken = tape.op("Gather", [table, source])
    taken.shape = ir.Shape(["batch", "time", weight.codes.shape[1]])
    product = tape.op("MatMul", [taken, tape.op("Transpose", [head], {"perm": [1, 0]})])
    for name, value in (("product", product), ("rows", taken)):
        graph.outputs.append(tape.op("Identity", [value]))
        graph.outputs[-1].type, graph.outputs[-1].name = ir.TensorType(ir.DataType.FLOAT), name
    return *_run(graph, weight, layout, rows, {"head.weight": NAME}), ir.Model(graph, ir_version=13)


def _run(graph, weight, layout, inputs, tied=None):
    rewrite(graph, {weight.name: weight}, tied or {}, layout)
    graph.sort()
    model = ir.Model(graph, ir_version=13)
    ir.passes.common.NameFixPass()(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if isinstance(layout, Speed) and saturates():
        add_exactly(options)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, {"inputs": inputs})


def stored_types(model):
    """The types of the tensors in the file that hold codes: large ones that are not float."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return {tensor.dtype.name for tensor in tensors if tensor.size > 64 and tensor.dtype != ir.DataType.FLOAT}
