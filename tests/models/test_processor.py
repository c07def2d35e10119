import json
from string import ascii_letters, ascii_lowercase, ascii_uppercase
from types import SimpleNamespace
from unicodedata import normalize

import numpy as np
import pytest
from tiny_models import lower_case_processor

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.data.synthetic import grammar
from mpq.models.processor import letters_processor, scored, spelling, spelling_rule


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


SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "|"]
TURKISH = "abcçdefgğhıijklmnoöprsştuüvyz"


def spelled(tokens, text):
    """What `spelling` makes of `text` for a vocabulary of these tokens, and what `scored` makes of it."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *tokens])}
    tokenizer = SimpleNamespace(get_vocab=lambda: vocabulary)
    return spelling(SimpleNamespace(tokenizer=tokenizer), text), scored(vocabulary, text)


@pytest.mark.parametrize(
    ("tokens", "text", "label", "compared"),
    [
        (ascii_uppercase, "Ann met Bob", "ANN MET BOB", "ANN MET BOB"),
        (ascii_lowercase, "Ann met Bob", "ann met bob", "ANN MET BOB"),
        (ascii_letters, "Ann met Bob", "Ann met Bob", "Ann met Bob"),
        (ascii_letters, "ANN", "ANN", "ANN"),
        ([*ascii_lowercase, "M"], "Ann Met", "ann met", "ann met"),  # a stray letter makes no second case
        (["▁an", "▁", *ascii_lowercase], "Ann", "ann", "ANN"),
        (["▁An", "▁", *ascii_letters], "Ann", "Ann", "Ann"),
        (TURKISH, "KAPI İYİ", "kapı iyi", "KAPI İYİ"),
        (TURKISH, "kapı iyi", "kapı iyi", "KAPI İYİ"),
        ("ABCDEFGHIİKPRY", "kapı iyi", "KAPI İYİ", "KAPI İYİ"),
        (ascii_uppercase, "ı i", "ı I", "ı I"),
        ([*ascii_uppercase, "ß"], "Maß", "MAß", "MAß"),
        ([*ascii_lowercase, "ß"], "Maß Mass", "maß mass", "MAß MASS"),
        (ascii_uppercase, "Maß", "MASS", "MASS"),
        ("αβγδεσς", "ΓΑΣ", "γας", "ΓΑς"),
        ("ΑΒΓΔΕΣ", "γας", "ΓΑΣ", "ΓΑΣ"),
        ("你好", "你好 Ab", "你好 Ab", "你好 Ab"),
    ],
)
def test_the_case_of_a_text_is_the_vocabularys(tokens, text, label, compared):
    assert spelled(tokens, text) == (label, compared)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_unicode_form_of_a_text_is_the_vocabularys(form):
    text = "Café Señor Müde"
    composed = [*ascii_uppercase, *"ÉÑÜ"]
    assert spelled(composed, normalize(form, text)) == ("CAFÉ SEÑOR MÜDE",) * 2
    apart = [*ascii_uppercase, "\u0301", "\u0303", "\u0308"]
    assert spelled(apart, normalize(form, text)) == (normalize("NFD", "CAFÉ SEÑOR MÜDE"),) * 2
    assert spelled(ascii_uppercase, normalize(form, text)) == ("CAFÉ SEÑOR MÜDE",) * 2  # letters that it lacks


def test_what_is_compared_does_not_depend_on_the_spelling_of_a_text():
    for tokens in (ascii_uppercase, ascii_lowercase, TURKISH, [*ascii_lowercase, "ß"]):
        for text in ("Don't stop", "ılık maß", "KAPI"):
            label, compared = spelled(tokens, text)
            assert spelled(tokens, label) == (label, compared)


@pytest.mark.parametrize("case", ["lower", "upper", "both"])
def test_no_two_letters_of_a_vocabulary_become_one(case):
    every = [chr(k) for k in range(0x3000) if chr(k).isalpha() and normalize("NFC", chr(k)) == chr(k)]
    kinds = {
        "lower": [c for c in every if c == c.lower() and not c.istitle()],
        "upper": [c for c in every if c == c.upper() and not c.istitle()],
        "both": every,
    }
    rng = np.random.default_rng()
    for _ in range(20):
        letters = [str(c) for c in rng.choice(kinds[case], 60, replace=False)]
        letters += [c for c in "iıİIſsςσµμ" if c in kinds[case] and c not in letters]
        compared = {letter: spelled(letters, letter)[1] for letter in letters}
        assert len(set(compared.values())) == len(set(letters)), compared


@pytest.mark.parametrize(
    ("tokens", "rule"),
    [
        (ascii_uppercase, "upper case"),
        (ascii_lowercase, "lower case, stored in upper case"),
        (TURKISH, "lower case, stored in upper case; Turkish i/İ and ı/I"),
        (ascii_letters, "case as written"),
        ("你好", "case as written"),
    ],
)
def test_the_rule_in_words(tokens, rule):
    assert spelling_rule([*SPECIAL, *tokens]) == rule
