"""Layout "speed": linear layers and convolutions compute in 8-bit integers, whatever the precision on disk.

Codes are cast to int8 when the file is loaded (ONNX Runtime folds constants once), inputs are quantized to 8 bits
inside the graph, and `MatMulInteger` multiplies the two: a 2-bit weight runs as fast as an 8-bit one. Inputs are
unsigned, with a zero point of 128 where the grid is symmetric, because ONNX Runtime's fast kernels require unsigned
inputs. A convolution becomes products too (`integer_convolutions`).

Inputs of a linear layer have one scale, those of a convolution over time one per slice of a recording (`slices`).
Slices must be short where no layer norm bounds the inputs (wav2vec2-base; experiments/LOG.md). There the last
convolutions have longer slices, and a scale for each window.

The other weights become float32 at load: embeddings, convolutions with padding but without groups, and the first
convolution, whose input is audio.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from mpq.deploy.graph import SiteWeight, constant
from mpq.deploy.integer_convolutions import by_group, by_window, shape_of, windows
from mpq.deploy.integer_products import Codes, IntegerInputs, as_int8, codes_of, integer_inputs, product, scale_of
from mpq.deploy.slices import Slicing
from mpq.quant.activations import activation_quantizers_of, detach_activations

_OVER_TIME = re.compile(r"feature_extractor\.conv_layers\.(\d+)\.")  # transformers' names


class Speed:
    """See the module."""

    def __init__(self, scales: Mapping[str, np.float32 | None], slicing: Slicing | None = None) -> None:
        """`scales`: those of the packed model's quantized inputs, from `take_activations`."""
        self._scales = scales
        self.slicing = slicing

    def for_decoder(self) -> "Speed":
        """See `Layout`."""
        return self

    def linear(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        rows = graph.initializers.get(weight.name)  # of an embedding that the layer is tied to
        if rows is None:
            codes = codes_of(graph, weight, weight.codes.T)
        else:
            transposed = ir.tape.Tape(graph).op("Transpose", [as_int8(graph, weight, rows)], {"perm": [1, 0]})
            codes = Codes(transposed, *scale_of(graph, weight))
        return product(graph, self._quantized(graph, inputs, weight), codes)

    def convolution(self, graph: ir.Graph, conv: ir.Node, weight: SiteWeight) -> ir.Value | None:
        """See `Layout`."""
        shape = shape_of(conv)
        inputs, bias = conv.inputs[0], conv.inputs[2] if len(conv.inputs) > 2 else None
        if weight.codes.shape[1] == 1 or shape is None:
            return None
        assert inputs is not None
        tape = ir.tape.Tape(graph)
        in_time = tape.op("Transpose", [inputs], {"perm": [0, 2, 1]})
        if shape.groups > 1:
            sums = by_group(graph, self._quantized(graph, in_time, weight), weight, shape)
        else:
            sums = self._over_time(graph, in_time, weight, shape.stride)
        shifted = sums if bias is None else tape.op("Add", [sums, bias])
        return tape.op("Transpose", [shifted], {"perm": [0, 2, 1]})

    def embedding(self, graph: ir.Graph, indices: ir.Value, weight: SiteWeight) -> ir.Value:
        """See `Layout`. Only the rows that are taken become float32."""
        tape = ir.tape.Tape(graph)
        codes = codes_of(graph, weight, weight.codes)
        rows = tape.op("Cast", [tape.op("Gather", [codes.values, indices])], {"to": ir.DataType.FLOAT})
        if codes.zero:
            rows = tape.op("Sub", [rows, tape.op("Cast", codes.zero, {"to": ir.DataType.FLOAT})])
        scales = tape.op(
            "Unsqueeze", [tape.op("Gather", [codes.scale, indices]), constant(graph, "last_axis", np.array([-1]))]
        )
        return tape.op("Mul", [rows, scales])

    def weight(self, graph: ir.Graph, weight: SiteWeight) -> ir.Value:
        """See `Layout`."""
        tape = ir.tape.Tape(graph)
        value = tape.op("Cast", [tape.initializer(weight.tensor())], {"to": ir.DataType.FLOAT})
        if weight.offset:
            value = tape.op("Add", [value, constant(graph, "offset", np.float32(weight.offset))])
        scale = weight.scale.reshape(-1, *[1] * (weight.codes.ndim - 1))
        return tape.op("Mul", [value, constant(graph, f"{weight.name}_scale", scale)])

    def _quantized(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight) -> IntegerInputs:
        return integer_inputs(graph, inputs, weight.name.removesuffix(".weight"), self._scales)

    def _over_time(self, graph: ir.Graph, inputs: ir.Value, weight: SiteWeight, stride: int) -> ir.Value:
        """The convolution of `inputs` `[batch, time, in]`: one product of all windows."""
        _, channels, kernel = weight.codes.shape
        codes = codes_of(graph, weight, weight.codes.transpose(2, 1, 0).reshape(kernel * channels, -1))
        place, count = re.search(_OVER_TIME, weight.name), None
        if place and self.slicing:
            position = int(place[1])
            count = self.slicing.windows(position)
            if self.slicing.is_late(position):
                return by_window(graph, windows(graph, inputs, weight, stride, count), weight, codes)
        quantized = self._quantized(graph, inputs, weight)
        taken = windows(graph, quantized.values, weight, stride, count)
        return product(graph, replace(quantized, values=taken), codes)


def take_activations(model: nn.Module) -> dict[str, np.float32 | None]:
    """Take the activation quantizers off a model; return the static scale, or None for dynamic, by layer."""
    quantizers = activation_quantizers_of(model)
    with torch.no_grad():
        scales = {
            name: None if quantizer.log_scales is None else np.float32(quantizer.log_scales.exp().item())
            for name, quantizer in quantizers.items()
        }
    detach_activations(model)
    return scales
