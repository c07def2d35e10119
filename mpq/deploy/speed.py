"""Layout "speed": linear layers in 8-bit integers, whatever the bits on disk.

Codes are cast to int8 when the file is loaded (ONNX Runtime folds constants once), inputs are quantized to 8 bits as
they come, and `MatMulInteger` multiplies the two; a 2-bit weight so runs as fast as an 8-bit one. Weights that are not
a linear layer's become float32 at load.
"""

import numpy as np
import onnx_ir as ir

from mpq.deploy.float_graph import constant
from mpq.deploy.site_weight import SiteWeight


class Speed:
    """See the module."""

    def linear(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        tape = ir.tape.Tape(graph)
        quantized, input_scale, zero = self._quantize(graph, inputs)
        codes, scale = self._codes(graph, weight)
        product = tape.op("MatMulInteger", [quantized, codes, zero])
        # In this form and order ONNX Runtime merges the three into its MatMulIntegerToFloat.
        scales = tape.op("Mul", [input_scale, scale])
        return tape.op("Mul", [tape.op("Cast", [product], {"to": ir.DataType.FLOAT}), scales])

    def weight(self, graph: ir.Graph, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        tape = ir.tape.Tape(graph)
        value = tape.op("Cast", [tape.initializer(weight.tensor())], {"to": ir.DataType.FLOAT})
        if weight.offset:
            value = tape.op("Add", [value, constant(graph, "offset", np.float32(weight.offset))])
        scale = weight.scale.reshape(-1, *[1] * (weight.codes.ndim - 1))
        return tape.op("Mul", [value, constant(graph, f"{weight.name}_scale", scale)])

    def _quantize(self, graph: ir.Graph, inputs: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The inputs as uint8, their scale and zero point; layers with the same inputs share them."""
        for node, _ in inputs.uses():
            if node.op_type == "DynamicQuantizeLinear":
                return tuple(node.outputs)  # pyright: ignore[reportReturnType]
        outputs = ir.tape.Tape(graph).op_multi_out("DynamicQuantizeLinear", [inputs], num_outputs=3)
        return tuple(outputs)  # pyright: ignore[reportReturnType]

    def _codes(self, graph: ir.Graph, weight: SiteWeight) -> tuple[ir.Value, ir.Value]:
        """Codes as int8 `[in, out]` and their scale `[out]`; half-step grids as odd codes with half the scale."""
        tape = ir.tape.Tape(graph)
        codes, scale = tape.initializer(weight.tensor(transposed=True)), weight.scale
        if weight.offset:  # scale * (code + 1/2) = scale / 2 * (2 code + 1), exactly
            wide = tape.op("Cast", [codes], {"to": ir.DataType.INT32})
            doubled = tape.op("Mul", [wide, constant(graph, "two", np.int32(2))])
            codes, scale = tape.op("Add", [doubled, constant(graph, "one", np.int32(1))]), scale / 2
        if codes.dtype != ir.DataType.INT8:
            codes = tape.op("Cast", [codes], {"to": ir.DataType.INT8})
        return codes, constant(graph, f"{weight.name}_scale", scale)
