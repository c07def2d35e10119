"""Folders of tiny CTC models, as save_pretrained leaves them."""

import json
from pathlib import Path

import torch
import transformers

from mpq.models.processor import letters_processor

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 12),
    "conv_kernel": (10, 4),
    "conv_stride": (10, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}


def random_model(model_type: str = "wav2vec2", vocabulary: int = 32, **settings):
    """A model of random weights, in eval mode."""
    config = transformers.AutoConfig.for_model(
        model_type, **{**SIZES, **settings}, vocab_size=vocabulary, pad_token_id=0
    )
    model = transformers.AutoModelForCTC.from_config(config).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)  # so that the likeliest character changes from frame to frame
    return model


def saved(folder: Path, model, processor=None) -> Path:
    """Write a model, and its processor unless that is False."""
    model.save_pretrained(folder)
    if processor is not False:
        (processor or letters_processor()).save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes) -> None:
    """Change entries of a saved model's config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def lower_case_processor(folder: Path):
    """A processor whose vocabulary is written in lower case."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    path = folder / "vocab.json"
    path.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    upper = letters_processor()
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(path), word_delimiter_token="|")
    return transformers.Wav2Vec2Processor(feature_extractor=upper.feature_extractor, tokenizer=tokenizer)
