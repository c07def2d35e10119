"""What a processor does, audio to inputs and text to labels; and that of models trained here from scratch."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

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


def inputs(processor: Any, samples: np.ndarray) -> torch.Tensor:
    """A model's inputs `[time]` or `[time, features]` for one recording, `samples` `[time]` at the processor's rate."""
    extractor = processor.feature_extractor
    features = extractor(samples, sampling_rate=extractor.sampling_rate, return_attention_mask=False)
    return torch.as_tensor(features[extractor.model_input_names[0]][0])


def labels(processor: Any, text: str) -> torch.Tensor:
    """The tokens `[characters]` of `text` in the vocabulary's case; a character that it lacks is its unknown token."""
    return torch.as_tensor(processor.tokenizer(spelling(processor, text)).input_ids, dtype=torch.long)


def takes_waveform(processor: Any) -> bool:
    """Whether a model's inputs are the samples themselves, not features of them."""
    return processor.feature_extractor.model_input_names[0] == "input_values"
