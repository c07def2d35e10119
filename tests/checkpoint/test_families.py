"""The whole way of a compressed model, for every family: quantized, every site alive, packed, read back."""

import pytest
import torch
from tiny_families import FAMILIES, auto_class, logits, quantized, random_inputs, tiny_family

from mpq.checkpoint.hf import MpqConfig
from mpq.checkpoint.packed import load_packed, save_packed

# Sites that cannot change the output, and why. They are stored all the same, at the fixed 8 bits: a reader of the
# family's files expects them, and only running a model could tell that it has them for nothing.
IDLE = {
    # transformers builds the convolution for checkpoints that have it, but the conformer takes positions elsewhere.
    family: {"wav2vec2_conformer.encoder.pos_conv_embed.conv.weight"}
    for family in ("conformer_relative", "conformer_rotary")
}


@pytest.fixture(autouse=True)
def fresh_randomness():
    """New random inputs at each run; a failing test shows the seed that repeats it."""
    print("torch.manual_seed:", torch.seed())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_reaches_the_output_and_the_file_gives_the_same_logits(family, tmp_path):
    model = tiny_family(family)
    quantizers = quantized(model)
    inputs = random_inputs(model)
    want = logits(model, inputs)
    assert want.isfinite().all() and want.std() > 0.1
    idle = {name for name in quantizers if torch.equal(logits_with_negated(model, name, inputs), want)}
    assert idle == IDLE.get(family, set())

    save_packed(tmp_path / "packed", model)
    loaded, _ = load_packed(tmp_path / "packed")
    assert torch.equal(logits(loaded, inputs), want)


def logits_with_negated(model, name, inputs):
    """The logits with the weight `name` negated; it is put back afterwards."""
    path, leaf = name.rsplit(".", 1)
    weight = model.get_submodule(path).parametrizations[leaf].original
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.neg_()  # zeros would do, but at 1 bit they are the positive level, which all weights may have
        changed = logits(model, inputs)
        weight.copy_(kept)
    return changed


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize("family", FAMILIES)
def test_from_pretrained_gives_the_same_logits_and_save_pretrained_the_same_bytes(family, tmp_path):
    model = tiny_family(family)
    quantized(model)
    inputs = random_inputs(model)
    want = logits(model, inputs)
    save_packed(tmp_path / "packed", model)
    for keep_packed in (False, True):
        loaded, report = auto_class(model.config).from_pretrained(
            tmp_path / "packed", quantization_config=MpqConfig(keep_packed=keep_packed), output_loading_info=True
        )
        assert torch.equal(logits(loaded, inputs), want)
        assert not any(report.values())  # no key missing, unexpected or of another shape
        loaded.save_pretrained(tmp_path / "saved")
        assert contents(tmp_path / "saved") == contents(tmp_path / "packed")


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}
