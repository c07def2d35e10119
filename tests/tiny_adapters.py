"""A folder as facebook's MMS has it: a wav2vec 2.0 of a few thousand weights with an adapter for each language."""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tiny_speech import ARCHITECTURE

# Heads of different sizes, and letters that differ at the same number.
VOCABULARIES = {
    language: {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *letters])}
    for language, letters in {"deu": "ASTEINRÜß", "eng": "ETAON", "tur": "AEİIRL"}.items()
}
BINARY = "tur"  # whose adapter is a file of torch, as older repositories have them


def adapters_folder(folder: Path, own: str | None = "eng") -> Path:
    """Write the model with the adapter of English in its weights; `own`: the language that its tokenizer names."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARIES, ensure_ascii=False), encoding="utf-8")
    about = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": "<pad>", "unk_token": "<unk>", "target_lang": own}
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in about.items() if v}))
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    settings = {**ARCHITECTURE, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "pad_token_id": 0}
    del settings["model_type"]
    for language, letters in VOCABULARIES.items():
        config = transformers.Wav2Vec2Config(**settings, adapter_attn_dim=3, vocab_size=len(letters))
        model = transformers.Wav2Vec2ForCTC(config)
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(torch.rand_like(tensor) * 0.3)
        if language == "eng":
            model.save_pretrained(folder)
        if language == BINARY:
            torch.save(model._get_adapters(), folder / f"adapter.{language}.bin")
        else:
            tensors = {name: tensor.detach().contiguous() for name, tensor in model._get_adapters().items()}
            save_file(tensors, folder / f"adapter.{language}.safetensors", metadata={"format": "pt"})
    return folder
