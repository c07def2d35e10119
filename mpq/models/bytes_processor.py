"""A Whisper processor over bytes, for models with random weights: no vocabulary has to be downloaded."""

from typing import Any

_TOKENS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|transcribe|>",
    "<|translate|>",
    "<|notimestamps|>",
)


def bytes_processor(mel_bins: int = 80) -> Any:
    """Return a `WhisperProcessor` whose tokens are the 256 bytes and the special tokens of an English model."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {character: number for number, character in enumerate(bytes_to_unicode().values())}
    vocabulary |= {token: len(vocabulary) + number for number, token in enumerate(_TOKENS)}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(_TOKENS[1:])})
    tokenizer.english_spelling_normalizer = {}
    extractor = WhisperFeatureExtractor(feature_size=mel_bins)
    return WhisperProcessor(feature_extractor=extractor, tokenizer=tokenizer)
