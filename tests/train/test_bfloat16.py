"""Training in bfloat16 on a CPU."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from tiny_stage import CPU, load, module_of, optimization
from torch import nn

from mpq.checkpoint import packed
from mpq.search.gumbel import GumbelSearch
from mpq.train.fit import fit, strided_in_float32

BF16 = replace(CPU, precision="bf16-mixed", threads=1)


def test_a_strided_convolution_learns_from_nothing_but_its_input():
    torch.set_num_threads(1)
    convolution, inputs = nn.Conv1d(64, 96, 4, stride=2, bias=False), torch.randn(1, 64, 1273).bfloat16()
    weight, upstream = convolution.weight, torch.randn(1, 96, 635)
    (want,) = torch.autograd.grad(F.conv1d(inputs.float(), weight, stride=2), weight, upstream)
    with torch.autocast("cpu", torch.bfloat16):
        # No numbers are left in the memory that oneDNN keeps: its own gradient has NaN then, where there is AMX.
        torch.autograd.grad(F.conv1d(torch.full_like(inputs, torch.nan), weight, stride=2).sum(), weight)
        with strided_in_float32(convolution, wanted=True):
            (got,) = torch.autograd.grad(convolution(inputs), weight, upstream)
        assert convolution(inputs).dtype == torch.bfloat16  # as it was
    torch.testing.assert_close(got, want)


def test_only_what_is_trained_computes_in_float32(model_folder, speech_folder, tmp_path):
    teacher, dataset = load(model_folder, speech_folder)
    seen = {}
    for trained in (True, False):
        settings = optimization(updates=1, interval=1, train_feature_encoder=trained)
        module = module_of(teacher, dataset, settings, GumbelSearch())
        if trained:
            module.model.wav2vec2.feature_extractor.requires_grad_(True)
        convolution = module.model.wav2vec2.feature_extractor.conv_layers[1].conv
        convolution.register_forward_hook(lambda *call, trained=trained: seen.update({trained: call[-1].dtype}))
        fit(module, "tiny", settings, BF16, tmp_path / str(trained), logger=False)
    assert seen == {True: torch.float32, False: torch.bfloat16}


def test_the_packed_model_is_the_one_that_was_trained(model_folder, speech_folder, tmp_path):
    teacher, dataset = load(model_folder, speech_folder)
    settings = optimization()
    module = module_of(teacher, dataset, settings, GumbelSearch())
    fit(module, "tiny", settings, BF16, tmp_path / "work", logger=False)
    model, inputs = module.model.eval(), torch.randn(2, 16_000)
    assert not torch.equal(model.lm_head.bias, teacher.lm_head.bias)
    packed.save_model(tmp_path / "model", model, dataset.reader.processor)
    with torch.no_grad():
        assert torch.equal(packed.load_model(tmp_path / "model")[0](inputs).logits, model(inputs).logits)
