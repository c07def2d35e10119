"""The whole way of a compressed model, for every family: quantized, every site alive, packed, read back."""

import pytest
import torch
from tiny_families import FAMILIES, logits, quantized, random_input, tiny_family

from mpq.checkpoint.packed import load_packed, save_packed

# Sites that cannot change the output, and why. They are stored all the same, at the fixed 8 bits: a reader of the
# family's files expects them, and only running a model could tell that it has them for nothing.
IDLE = {
    # transformers builds the convolution for checkpoints that have it, but the conformer takes positions elsewhere.
    family: {"wav2vec2_conformer.encoder.pos_conv_embed.conv.weight"}
    for family in ("conformer_relative", "conformer_rotary")
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_reaches_the_output_and_the_file_gives_the_same_logits(family, tmp_path):
    model = tiny_family(family)
    quantizers = quantized(model)
    inputs = random_input(model)
    want = logits(model, inputs)
    assert want.isfinite().all() and want.std() > 0.1
    idle = {name for name in quantizers if torch.equal(logits_without(model, name, inputs), want)}
    assert idle == IDLE.get(family, set())

    save_packed(tmp_path / "packed", model)
    loaded, _ = load_packed(tmp_path / "packed")
    assert torch.equal(logits(loaded, inputs), want)


def logits_without(model, name, inputs):
    """The logits with the weight `name` set to zero; it is put back afterwards."""
    path, leaf = name.rsplit(".", 1)
    weight = model.get_submodule(path).parametrizations[leaf].original
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()  # centred grids have no zero, so this is the smallest level there, not the weight's own
        changed = logits(model, inputs)
        weight.copy_(kept)
    return changed
