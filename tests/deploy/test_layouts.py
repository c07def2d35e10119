"""One layer in each layout against float64: the stored codes, the grids, the arithmetic."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from small_graphs import random_weight, run_layer, run_tied, stored_types, values_of

from mpq.deploy.layout_memory import Memory
from mpq.deploy.layout_speed import Speed
from mpq.deploy.slices import Slicing
from mpq.quant.activations import ActivationQuantizer

GRIDS = [(bits, centred) for bits in range(1, 9) for centred in ((True, False) if bits == 2 else (True,))]


def close(found, wanted, tolerance=2e-6):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def quantized(inputs):
    """What ONNX's DynamicQuantizeLinear makes of `inputs`, and the values that it stands for (float64)."""
    low, high = min(inputs.min(), 0), max(inputs.max(), 0)
    scale = np.float32((high - low) / np.float32(255))
    zero = np.clip(np.round(-low / scale), 0, 255)
    return (np.clip(np.round(inputs / scale) + zero, 0, 255) - zero) * np.float64(scale)


def linear_in_memory(rng, bits, centred, width):
    """What a linear layer in the file gives, what it should give, and the file."""
    weight = random_weight(rng, (24, width), bits, centred)
    inputs = rng.standard_normal((2, 7, width)).astype(np.float32)
    found, model = run_layer(Memory(), weight, inputs, "MatMul")
    return found, inputs.astype(np.float64) @ values_of(weight).T, model


@pytest.mark.parametrize(("bits", "centred"), GRIDS)
@pytest.mark.parametrize("width", [512, 600])
def test_linear_in_memory_is_exact(bits, centred, width, rng):
    found, wanted, model = linear_in_memory(rng, bits, centred, width)
    close(found, wanted, 1e-5)
    (node,) = [node for node in model.graph if node.op_type == "MatMulNBits"]
    assert node.attributes["bits"].value == min(n for n in (2, 4, 8) if n >= bits)


@pytest.mark.parametrize(("bits", "centred"), GRIDS)
def test_a_narrow_linear_in_memory_stores_one_scale_a_row(bits, centred, rng):
    found, wanted, model = linear_in_memory(rng, bits, centred, width=40)
    close(found, wanted, 1e-5)
    assert stored_types(model) == {f"INT{min(n for n in (2, 4, 8) if n >= bits)}"}
    floats = [value.const_value.size for value in model.graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    assert sorted(floats) == [1] * (len(floats) - 1) + [24]


@pytest.mark.parametrize(("bits", "centred"), GRIDS)
def test_linear_for_speed_differs_by_the_rounding_of_inputs_alone(bits, centred, rng):
    weight = random_weight(rng, (24, 40), bits, centred)
    inputs = rng.standard_normal((2, 7, 40)).astype(np.float32)
    found, model = run_layer(Speed({}), weight, inputs, "MatMul")
    close(found, quantized(inputs) @ values_of(weight).T)
    assert stored_types(model) == {f"INT{weight.stored_bits}"}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (1, 1), (4, 1)])
def test_convolution_for_speed_is_an_integer_product(bits, kernel, stride, rng):
    weight = random_weight(rng, (6, 5, kernel), bits)
    inputs = rng.standard_normal((2, 5, 21)).astype(np.float32)
    found, model = run_layer(Speed({}), weight, inputs, "Conv", {"strides": [stride]})
    assert "MatMulInteger" in {node.op_type for node in model.graph}
    values, heard = torch.from_numpy(values_of(weight)), torch.from_numpy(quantized(inputs))
    close(found, torch.nn.functional.conv1d(heard, values, stride=stride).numpy())


def test_the_convolution_that_hears_audio_stays_float(rng):
    weight = random_weight(rng, (6, 1, 10), 8)
    audio = rng.standard_normal((2, 1, 210)).astype(np.float32)
    found, model = run_layer(Speed({}), weight, audio, "Conv", {"strides": [5]})
    assert "MatMulInteger" not in {node.op_type for node in model.graph}
    values, heard = torch.from_numpy(values_of(weight)), torch.from_numpy(audio).double()
    close(found, torch.nn.functional.conv1d(heard, values, stride=5).numpy(), 1e-5)


@pytest.mark.parametrize(("bits", "centred"), GRIDS)
def test_groups_for_speed_are_integer_products(bits, centred, rng):
    weight = random_weight(rng, (6, 4, 5), bits, centred)
    inputs = rng.standard_normal((2, 12, 21)).astype(np.float32)
    found, model = run_layer(Speed({}), weight, inputs, "Conv", {"pads": [2, 3], "group": 3})
    values, heard = (
        torch.from_numpy(values_of(weight)),
        torch.from_numpy(np.pad(quantized(inputs), [(0, 0), (0, 0), (2, 3)])),
    )
    close(found, torch.nn.functional.conv1d(heard, values, groups=3).numpy())
    assert stored_types(model) == {f"INT{weight.stored_bits}"}


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (1, 1), (4, 1)])
@pytest.mark.parametrize("whole", [0, 1])
def test_convolution_over_time_has_a_scale_for_each_window_unless_in_slices(kernel, stride, whole, rng):
    weight = replace(random_weight(rng, (6, 5, kernel), 4), name="model.feature_extractor.conv_layers.1.conv.weight")
    layout = Speed({}, Slicing([(10, 5), (kernel, stride)], frames=4, whole=whole, inner=2))
    length = 3 * stride + kernel
    inputs = rng.standard_normal((2, 5, length)).astype(np.float32) * 10.0 ** rng.uniform(-3, 3, length)
    inputs[0, :, :kernel] = 0  # a silent window must not divide by zero
    found, _ = run_layer(layout, weight, inputs.astype(np.float32), "Conv", {"strides": [stride]})
    windows = sliding_window_view(inputs.astype(np.float32), kernel, axis=2)[:, :, ::stride]
    heard = quantized(inputs.astype(np.float32))
    if whole:
        scale = np.abs(windows).max((1, 3), keepdims=True).clip(1e-30) / np.float32(127)
        heard = np.round(windows / scale.astype(np.float32)) * scale
    else:
        heard = sliding_window_view(heard, kernel, axis=2)[:, :, ::stride]
    close(found, np.einsum("bctk,ock->bot", heard, values_of(weight)))


@pytest.mark.parametrize("layout", [Memory(), Speed({})])
@pytest.mark.parametrize(("bits", "centred"), GRIDS)
def test_other_weights_are_computed_from_their_codes(layout, bits, centred, rng):
    padded = random_weight(rng, (6, 4, 5), bits, centred)
    inputs = rng.standard_normal((2, 4, 21)).astype(np.float32)
    found, model = run_layer(layout, padded, inputs, "Conv", {"pads": [2, 2]})
    values, heard = torch.from_numpy(values_of(padded)), torch.from_numpy(inputs.astype(np.float64))
    close(found, torch.nn.functional.conv1d(heard, values, padding=2).numpy(), 1e-5)
    assert stored_types(model) == {f"INT{padded.stored_bits}"}
    table = random_weight(rng, (9, 8), bits, centred)
    rows = rng.integers(0, 9, (3, 4))
    close(run_layer(layout, table, rows, "Gather")[0], values_of(table)[rows], 1e-6)


@pytest.mark.parametrize("layout", [Memory(), Memory().for_decoder(), Speed({})])
@pytest.mark.parametrize(("bits", "centred"), GRIDS)
def test_an_embedding_and_the_layer_tied_to_it_share_their_codes(layout, bits, centred, rng):
    weight = random_weight(rng, (30, 40), bits, centred)
    rows = rng.integers(0, 30, (2, 7))
    found, embedded, model = run_tied(layout, weight, rows)
    wanted = values_of(weight)[rows]
    close(embedded, wanted, 1e-6)
    eight_bit_inputs = isinstance(layout, Speed) or (layout._by_token and weight.stored_bits == 8)
    close(found, wanted @ values_of(weight).T, 0.03 if eight_bit_inputs else 1e-5)
    codes = [value.const_value for value in model.graph.initializers.values() if "weight" in value.name]
    assert (
        sum(tensor.nbytes for tensor in codes if tensor.dtype != ir.DataType.FLOAT) <= 30 * 64 * weight.stored_bits / 8
    )  # once, filled up to blocks


@pytest.mark.parametrize("scale", [0.02, None])
def test_inputs_are_quantized_for_speed_as_the_packed_model_does(scale, rng):
    weight = random_weight(rng, (24, 40), 4)
    inputs = rng.standard_normal((2, 7, 40)).astype(np.float32)
    inputs[0, 0] = 0  # a silent token must not divide by zero
    quantizer = ActivationQuantizer(None if scale is None else torch.tensor([scale]))
    with torch.no_grad():
        heard = quantizer(torch.from_numpy(inputs)).double().numpy()
        static = None if scale is None else np.float32(quantizer.log_scales.exp().item())
    found, model = run_layer(Speed({"layer": static}), weight, inputs, "MatMul")
    close(found, heard @ values_of(weight).T)
    assert "DynamicQuantizeLinear" not in {node.op_type for node in model.graph}


def test_a_weight_that_nothing_reads_is_left_out(rng):
    from mpq.deploy.graph import rewrite

    graph = ir.Graph([], [], nodes=[], name="empty")
    rewrite(graph, {"layer.weight": random_weight(rng, (6, 8), 4)}, {"other.weight": "layer.weight"}, Memory())
    assert not graph.initializers
