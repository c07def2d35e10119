"""The processor of models trained here from scratch: letters out, raw audio in."""

import json
import tempfile
from pathlib import Path
from typing import Any

# The order of facebook/wav2vec2-base-960h: special tokens, then "|" between words, then letters by frequency.
_TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]


def letters_processor(rate: int = 16_000) -> Any:
    """A `Wav2Vec2Processor` over the 32 tokens of facebook/wav2vec2-base-960h for audio of `rate` Hz.

    No attention mask is made: tiny models see zero-padded audio, as models with group norm do.
    """
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.json"
        vocabulary.write_text(json.dumps({token: index for index, token in enumerate(_TOKENS)}), encoding="utf-8")
        tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), word_delimiter_token="|", do_lower_case=False)
    extractor = Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=rate, padding_value=0.0, do_normalize=True, return_attention_mask=False
    )
    return Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)


def spelling(processor: Any, text: str) -> str:
    """`text` in the case that the tokenizer's vocabulary is written in: upper, lower or as it is."""
    vocabulary = processor.tokenizer.get_vocab()
    spellings = (text.upper(), text.lower(), text)  # max takes the first of equals
    return max(spellings, key=lambda spelled: sum(character in vocabulary for character in spelled))
