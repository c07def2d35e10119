import copy
import json

import pytest
import torch
from tiny_packed import FAMILIES, equal_states, logits, make_processor, quantized, state, tiny_model
from torch.nn.utils import parametrize

from mpq.checkpoint.packed import load_packed, save_packed
from mpq.errors import UserError
from mpq.quant.sites import attach, detach, find_sites


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_gives_the_fake_quantized_logits_exactly(family, granularity, tmp_path):
    model = quantized(tiny_model(family), FAMILIES[family], granularity, centred=granularity == "per_tensor")
    save_packed(tmp_path / "packed", model)
    loaded, processor = load_packed(tmp_path / "packed")
    assert processor is None and not loaded.training and type(loaded) is type(model)
    assert not any(parametrize.is_parametrized(module) for module in loaded.modules())
    assert torch.equal(logits(loaded), logits(model))
    detach(model)
    assert equal_states(state(loaded), state(model))


def test_scales_that_training_moved_are_the_ones_stored(tmp_path):
    model = quantized(tiny_model("hubert_layer"), granularity="per_channel")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("log_scales"):
                parameter.add_(torch.randn_like(parameter))
    save_packed(tmp_path / "packed", model)
    assert torch.equal(logits(load_packed(tmp_path / "packed")[0]), logits(model))


def test_tied_parameters_stay_tied_and_are_stored_once(tmp_path):
    model = tiny_model("wav2vec2_group")
    layers = model.wav2vec2.encoder.layers
    layers[1].attention.q_proj.weight = layers[0].attention.q_proj.weight
    layers[1].attention.q_proj.bias = layers[0].attention.q_proj.bias
    quantized(model)
    save_packed(tmp_path / "packed", model)
    loaded, _ = load_packed(tmp_path / "packed")
    assert torch.equal(logits(loaded), logits(model))
    first, second = (layer.attention.q_proj for layer in loaded.wav2vec2.encoder.layers)
    assert first.weight is second.weight and first.bias is second.bias
    block = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization_config"]
    prefix = "wav2vec2.encoder.layers"
    assert block["tied"] == {
        f"{prefix}.1.attention.q_proj.{leaf}": f"{prefix}.0.attention.q_proj.{leaf}" for leaf in ("weight", "bias")
    }


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        save_packed(tmp_path / folder, quantized(tiny_model("hubert_group")))
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_packing_leaves_the_model_as_it_was(tmp_path):
    model = quantized(tiny_model("wav2vec2_layer"))
    before = state(copy.deepcopy(model))
    save_packed(tmp_path / "packed", model)
    assert equal_states(before, state(model))


def test_half_precision_leftovers_are_stored_in_float32(tmp_path):
    model = quantized(tiny_model("wav2vec2_group"))
    model.lm_head.bias.data = model.lm_head.bias.data.half()
    save_packed(tmp_path / "packed", model)
    loaded, _ = load_packed(tmp_path / "packed")
    assert torch.equal(loaded.lm_head.bias, model.lm_head.bias.float())


def test_the_processor_comes_back(tmp_path):
    processor = make_processor(tmp_path)
    save_packed(tmp_path / "packed", quantized(tiny_model("wav2vec2_group")), processor)
    loaded = load_packed(tmp_path / "packed")[1]
    ids = torch.randint(0, 13, (3, 40), generator=torch.Generator().manual_seed(0))
    assert loaded.batch_decode(ids) == processor.batch_decode(ids)
    audio = torch.randn(400).numpy()
    assert torch.equal(*(torch.tensor(p(audio, sampling_rate=16000).input_values[0]) for p in (processor, loaded)))


def test_a_failed_save_leaves_the_old_folder(packed):
    class Breaks:
        def save_pretrained(self, folder):
            (folder / "half.json").write_text("{")
            raise KeyboardInterrupt

    before = {file.name: file.read_bytes() for file in packed.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        save_packed(packed, quantized(tiny_model("hubert_group")), Breaks())
    assert {file.name: file.read_bytes() for file in packed.iterdir()} == before
    assert [path.name for path in packed.parent.iterdir()] == ["packed"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path, packed):
    model = quantized(tiny_model("hubert_group"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(UserError, match="exists and is not a packed model"):
        save_packed(tmp_path / "thesis", model)
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    save_packed(packed, model)  # a packed one is
    assert torch.equal(logits(load_packed(packed)[0]), logits(model))


def test_what_cannot_be_packed_is_refused(tmp_path):
    plain = tiny_model("wav2vec2_group")
    with pytest.raises(UserError, match="quantizers attached"):
        save_packed(tmp_path / "packed", plain)
    quantizers = attach(plain, find_sites(plain), (2, 4))
    with pytest.raises(UserError, match=r"no chosen precision.*\[2, 4\]"):
        save_packed(tmp_path / "packed", plain)
    for quantizer in quantizers.values():
        if quantizer.bits is None:
            quantizer.freeze(4)
    with torch.no_grad():
        quantizer.log_scales.fill_(float("nan"))
    with pytest.raises(UserError, match="positive and finite"):
        save_packed(tmp_path / "packed", plain)
    assert not list(tmp_path.iterdir())
