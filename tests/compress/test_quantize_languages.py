"""A multilingual CTC folder through scripts/quantize.py for one of its languages, and how the packed one loads."""

import json
import runpy
import sys

import numpy as np
import pytest
import soundfile
import torch
import transformers
from tiny_adapters import VOCABULARIES, adapters_folder

import mpq
from mpq.checkpoint.packed import load_packed
from mpq.compress.quantize_now import quantize_now
from mpq.compress.rebudget import rebudget
from mpq.conf import REPOSITORY
from mpq.errors import UserError
from mpq.models.languages import tell_left_behind

FEW = {"trainer.updates": 2, "trainer.interval": 2, "trainer.audio_seconds": 3.0, "trainer.accelerator": "cpu"}
LEFT = "The model is for one language, deu. Adapter files left behind: adapter.eng.safetensors, adapter.tur.bin."

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return adapters_folder(tmp_path_factory.mktemp("languages") / "mms")


def run_script(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    try:
        runpy.run_path(str(REPOSITORY / "scripts" / f"{name}.py"), run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_a_folder_packed_for_a_language_is_of_that_language_alone(folder, here, monkeypatch, capsys, caplog):
    tell_left_behind.cache_clear()
    assert run_script(monkeypatch, "quantize", f"model={folder}", "bits=8", "language=deu", "output=small") == 0
    assert [record.message for record in caplog.records].count(LEFT) == 1
    assert LEFT in (here / "small" / "README.md").read_text()
    assert json.loads((here / "small" / "vocab.json").read_text()) == {"deu": VOCABULARIES["deu"]}
    packed, processor = load_packed(here / "small")
    want = transformers.Wav2Vec2ForCTC.from_pretrained(folder, target_lang="deu").eval()
    audio = torch.randn(2, 8_000)
    with torch.no_grad():
        errors = [packed(audio).logits - want(audio).logits, want(audio).logits]
        assert errors[0].std() < 0.05 * errors[1].std()  # 8 bits change next to nothing; another adapter, all
        for given in ({}, {"target_lang": "deu"}):
            for packing in ({}, {"quantization_config": mpq.MpqConfig(keep_packed=True)}):
                loaded = transformers.AutoModelForCTC.from_pretrained("small", **given, **packing)
                assert torch.equal(loaded(audio).logits, packed(audio).logits)
    with pytest.raises(UserError, match="packed for the language deu alone: target_lang='eng' needs the model"):
        transformers.AutoModelForCTC.from_pretrained("small", target_lang="eng")
    loaded.save_pretrained("again")
    processor.save_pretrained("again")
    assert json.loads((here / "again" / "config.json").read_text())["quantization_config"]["language"] == "deu"
    samples = 0.1 * np.random.default_rng().standard_normal(8_000).astype(np.float32)
    soundfile.write("a.wav", samples, 16_000, subtype="FLOAT")
    capsys.readouterr()
    recognise = transformers.pipeline("automatic-speech-recognition", model="again")
    for words in ([], ["language=deu"]):
        assert run_script(monkeypatch, "transcribe", "a.wav", "model=again", "device=cpu", *words) == 0
        assert capsys.readouterr().out.strip() == recognise(samples)["text"].strip()
    assert run_script(monkeypatch, "transcribe", "a.wav", "model=again", "device=cpu", "language=eng") == 1
    assert "the model is for one language, deu, not for eng" in capsys.readouterr().err


def test_a_trained_run_and_its_other_budget_stay_of_that_language(folder, speech_folder, caplog):
    tell_left_behind.cache_clear()
    changes = {"model.language": "deu", **FEW}
    made = quantize_now(str(folder), 4.0, speech_folder / "train", method="one_stage", changes=changes)
    assert [record.message for record in caplog.records].count(LEFT) == 1  # though the baseline is made, too
    (run,) = made.folder.parent.parent.glob("experiments/local/mms_4bit*/seed0")
    assert LEFT in (run / "model" / "README.md").read_text()
    (baseline,) = run.parent.parent.glob("mms_fp32*/seed0/model")
    assert transformers.AutoProcessor.from_pretrained(baseline).tokenizer.target_lang == "deu"
    other = rebudget(run, 3.0, evaluate=False)
    model, processor = load_packed(other.folder)
    assert model.target_lang == processor.tokenizer.target_lang == "deu"


def test_without_a_language_nothing_is_written(folder, here):
    with pytest.raises(UserError, match="must be one of deu, eng, tur, but is None"):
        quantize_now(str(folder), 4.0)
    assert [*here.iterdir()] == []
