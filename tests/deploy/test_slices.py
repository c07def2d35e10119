"""Convolutions in slices, and the norm computed ahead of them, against PyTorch in float64."""

import copy

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from mpq.deploy import graph
from mpq.deploy.first_convolution import norm_ahead
from mpq.deploy.slices import Slicing, features_of, in_slices, in_two_sizes
from mpq.models.ctc import CtcModel
from mpq.models.processor import letters_processor

STEPS = [(10, 5), (3, 2), (2, 2)]


class Encoder(nn.Module):
    """Three convolutions over time under the name that transformers gives them, and logits of their features."""

    def __init__(self, norm, bias):
        super().__init__()
        layers, channels = [], 1
        for kernel, stride in STEPS:
            layers.append(nn.Conv1d(channels, 6, kernel, stride, bias=bias))
            if norm == "group" and channels == 1:
                layers.append(nn.GroupNorm(6, 6))
            layers.append(nn.GELU())
            channels = 6
        self.feature_extractor = nn.Sequential(*layers)
        self.head = nn.Linear(6, 4)

    def forward(self, input_values):
        return self.head(self.feature_extractor(input_values[:, None]).transpose(1, 2))


def random_encoder(norm="group", bias=False):
    model = Encoder(norm, bias).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def program(model):
    return graph.float_graph(CtcModel(model, letters_processor(1_000)), opset=25)


def run(traced, audio):
    graph.finish(traced, {"input_values": ["batch", "samples"]}, {"logits": ["batch", "frames", 4]})
    traced.ir_version = 13
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ir.to_proto(traced).SerializeToString(), options)
    return session.run(None, {"input_values": audio})[0]


def in_float64(model, audio):
    with torch.no_grad():
        return copy.deepcopy(model).double()(torch.from_numpy(audio).double()).numpy()


def slice_up(traced, frames, whole=0, inner=2):
    values = features_of(traced.graph)
    in_slices(traced.graph, Slicing(STEPS, frames, whole, inner), values[-1 - whole], values[-1])


def innermost(graph):
    """The graph of the loop in the loop in `graph`, as deep as they go."""
    inner = [node.attributes["body"].as_graph() for node in graph if node.op_type == "Loop"]
    return innermost(inner[0]) if inner else graph


def operators(traced):
    return [node.op_type for node in traced.graph]


@pytest.mark.parametrize("norm", ["group", "none"])
@pytest.mark.parametrize("bias", [False, True])
def test_slices_give_what_the_whole_gives(norm, bias, rng):
    model, frames = random_encoder(norm, bias), int(rng.integers(1, 9))
    traced = program(model)
    slice_up(traced, frames, whole := int(rng.integers(0, 3)), inner=int(rng.integers(1, 9)))
    assert [node.op_type for node in innermost(traced.graph)].count("Gelu") == len(STEPS) - whole
    assert operators(traced).count("Loop") == 1
    for samples in [*rng.integers(30, 2_000, 4), 30, 30 + 20 * frames - 1, 30 + 20 * frames]:
        audio = rng.standard_normal((3, samples)).astype(np.float32)
        found, wanted = run(traced, audio), in_float64(model, audio)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_a_slice_has_the_windows_that_its_convolutions_have(whole):
    slicing = Slicing(STEPS, frames=6, whole=whole, inner=5)
    late = len(STEPS) - whole
    wanted = [slicing.windows(position) for position in range(len(STEPS))]
    for first, end in ((0, late), (late, len(STEPS))):
        for position in range(first + 1, end):
            kernel, stride = STEPS[position]
            assert (wanted[position - 1] - kernel) // stride + 1 == wanted[position]
    assert wanted[-1] == 6
    assert wanted[late - 1] == (5 if whole else 6)


def test_slices_of_wav2vec2_fill_rows_of_sixteen_and_leave_nothing_over():
    steps = [(10, 5), *[(3, 2)] * 4, (2, 2), (2, 2)]
    slicing = in_two_sizes(steps, steps[4:], most=32)
    assert [slicing.windows(position) for position in range(7)] == [127, 63, 31, 15, 112, 56, 28]
    read = (112 - 1) * 2 + 3  # by the first of the last ones
    assert read == 15 * slicing.inner


def test_a_recording_in_slices_does_not_depend_on_its_neighbours(rng):
    traced = program(random_encoder())
    slice_up(traced, 4)
    audio = rng.standard_normal((2, 700)).astype(np.float32) * np.float32([[1], [30]])
    both = run(traced, audio)
    assert np.array_equal(both[:1], run(traced, audio[:1]))


@pytest.mark.parametrize("bias", [False, True])
def test_the_norm_is_taken_out_of_the_audio_alone(bias, rng):
    model = random_encoder("group", bias)
    traced = program(model)
    assert "InstanceNormalization" in operators(traced)
    assert len(norm_ahead(traced.graph, traced.graph.inputs[0])) == 1
    assert "InstanceNormalization" not in operators(traced)
    # a low tone that the filters hear as nearly nothing: little that remains of large numbers
    tone = np.sin(np.arange(900) / 200) * 50 + rng.standard_normal(900) * 1e-3
    audio = np.stack([tone, rng.standard_normal(900)]).astype(np.float32)
    np.testing.assert_allclose(run(traced, audio), in_float64(model, audio), atol=2e-4)


def test_another_norm_over_time_leaves_the_graph_whole(rng):
    model = random_encoder("group")
    model.feature_extractor[1] = nn.GroupNorm(2, 6)
    traced = program(model)
    slice_up(traced, 4)
    assert "Loop" not in operators(traced)
    audio = rng.standard_normal((2, 500)).astype(np.float32)
    np.testing.assert_allclose(run(traced, audio), in_float64(model, audio), atol=2e-5)
