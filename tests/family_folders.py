"""Folders of every CTC family as transformers saves them: a tiny model with a processor of its kind."""

import json
from pathlib import Path
from typing import Any

import transformers
from tiny_families import FAMILIES, tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
PIECES = {  # model type -> its vocabulary: one letter a piece, the blank where the family has it
    "parakeet_ctc": ["<unk>", "▁", *LETTERS, "<pad>"],
    "lasr_ctc": ["<pad>", "</s>", "<unk>", "▁", *LETTERS],
    "granite_speech5_ctc": ["<pad>", "<unk>", "▁", *LETTERS],
}
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]


def family_folder(folder: Path, family: str) -> Path:
    """Write the model and its processor to `folder`; return it."""
    model_type, arguments = FAMILIES[family]
    vocabulary = PIECES.get(model_type, TOKENS)
    settings = {"vocab_size": len(vocabulary), "pad_token_id": vocabulary.index("<pad>")}
    if model_type.startswith("granite"):  # whose encoder has a head of its own
        settings["encoder_config"] = arguments["encoder_config"] | {"vocab_size": len(vocabulary)}
    model = tiny_model(model_type, arguments | settings)
    model.save_pretrained(folder)
    _processor(folder, model_type, model.config).save_pretrained(folder)
    return folder


def _processor(folder: Path, model_type: str, config: Any) -> Any:
    if model_type == "parakeet_ctc":
        extractor = transformers.ParakeetFeatureExtractor(feature_size=config.encoder_config.num_mel_bins)
        return transformers.ParakeetProcessor(extractor, _pieces(PIECES[model_type]))
    if model_type == "granite_speech5_ctc":
        extractor = transformers.GraniteSpeech5FeatureExtractor(num_mel_bins=config.encoder_config.num_mel_bins)
        return transformers.GraniteSpeech5Processor(extractor, _pieces(PIECES[model_type]))
    if model_type == "lasr_ctc":
        extractor = transformers.LasrFeatureExtractor(feature_size=config.encoder_config.num_mel_bins)
        vocabulary = [(piece, -1.0 if len(piece) == 1 else 0.0) for piece in PIECES[model_type]]
        return transformers.LasrProcessor(extractor, transformers.LasrTokenizer(vocab=vocabulary, extra_ids=0))
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(TOKENS)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), word_delimiter_token="|")
    if model_type == "wav2vec2-bert":
        bins = config.feature_projection_input_dim // 2
        extractor = transformers.SeamlessM4TFeatureExtractor(feature_size=bins, num_mel_bins=bins, stride=2)
        return transformers.Wav2Vec2BertProcessor(extractor, tokenizer)
    masked = getattr(config, "feat_extract_norm", "layer") == "layer"
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masked)
    return transformers.Wav2Vec2Processor(extractor, tokenizer)


def _pieces(vocabulary: list[str]) -> transformers.ParakeetTokenizer:
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    pieces = Tokenizer(models.BPE(vocab=numbers, merges=[], unk_token="<unk>"))
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return transformers.ParakeetTokenizer(tokenizer_object=pieces, pad_token="<pad>", unk_token="<unk>")
