"""A processor's work: audio to inputs, text to labels in the vocabulary's spelling; and our own letters processor."""

import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import torch

from mpq.models.languages import keep_language

# The order of facebook/wav2vec2-base-960h: special tokens, then "|" between words, then letters by frequency.
_TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]


_WITH_LM = "Wav2Vec2ProcessorWithLM"


def letters_processor(rate: int = 16_000) -> Any:
    """Return a `Wav2Vec2Processor` over the 32 tokens of facebook/wav2vec2-base-960h for audio at `rate` Hz.

    It makes no attention mask: tiny models see zero-padded audio, as models with group norm do.
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


def load_processor(source: Path | str, **settings: Any) -> Any:
    """The processor of a folder or a Hub name, with the `settings` of `from_pretrained`.

    A processor with a language model (`Wav2Vec2ProcessorWithLM`) is loaded without it: everything here decodes
    greedily, and the language model's packages (pyctcdecode, kenlm) may be missing.
    """
    from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, Wav2Vec2Processor

    try:
        found = AutoProcessor.from_pretrained(source, **settings)
    except ImportError as error:
        if _WITH_LM not in str(error):
            raise
    else:
        if type(found).__name__ != _WITH_LM:
            return found
    parts = [kind.from_pretrained(source, **settings) for kind in (AutoFeatureExtractor, AutoTokenizer)]
    return Wav2Vec2Processor(*parts)


def save_processor(folder: Path, processor: Any) -> None:
    """Write the files of a processor, all that `load_processor` needs for the same one."""
    processor.save_pretrained(folder)
    keep_language(folder, getattr(processor, "tokenizer", None))
    # Whisper's fast tokenizer of transformers 5.23 reads this file but doesn't write it, and then can't normalize.
    words = getattr(getattr(processor, "tokenizer", None), "english_spelling_normalizer", None)
    if words is not None:
        text = json.dumps(words, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / "normalizer.json").write_text(f"{text}\n", encoding="utf-8")


def spelling(processor: Any, text: str) -> str:
    """Return `text` as the tokenizer's vocabulary spells it: the one rule for labels, references and hypotheses.

    Case: upper or lower if all letters of the vocabulary are; unchanged if the vocabulary has both cases. Distinct
    letters stay distinct: a vocabulary with the Turkish ı (or, in upper case, İ) uses the Turkish pairs i/İ and ı/I;
    with any other, ı is left unchanged, and so is a letter of the other case that the vocabulary contains, such as ß.
    Unicode: composed (NFC), unless fewer characters of the text itself, or of its decomposed form (NFD), are missing
    from the vocabulary. `spelling_rule` describes what applies to a vocabulary; records state it.
    """
    return _spelled(_letters(processor.tokenizer.get_vocab()), text)


def scored(vocabulary: Iterable[str], text: str) -> str:
    """Return `text` as references and hypotheses are stored and compared: as `spelling` returns it, with one change.

    The text of a lower-case vocabulary is converted to upper case, letter by letter, so that models of either case have
    the same references and can be compared. `vocabulary`: the model's tokens.
    """
    letters = _letters(vocabulary)
    text = _spelled(letters, text)
    if _cases(letters) != {"lower"}:
        return text
    if "ı" in letters:
        text = text.translate(str.maketrans({"i": "İ", "ı": "I"}))
    return "".join(up if (up := c.upper()).lower() == c else c for c in text)


def spelling_rule(vocabulary: Iterable[str]) -> str:
    """Return in words how `spelling` and `scored` bring texts to the model's tokens `vocabulary`, for records."""
    letters = _letters(vocabulary)
    cases = _cases(letters)
    case = {"upper": "upper case", "lower": "lower case, stored in upper case"}
    rule = case[cases.pop()] if len(cases) == 1 else "case as written"
    return f"{rule}; Turkish i/İ and ı/I" if rule != "case as written" and letters & {"ı", "İ"} else rule


def inputs(processor: Any, samples: np.ndarray) -> torch.Tensor:
    """Return a model's inputs `[time]` or `[time, features]` for one recording, `samples` at the processor's rate.

    For features, shorter audio than 50 ms is padded with zeros, since extractors fail on less than a window or two, and
    frames that the extractor itself masks (Parakeet's last) are left out.
    """
    extractor = processor.feature_extractor
    rate, features = extractor.sampling_rate, not takes_waveform(processor)
    if features and len(samples) < rate // 20:
        samples = np.pad(samples, (0, rate // 20 - len(samples)))
    found = extractor(samples, sampling_rate=rate, return_attention_mask=features)
    values = torch.as_tensor(found[extractor.model_input_names[0]][0])
    return values[: int(found["attention_mask"][0].sum())] if features else values


def takes_waveform(processor: Any) -> bool:
    """Return whether a model's inputs are the samples themselves rather than features."""
    return processor.feature_extractor.model_input_names[0] == "input_values"


def hop(processor: Any) -> int:
    """Return the samples from one of a model's inputs to the next: 1 for samples themselves."""
    if takes_waveform(processor):
        return 1
    rate = processor.feature_extractor.sampling_rate
    short, long = (len(inputs(processor, np.zeros(seconds * rate, dtype=np.float32))) for seconds in (1, 9))
    return round(8 * rate / (long - short))


def labels(processor: Any, text: str) -> torch.Tensor:
    """Return the tokens `[characters]` of `text`, spelled for the vocabulary; missing characters become unknown."""
    found = processor.tokenizer(spelling(processor, text), add_special_tokens=False)  # CTC has no token for the end
    return torch.as_tensor(found.input_ids, dtype=torch.long)


def decode(tokenizer: Any, characters: Any) -> str:
    """Return the text of the likeliest token per frame `[frames]`, as the processors' `batch_decode` does.

    Special tokens stay in the text of a vocabulary of letters, but not in that of pieces: there `</s>` ends sentences.
    """
    from transformers import Wav2Vec2CTCTokenizer

    return tokenizer.decode(characters, skip_special_tokens=not isinstance(tokenizer, Wav2Vec2CTCTokenizer))


_MARKED = re.compile(r"[<\[].+[>\]]")  # <pad>, [UNK]: tokens that are not text


def _letters(vocabulary: Iterable[str]) -> frozenset[str]:
    return frozenset("".join(token for token in vocabulary if not _MARKED.fullmatch(token)))


def _cases(letters: frozenset[str]) -> set[str]:
    """Return the cases of those letters that have both; ß does not count, since its upper case is two letters."""
    lower = any(c != c.upper() and len(c.upper()) == 1 for c in letters)
    upper = any(c != c.lower() and len(c.lower()) == 1 for c in letters)
    return {case for case, found in {"lower": lower, "upper": upper}.items() if found}


def _spelled(letters: frozenset[str], text: str) -> str:
    cases = _cases(letters)
    forms = (normalize("NFC", text), text, normalize("NFD", text))
    if cases == {"upper"}:
        spellings = [_upper(form, letters) for form in forms]
    elif cases == {"lower"}:
        spellings = [_lower(form, letters) for form in forms]
    else:  # unchanged, unless the vocabulary lacks some of it, such as a lower-case one with a stray capital letter
        spellings = [spelled for form in forms for spelled in (form, _upper(form, letters), _lower(form, letters))]
    return min(spellings, key=lambda spelled: sum(c not in letters for c in spelled if not c.isspace()))


def _upper(text: str, letters: frozenset[str]) -> str:
    pairs = {"i": "İ", "ı": "I"} if "İ" in letters else {"ı": "ı"}
    return "".join(c if c in letters else pairs.get(c) or c.upper() for c in text)


def _lower(text: str, letters: frozenset[str]) -> str:
    return text.translate(str.maketrans({"I": "ı", "İ": "i"}) if "ı" in letters else {}).lower()
