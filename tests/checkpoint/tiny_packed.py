"""Tiny CTC models with quantizers attached, and folders packed from them."""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from mpq.checkpoint import format
from mpq.checkpoint.tensors import digest
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import attach, find_sites

torch.set_num_threads(1)

# Model families and the bit-widths that each is tried with: together all of them.
FAMILIES = {
    "wav2vec2_group": (1, 2, 4),
    "wav2vec2_layer": (3, 5, 7),
    "hubert_group": (2, 6, 8),
    "hubert_layer": (2, 4, 8),
    "hubert_batch_norm": (1, 3),
}


def tiny_model(family: str, seed: int = 0) -> transformers.PreTrainedModel:
    """Return a model of some 25,000 random parameters; odd sizes, so that codes do not end on whole bytes."""
    torch.manual_seed(seed)
    layer = family.endswith("layer")
    sizes = {
        "vocab_size": 13,
        "hidden_size": 18,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 35,
        "conv_dim": (8, 9, 10) if layer else (8, 8, 10),
        "conv_kernel": (10, 3, 2),
        "conv_stride": (5, 2, 2),
        "num_conv_pos_embeddings": 5,
        "num_conv_pos_embedding_groups": 3,
        "feat_extract_norm": "layer" if layer else "group",
        "do_stable_layer_norm": layer,
        "conv_bias": layer,
    }
    if family.startswith("hubert"):
        model: transformers.PreTrainedModel = transformers.HubertForCTC(
            transformers.HubertConfig(**sizes, conv_pos_batch_norm=family.endswith("batch_norm"))
        )
    else:
        model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**sizes))
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():  # fresh numbers everywhere: zeros and ones would hide a mix-up
                tensor.add_(torch.rand_like(tensor) * 0.05)
    return model.eval()


def quantized(
    model: transformers.PreTrainedModel,
    candidates: tuple[int, ...] = (1, 2, 4),
    granularity: str = "per_tensor",
    centred: bool = True,
) -> transformers.PreTrainedModel:
    """Attach quantizers, in place, with the candidates in turn over the searched sites."""
    quantizers = attach(model, find_sites(model), candidates, QuantizerSettings(granularity, centred))
    for index, quantizer in enumerate(quantizers.values()):
        if quantizer.bits is None:
            quantizer.freeze(candidates[index % len(candidates)])
    return model


def uneven(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Make most weights small, in place, so that their codes are used unevenly and coding them makes a file smaller."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.abs().pow(3) * parameter.sign())
    return model


def logits(model: transformers.PreTrainedModel, seed: int = 1) -> torch.Tensor:
    """Return the logits for fixed random audio."""
    audio = torch.randn(2, 800, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(audio).logits


def state(model: transformers.PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the model's state, copied."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal_states(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Tell whether two states are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def edit_config(folder: Path, change, resign: bool = True) -> None:
    """Change config.json's parsed content in place and, as an attacker would, put both digests right again."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    if resign and isinstance(config.get("quantization_config"), dict):
        block = config["quantization_config"]
        if {"format_version", "sites", "tied"} <= block.keys():
            block["sha256"] = digest(block, load_file(folder / "model.safetensors"))
        block["config_sha256"] = format._digest(config)
    path.write_text(json.dumps(config))


def make_processor(folder: Path) -> transformers.Wav2Vec2Processor:
    """Return a processor with a vocabulary of 13 entries."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    return transformers.Wav2Vec2Processor(
        feature_extractor=transformers.Wav2Vec2FeatureExtractor(), tokenizer=tokenizer
    )
