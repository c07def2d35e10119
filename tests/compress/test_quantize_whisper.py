"""A Whisper folder through scripts/quantize.py and scripts/rebudget.py, on a model of a few thousand random weights."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch
import transformers
from tiny_whisper import GREEDY, tiny_whisper

from mpq.checkpoint.packed import load_packed, save_model
from mpq.compress.output import summary
from mpq.compress.quantize_now import quantize_now
from mpq.compress.rebudget import rebudget
from mpq.conf import REPOSITORY
from mpq.errors import UserError
from mpq.models.loading import speech_model

FEW = {
    "trainer.updates": 4,
    "trainer.interval": 2,
    "trainer.audio_seconds": 30.0,
    "trainer.calibration_utterances": 4,
    "trainer.accelerator": "cpu",
}


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """The folder of a float model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whisper") / "tiniest"
    save_model(folder, *tiny_whisper())
    return folder


@pytest.fixture
def untranscribed(speech_folder, tmp_path):
    return shutil.copytree(speech_folder, tmp_path / "recordings", ignore=shutil.ignore_patterns("*.txt"))


def bits_of(folder):
    """Bits by site: of the layers of encoder and decoder, and of all else."""
    sites = json.loads((folder / "config.json").read_text())["quantization_config"]["sites"]
    layers = {name: site["bits"] for name, site in sites.items() if "coder.layers." in name}
    return layers, {name: site["bits"] for name, site in sites.items() if name not in layers}


def run_script(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    try:
        runpy.run_path(str(REPOSITORY / "scripts" / f"{name}.py"), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    return 0


def test_without_data_the_command_leaves_a_folder_that_transcribes(whisper, speech_folder, here, monkeypatch, capsys):
    run_script(monkeypatch, "quantize", f"model={whisper}", "bits=4", "output=small")
    out = capsys.readouterr().out
    assert "AutoModelForSpeechSeq2Seq.from_pretrained('small')" in out and "CTC" not in out
    text = (here / "small" / "README.md").read_text()
    assert "A sequence-to-sequence speech recogniser" in text and "import AutoModelForSpeechSeq2Seq, pipeline" in text
    layers, others = bits_of(here / "small")
    assert {name.split(".")[1] for name in layers} == {"encoder", "decoder"} and set(others.values()) == {8}
    assert "model.decoder.embed_tokens.weight" in others and not any("positions" in name for name in others)
    audio = next(speech_folder.rglob("*.flac"))
    words = [audio, "model=small", "device=cpu", "silence_seconds=30", "fallback=false"]
    assert run_script(monkeypatch, "transcribe", *words) == 0
    recognize = transformers.pipeline("automatic-speech-recognition", model="small", generate_kwargs=GREEDY)
    assert capsys.readouterr().out.split() == recognize(soundfile.read(audio)[0])["text"].split()


def test_recordings_are_heard_by_both_halves(whisper, untranscribed, here):
    """GPTQ sees the decoder's inputs along the texts that the float model writes."""
    rounded = quantize_now(str(whisper), 4.0, changes=FEW)
    fitted = quantize_now(str(whisper), 4.0, untranscribed, changes=FEW)
    assert (rounded.method, fitted.method) == ("round", "gptq") and bits_of(rounded.folder) == bits_of(fitted.folder)
    before, after = (load_packed(made.folder)[0].state_dict() for made in (rounded, fitted))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[1] for name in changed} == {"encoder", "decoder"}
    assert {name.rsplit(".", 2)[1] for name in changed} >= {"q_proj", "v_proj", "out_proj", "fc1", "fc2"}
    written = [json.loads(path.read_text())["text"] for path in Path(".cache").rglob("*.json")]
    assert len(written) == 4


def test_transcripts_train_it_and_its_run_takes_another_budget(whisper, speech_folder, here):
    made = quantize_now(str(whisper), 4.0, speech_folder / "train", method="one_stage", changes=FEW)
    assert made.result is not None and made.result.wer["train"].utterances == 2
    assert "AutoModelForSpeechSeq2Seq" in summary(made)
    (run,) = Path("experiments/local").glob("tiniest_4bit*/seed0")
    other = rebudget(run, 3.0, evaluate=False)
    before, after = bits_of(made.folder)[0], bits_of(other.folder)[0]
    assert sum(after.values()) < sum(before.values()) and other.bits.average <= 3.0
    speech = speech_model(*load_packed(other.folder))
    inputs, length = speech.reader.inputs(torch.randn(8_000).numpy())
    assert len(speech.transcribe(inputs[None], torch.tensor([length]))) == 1


@pytest.mark.parametrize(
    ("lost", "match"),
    [
        ("generation_config.json", r"has no generation config .*: add the file generation_config\.json"),
        ("tokenizer.json", r"the tokenizer has \d+ tokens, but .*: add the tokenizer's files"),
    ],
)
def test_a_folder_that_is_not_complete_is_one_sentence(whisper, here, lost, match):
    folder = shutil.copytree(whisper, here / "incomplete", ignore=shutil.ignore_patterns(lost, "tokenizer_config.json"))
    with pytest.raises(UserError, match=match):
        quantize_now(str(folder), 4.0)
    assert sorted(path.name for path in here.iterdir()) == ["incomplete"]
