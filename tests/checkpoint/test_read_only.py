"""Packed weights of a module, and of a model of transformers, can't be written to without a word."""

import copy

import pytest
import torch
from test_packed_weights import attend, packed_attention
from tiny_packed import logits
from transformers import AutoModelForCTC

from mpq.checkpoint.hf import MpqConfig
from mpq.checkpoint.packed import load_packed
from mpq.checkpoint.read_only import ReadOnly
from mpq.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")


def augmented(layer):
    layer.weight.data += 1


def replaced_data(layer):
    layer.weight.data = torch.zeros(6, 6)


def item(layer):
    layer.weight[0, 0] = 1


def replaced(layer):
    layer.weight = torch.zeros(6, 6)


WRITES = {
    "data +=": augmented,
    "data =": replaced_data,
    "[] =": item,
    "weight =": replaced,
    "add_": lambda layer: layer.weight.add_(1),
    "copy_": lambda layer: layer.weight.detach().copy_(torch.zeros(6, 6)),
    "a view": lambda layer: layer.weight.T[2:].unsqueeze(0).zero_(),
    "rows": lambda layer: layer.weight.unbind(0)[1].mul_(2),
    "init": lambda layer: torch.nn.init.zeros_(layer.weight),
    "out=": lambda layer: torch.add(torch.ones(6, 6), 1, out=layer.weight),
    "foreach": lambda layer: torch._foreach_add_([layer.weight], 1.0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_is_refused_and_changes_nothing(write):
    plain, packed = packed_attention()
    with torch.no_grad(), pytest.raises(UserError, match="packed in memory can't be changed"):
        write(packed.out_proj)
    inputs = torch.randn(5, 2, 6)
    assert torch.equal(attend(packed, inputs), attend(plain, inputs))


def test_what_is_computed_from_it_is_a_plain_tensor():
    weight = packed_attention()[1].out_proj.weight
    results = (weight + 1, weight.clone(), copy.deepcopy(weight * 1), weight.sum(), weight.half())
    assert isinstance(weight, ReadOnly) and {type(one) for one in results} == {torch.Tensor}
    weight.clone().add_(1)


def test_gradients_pass_through_it():
    plain, packed = packed_attention()
    inputs = torch.randn(3, 6)
    found = []
    for module in (plain, packed):
        leaf = inputs.clone().requires_grad_()
        module.out_proj(leaf).square().sum().backward()
        found.append(leaf.grad)
    assert torch.equal(*found)


@pytest.mark.parametrize("keep_packed", [False, True])
def test_the_number_of_parameters_is_the_models(packed, keep_packed):
    want = load_packed(packed)[0].num_parameters()
    model = AutoModelForCTC.from_pretrained(packed, quantization_config=MpqConfig(keep_packed=keep_packed))
    assert model.num_parameters() == copy.deepcopy(model).num_parameters() == want
    model.dequantize()
    assert AutoModelForCTC.from_config(model.config).num_parameters() == model.num_parameters()


@pytest.mark.parametrize("keep_packed", [False, True])
def test_an_adapter_is_saved_alone_and_merged_or_refused(packed, keep_packed, tmp_path):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    options = {"quantization_config": MpqConfig(keep_packed=keep_packed)}
    model = AutoModelForCTC.from_pretrained(packed, **options)
    model.add_adapter(lora)
    model.save_pretrained(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    with pytest.raises(UserError, match="merge or delete them"):
        model.dequantize()
    adapted = peft.get_peft_model(AutoModelForCTC.from_pretrained(packed, **options), lora).eval()
    want = logits(adapted)
    if keep_packed:
        with pytest.raises(UserError, match="packed in memory can't be changed"):
            adapted.merge_and_unload()
    else:
        torch.testing.assert_close(logits(adapted.merge_and_unload()), want, rtol=1e-4, atol=1e-5)


def test_training_asks_for_adapters_and_takes_them(packed):
    from transformers.trainer_utils import validate_quantization_for_training

    model = AutoModelForCTC.from_pretrained(packed)
    with pytest.raises(ValueError, match="attach trainable adapters"):
        validate_quantization_for_training(model)
    assert model.hf_quantizer.is_trainable
