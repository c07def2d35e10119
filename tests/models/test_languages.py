"""Multilingual CTC models: loaded for a language as transformers loads them, and what is refused."""

import json
import shutil

import pytest
import torch
import transformers
from tiny_adapters import VOCABULARIES, adapters_folder

from mpq.errors import UserError
from mpq.models.hub import local_folder
from mpq.models.languages import left_behind
from mpq.models.loading import load, speech_model
from mpq.models.speech import Choices


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return adapters_folder(tmp_path_factory.mktemp("languages") / "mms")


def theirs(folder, language):
    """The model and its processor as transformers' documentation loads them."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    processor.tokenizer.set_target_lang(language)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(folder, target_lang=language).eval()
    return model, processor


@pytest.mark.parametrize("language", VOCABULARIES)
def test_a_model_of_a_language_is_what_transformers_makes_of_it(folder, language):
    model, processor = load(str(folder), language=language)
    want, other = theirs(folder, language)
    audio, tokens = torch.randn(2, 8_000), torch.randint(4, len(VOCABULARIES[language]), (30,))
    with torch.no_grad():
        assert torch.equal(model(audio).logits, want(audio).logits)
    assert model.config.vocab_size == len(processor.tokenizer) == len(VOCABULARIES[language])
    assert processor.tokenizer.decode(tokens) == other.tokenizer.decode(tokens)
    speech = speech_model(model, processor, Choices(language=language))
    text = "".join(VOCABULARIES[language])[-5:]
    assert [processor.tokenizer.decoder[int(token)] for token in speech.reader.labels(text)] == [*text]


@pytest.mark.parametrize("own", ["eng", None])
def test_a_language_must_be_chosen_among_several(tmp_path, own):
    folder = adapters_folder(tmp_path / "mms", own)
    for wrong in (None, "xyz"):
        with pytest.raises(UserError, match=rf"must be one of deu, eng, tur, but is {wrong}$"):
            load(str(folder), language=wrong)
    (folder / "adapter.deu.safetensors").unlink()
    with pytest.raises(UserError, match="must be one of eng, tur, but is deu"):
        load(str(folder), language="deu")


def test_a_folder_saved_for_one_language_needs_no_choice(folder, tmp_path):
    model, processor = theirs(folder, "deu")  # whose tokenizer's save_pretrained keeps all vocabularies
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for chosen in (None, "deu"):
        loaded, own = load(str(tmp_path), language=chosen)
        audio = torch.randn(1, 4_000)
        assert torch.equal(loaded(audio).logits, model(audio).logits)
        assert own.tokenizer.target_lang == "deu"
    with pytest.raises(UserError, match="must be one of deu, but is eng"):
        load(str(tmp_path), language="eng")
    with pytest.raises(UserError, match="for one language, deu, not for eng"):
        speech_model(loaded, own, Choices(language="eng"))


def test_many_languages_are_not_all_listed(tmp_path):
    folder = adapters_folder(tmp_path / "mms")
    many = {f"l{number:04}": VOCABULARIES["eng"] for number in range(1_100)}
    (folder / "vocab.json").write_text(json.dumps(many))
    for language in many:
        (folder / f"adapter.{language}.safetensors").touch()
    listed = r"one of l0000, l0001, .*, l0119, \.\.\. \(1100 in all, the keys of vocab\.json\), but is None"
    with pytest.raises(UserError, match=listed):
        load(str(folder))
    assert left_behind(str(folder), "l0003").endswith("adapter.l0008.safetensors and 1092 more.")


def test_in_the_hubs_cache_one_adapter_does_not_stand_for_another(folder, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--mms" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot, ignore=shutil.ignore_patterns("adapter.tur.bin"))
    (tmp_path / "models--some--mms" / "refs").mkdir()
    (tmp_path / "models--some--mms" / "refs" / "main").write_text("0" * 40)
    for module in ("huggingface_hub.constants", "huggingface_hub._snapshot_download.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path))
    assert local_folder("some/mms") == snapshot
    audio = torch.randn(1, 4_000)
    assert torch.equal(load("some/mms", language="deu")[0](audio).logits, theirs(folder, "deu")[0](audio).logits)
    mend = r"no adapter\.tur\.safetensors.*: run `hf download some/mms adapter\.tur\.safetensors`"
    with pytest.raises(UserError, match=mend):
        load("some/mms", language="tur")
    with pytest.raises(UserError, match="must be one of deu, eng, tur, but is None"):
        load("some/mms")
    want = "adapter.eng.safetensors, adapter.tur.safetensors."
    assert left_behind("some/mms", "deu").endswith(want)
