import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import lower_case_processor

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.data.synthetic import grammar
from mpq.models.processor import letters_processor, spelling


def test_text_comes_back():
    processor = letters_processor()
    rng = np.random.default_rng()
    for text in [grammar.sentence(rng) for _ in range(50)] + ["DON'T", "A", "AABB CCC"]:
        labels = processor.tokenizer(text).input_ids
        assert processor.tokenizer.decode(labels, group_tokens=False) == text
        assert processor.tokenizer.unk_token_id not in labels
        blank = processor.tokenizer.pad_token_id
        with_blanks = [token for label in labels for token in (label, label, blank)]
        assert processor.tokenizer.decode(with_blanks) == text  # as a model's frames say it


def test_the_vocabulary_is_the_published_models():
    vocabulary = letters_processor().tokenizer.get_vocab()
    assert len(vocabulary) == 32
    assert [vocabulary[token] for token in ("<pad>", "<s>", "</s>", "<unk>", "|", "E", "Z")] == [0, 1, 2, 3, 4, 5, 31]


def test_it_survives_a_folder(tmp_path):
    from transformers import AutoProcessor

    processor = letters_processor(8_000)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    extractor = again.feature_extractor
    assert (extractor.sampling_rate, extractor.return_attention_mask, extractor.do_normalize) == (8_000, False, True)


@pytest.mark.parametrize("text", ["Don't stop", "DON'T STOP", "don't stop"])
def test_spelling_follows_the_vocabulary(tmp_path, text):
    assert spelling(letters_processor(), text) == "DON'T STOP"
    assert spelling(lower_case_processor(tmp_path), text) == "don't stop"


def test_spelling_of_other_alphabets(tmp_path):
    from transformers import Wav2Vec2CTCTokenizer

    path = tmp_path / "vocab.json"
    tokens = ["<pad>", "<unk>", "|", *"АБВГДЕЖЗ"]
    path.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    assert spelling(SimpleNamespace(tokenizer=Wav2Vec2CTCTokenizer(str(path))), "где") == "ГДЕ"
