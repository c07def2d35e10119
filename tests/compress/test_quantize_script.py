"""scripts/quantize.py with no data, with recordings and with transcripts, on a random model of few weights."""

import json
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCTC

from mpq.checkpoint.packed import load_packed
from mpq.compress.output import summary
from mpq.compress.quantize_now import quantize_now
from mpq.conf import REPOSITORY
from mpq.errors import UserError
from mpq.models import loading
from mpq.quant.sites import find_sites
from mpq.search.assignment import average_bits

FEW = {"trainer.updates": 4, "trainer.interval": 2, "trainer.audio_seconds": 3.0, "trainer.accelerator": "cpu"}


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def untranscribed(speech_folder, tmp_path):
    folder = tmp_path / "recordings"
    shutil.copytree(speech_folder, folder, ignore=shutil.ignore_patterns("*.txt"))
    return folder


def bits_of(folder):
    sites = json.loads((folder / "config.json").read_text())["quantization_config"]["sites"]
    return {name: site["bits"] for name, site in sites.items()}


def test_without_data_the_command_leaves_a_folder_that_loads(model_folder, here, monkeypatch, capsys):
    words = [f"model={model_folder}", "bits=3.3", "output=small"]
    monkeypatch.setattr(sys, "argv", ["quantize.py", *words])
    runpy.run_path(str(REPOSITORY / "scripts" / "quantize.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "small (rounded to nearest" in out and "AutoModelForCTC.from_pretrained('small')" in out
    assert "WER     not measured" in out and str(here) not in out
    packed, processor = load_packed(here / "small")
    theirs = AutoModelForCTC.from_pretrained("small")
    audio = torch.randn(1, 8_000)
    assert processor is not None and torch.equal(packed(audio).logits, theirs(audio).logits)
    searched = [site for site in find_sites(packed) if site.searched]
    bits = bits_of(here / "small")
    average = average_bits({site.name: bits[site.name] for site in searched}, searched)
    assert 3.1 < average <= 3.3 and f"{average:.3f} per weight" in out
    assert {bits[name] for name in bits if name not in {site.name for site in searched}} == {8}
    float_model, _ = loading.load(str(model_folder))
    errors = (packed(audio).logits - float_model(audio).logits).square().mean().sqrt()
    assert 0 < errors < float_model(audio).logits.std()


def test_what_it_prints_can_be_pasted(model_folder, here, monkeypatch, capsys):
    """Into a shell and into Python, whatever the folder is called."""
    name = "my 'best' \"modèle\" $HOME"
    monkeypatch.setattr(sys, "argv", ["quantize.py", f"model={model_folder}", f"output={name}"])
    runpy.run_path(str(REPOSITORY / "scripts" / "quantize.py"), run_name="__main__")
    out = capsys.readouterr().out
    loading = re.search(r"from_pretrained\((.*)\)", out)[1]
    (line,) = [line.removeprefix("try").strip() for line in out.splitlines() if line.startswith("try")]
    typed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    assert eval(loading) == name and (here / name / "config.json").is_file()
    assert typed.splitlines() == ["python", "scripts/transcribe.py", "audio.wav", f"model={name}"]


def card_of(folder):
    """The front matter and the text of a model card."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card_tells_what_is_known_and_how_to_measure_the_rest(model_folder, speech_folder, here):
    made = quantize_now(str(model_folder), 3.3)
    front, text = card_of(made.folder)
    assert front["license"] == "other" and "base_model" not in front and "mpq" in front["tags"]
    assert f"packed {made.size.packed:,} bytes, {made.size.packed_ratio:.2f} times smaller" in text
    sites = [site.name for site in find_sites(load_packed(made.folder)[0]) if site.searched]
    assert all(f"| `{name}` | {bits_of(made.folder)[name]} |" in text for name in sites)
    assert "WER not measured." in text and "WER %" not in text and str(here) not in text
    given = dict(word.split("=") for word in re.search("`python scripts/quantize.py (.*)`", text)[1].split())
    assert given["model"] == model_folder.name and given["data"] == "FOLDER"
    again = quantize_now(
        str(model_folder), float(given["bits"]), speech_folder / "train", here / "measured", given["method"], FEW
    )
    assert (again.folder / "model.safetensors").read_bytes() == (made.folder / "model.safetensors").read_bytes()
    assert again.result is not None and "| train | " in card_of(again.folder)[1]


def test_recordings_are_what_gptq_hears(model_folder, untranscribed, here):
    rounded = quantize_now(str(model_folder), 3.0, changes=FEW)
    fitted = quantize_now(str(model_folder), 3.0, untranscribed, changes=FEW)
    assert (rounded.method, fitted.method) == ("round", "gptq") and rounded.folder != fitted.folder
    assert bits_of(rounded.folder) == bits_of(fitted.folder) and fitted.result is None
    assert "method=gptq data=FOLDER` makes a model of this kind" in card_of(fitted.folder)[1]
    before, after = (load_packed(made.folder)[0].state_dict() for made in (rounded, fitted))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("encoder.layers" in name for name in changed) and not any("norm" in name for name in changed)


@pytest.mark.parametrize(
    ("asked", "method", "recipe"),
    [("auto", "one_stage", "one_stage"), ("learned_steps", "learned_steps", "one_stage_rate")],
)
def test_transcripts_train_it_and_tell_what_it_costs(asked, method, recipe, model_folder, speech_folder, here):
    given = (str(model_folder), 3.0, speech_folder / "train", None, asked, FEW)
    made = quantize_now(*given)
    assert made.method == method and made.result is not None and made.result.significance is not None
    assert made.result.recipe == recipe and made.result.time.stages[0].updates == 4
    tensors = load_file(made.folder / "model.safetensors")
    scales = {tensor.numel() for name, tensor in tensors.items() if name.endswith("_scale")}
    assert (scales == {1}) == (method == "learned_steps")
    assert made.result.wer["train"].utterances == 2  # a tenth of twelve, rounded up
    text = summary(made)
    assert "on train, 2 utterances; " in text and "95 % interval" in text
    assert load_packed(made.folder)[0].state_dict().keys()
    assert quantize_now(*given).result == made.result  # taken from the record


def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(model_folder, untranscribed, here):
    before = sorted(here.iterdir())
    with pytest.raises(UserError, match=r"bits=9 must be a number from 2 to 8"):
        quantize_now(str(model_folder), 9.0)
    for method in ("one_stage", "learned_steps"):
        with pytest.raises(UserError, match=f"method={method} needs data=FOLDER with transcripts"):
            quantize_now(str(model_folder), 3.0, untranscribed, method=method)
    with pytest.raises(UserError, match="gptq needs data=FOLDER with recordings"):
        quantize_now(str(model_folder), 3.0, method="gptq")
    with pytest.raises(UserError, match="is not a folder: name one that holds recordings"):
        quantize_now(str(model_folder), 3.0, here / "nowhere")
    with pytest.raises(UserError, match="exists and is not a packed model: choose another output"):
        quantize_now(str(model_folder), 3.0, output=model_folder)
    with pytest.raises(UserError, match="no/such-model is neither a folder"):
        quantize_now("no/such-model", 3.0)
    assert sorted(here.iterdir()) == before


def test_a_packed_model_is_not_packed_again(model_folder, here):
    made = quantize_now(str(model_folder), 4.0)
    with pytest.raises(UserError, match=r"is quantized already \(mpq\): name the float model"):
        quantize_now(str(made.folder), 3.0)
    with pytest.raises(UserError, match="holds a packed model: overwrite=true replaces it, output=FOLDER keeps both"):
        quantize_now(str(model_folder), 3.0, output=made.folder)
    assert set(bits_of(made.folder).values()) == {4, 8}
    quantize_now(str(model_folder), 3.0, output=made.folder, changes={"overwrite": True})
    assert set(bits_of(made.folder).values()) != {4, 8}
