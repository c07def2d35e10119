"""Folders as the Hub has them, at reduced width: what lies in facebook's repositories of fine-tuned models.

Their configurations have keys of older transformers, their weights are a `pytorch_model.bin` with the older names of
weight norm, some lack a tensor that transformers has today or have one that it has no more, and none has the files that
today's `save_pretrained` writes for a processor.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

_LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINHSRDLUMWCFGYPBVK'XJQZ"]
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_CONFIG = {
    "activation_dropout": 0.1,
    "apply_spec_augment": True,
    "attention_dropout": 0.1,
    "bos_token_id": 1,
    "conv_dim": [16] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "eos_token_id": 2,
    "feat_extract_activation": "gelu",
    "feat_proj_dropout": 0.1,
    "final_dropout": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "layerdrop": 0.1,
    "mask_time_length": 10,
    "mask_time_prob": 0.05,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "num_feat_extract_layers": 7,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "vocab_size": 32,
}
_BASE = {
    "architectures": ["Wav2Vec2ForCTC"],
    "conv_bias": False,
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
    "hidden_size": 48,
    "intermediate_size": 96,
    "model_type": "wav2vec2",
    "num_attention_heads": 12,
}
_LATER = {  # keys of the configurations from 2021 on
    "ctc_loss_reduction": "sum",
    "ctc_zero_infinity": False,
    "diversity_loss_weight": 0.1,
    "feat_extract_dropout": 0.0,
    "gradient_checkpointing": False,
    "hidden_dropout_prob": 0.1,
    "mask_feature_length": 10,
    "mask_feature_prob": 0.0,
}
_CONFIGS = {
    "wav2vec2-base-100h": {
        "freeze_feat_extract_train": True,
        "mask_channel_length": 10,
        "mask_channel_min_space": 1,
        "mask_channel_prob": 0.008,
        "mask_channel_selection": "static",
        "no_mask_channel_overlap": False,
        "no_mask_time_overlap": False,
        "transformers_version": "4.4.0.dev0",
    }
    | _BASE,
    "wav2vec2-base-960h": {
        "_name_or_path": "facebook/wav2vec2-base-960h",
        "codevector_dim": 256,
        "contrastive_logits_temperature": 0.1,
        "feat_quantizer_dropout": 0.0,
        "num_codevector_groups": 2,
        "num_codevectors_per_group": 320,
        "num_negatives": 100,
        "proj_codevector_dim": 256,
        "transformers_version": "4.7.0.dev0",
    }
    | _BASE
    | _LATER,
    "hubert-large-ls960-ft": {
        "_name_or_path": "facebook/hubert-large-ls960-ft",
        "architectures": ["HubertForCTC"],
        "conv_bias": True,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "hidden_size": 64,
        "intermediate_size": 128,
        "model_type": "hubert",
        "num_attention_heads": 16,
        "transformers_version": "4.10.0.dev0",
    }
    | _LATER,
}
_EXTRACTOR = {"do_normalize": True, "feature_size": 1, "padding_side": "right", "sampling_rate": 16000}
_TOKENIZER = {"do_lower_case": False, "return_attention_mask": False, "do_normalize": True}
_PROCESSORS: dict[str, dict[str, Any]] = {
    "wav2vec2-base-100h": {
        "preprocessor_config.json": _EXTRACTOR | {"padding_value": 0.0, "return_attention_mask": False},
        "tokenizer_config.json": _SPECIAL
        | _TOKENIZER
        | {
            "name_or_path": "./",
            "replace_word_delimiter_char": " ",
            "special_tokens_map_file": "./special_tokens_map.json",
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "word_delimiter_token": "|",
        },
    },
    "wav2vec2-base-960h": {
        "preprocessor_config.json": _EXTRACTOR | {"padding_value": 0.0, "return_attention_mask": False},
        "feature_extractor_config.json": _EXTRACTOR | {"padding_value": 0.0, "return_attention_mask": True},
        "tokenizer_config.json": _SPECIAL | _TOKENIZER,
    },
    "hubert-large-ls960-ft": {
        "preprocessor_config.json": _EXTRACTOR
        | {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "padding_value": 0, "return_attention_mask": True},
        "tokenizer_config.json": _SPECIAL | {"do_lower_case": False, "word_delimiter_token": "|"},
    },
}
NAMES = tuple(_CONFIGS)
_NO_MASK = "wav2vec2-base-960h"  # whose file lacks `masked_spec_embed`


def hub_folder(folder: Path, name: str, **sizes: Any) -> dict[str, Tensor]:
    """Write the folder `name` with random weights; return the model's tensors by their names in today's transformers.

    `sizes` are entries of the configuration to change.
    """
    config = _CONFIG | _CONFIGS[name] | sizes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(_LETTERS)}))
    (folder / "special_tokens_map.json").write_text(json.dumps(_SPECIAL))
    for file, content in _PROCESSORS[name].items():
        (folder / file).write_text(json.dumps(content))
    given = {key: value for key, value in config.items() if key not in ("architectures", "transformers_version")}
    made = transformers.AutoModelForCTC.from_config(transformers.AutoConfig.for_model(**given))
    tensors = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    stored = {_old(key): tensor for key, tensor in tensors.items()}
    if name == _NO_MASK:
        del stored["wav2vec2.masked_spec_embed"]
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        stored["quantizer.codevectors"] = torch.randn(1, 4, 2)  # left over from pre-training
    (folder / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    torch.save(stored, folder / "pytorch_model.bin")
    return tensors


def _old(name: str) -> str:
    """The name of a tensor before transformers 4.31."""
    norm = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in norm.items():
        name = name.replace(new, old)
    return name
