"""One run from its config to a table's cell, and what the same and other commands do afterwards."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import pytest
import soundfile
import torch
from omegaconf import OmegaConf
from tiny_run import composed, words

from mpq import pipeline
from mpq.checkpoint import packed as stored
from mpq.checkpoint.packed import load_packed
from mpq.checkpoint.packing import packed_bytes
from mpq.conf import CONF
from mpq.errors import UserError
from mpq.models import loading
from mpq.quant.sites import find_sites, quantizers_of
from mpq.record.result import from_json
from mpq.record.run_folder import load_records

EXP, BASELINE = "tiny_wav2vec2_3p5bit_mini_speech", "tiny_wav2vec2_fp32_mini_speech"


@dataclass
class Run:
    root: Path
    command: list[str]
    result: Any
    trained: dict[str, torch.nn.Module]  # by folder: the fake-quantized model as it was handed to the packer

    @property
    def folder(self) -> Path:
        return self.root / EXP / "seed0"


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_folder, speech_folder):
    """A finished run at 3.5 bits, and its baseline, made by the same command."""
    root = tmp_path_factory.mktemp("run") / "records"
    command = words(root, model_folder, speech_folder)
    trained = {}

    def save(folder, model, processor, coding):
        trained[str(folder)] = model
        return keep(folder, model, processor, coding)

    keep = stored.save_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "save_model", save)
        result = pipeline.run(composed(*command))
    return Run(root, command, result, trained)


def snapshot(root):
    """Every file but those of W&B, which closes a run after it has handed it over."""
    files = (path for path in root.rglob("*") if path.is_file() and "wandb" not in path.parts)
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_run_leaves_its_whole_record_and_nothing_half_done(run):
    assert {"config.yaml", "result.json", "bits.json", "hypotheses.jsonl", "model"} <= {
        path.name for path in run.folder.iterdir()
    }
    assert not (run.folder / "work").exists()
    assert not list(run.root.rglob("*.partial"))
    assert from_json((run.folder / "result.json").read_text()) == run.result
    assert (run.root / "references" / "mini_speech.jsonl").is_file()
    assert "Licence not stated." in (run.folder / "model" / "README.md").read_text()


@pytest.mark.parametrize("text", ["the card", "the README"])
def test_the_code_for_loading_the_model_does(run, text):
    folder = run.folder / "model"
    page = folder / "README.md" if text == "the card" else CONF.parent / "README.md"
    code, *_ = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    made: dict[str, Any] = {}
    exec(code.replace("FOLDER_OR_NAME", "FOLDER").replace("FOLDER", str(folder)), made)
    waveform = torch.randn(1, 12_345)
    with torch.no_grad():
        logits = [model(waveform).logits for model in (made["model"], made["small"], load_packed(folder)[0])]
    assert torch.equal(logits[0], logits[2]) and torch.equal(logits[1], logits[2])
    assert made["small"].get_memory_footprint() < made["model"].get_memory_footprint()
    assert isinstance(made["recognise"](waveform[0].numpy())["text"], str)


def test_the_record_has_the_fields_of_the_contract(run):
    content = json.loads((run.folder / "result.json").read_text())
    assert content["schema"] == 1
    assert (content["exp"], content["seed"], content["scale"], content["smoke"]) == (EXP, 0, "own", False)
    assert (content["model"], content["recipe"]) == ("tiny_wav2vec2", "one_stage")
    assert content["bits"]["target"] == 3.5 and 3.4 < content["bits"]["average"] <= 3.5
    sizes = {"parameters", "ideal_bits", "ideal_ratio", "file_bytes", "file_ratio", "packed_bytes"}
    assert sizes <= content["size"].keys()
    assert content["wer"].keys() == content["significance"].keys() == {"clean"}
    assert content["wer"]["clean"]["utterances"] == 4 and content["wer"]["clean"]["words"] == 8
    verdict = content["significance"]["clean"]
    assert verdict["baseline"] == {"exp": BASELINE, "seed": 0}
    spoken = {name: words for name, (_, words) in content["wer"]["clean"]["units"]["counts"].items()}
    if all(
        100 * more == pytest.approx(verdict["difference"] * spoken[name]) for name, more in verdict["change"].items()
    ):
        assert verdict["interval"] is None  # by chance: the rate of every unit changed alike
    else:
        assert verdict["interval"][0] <= verdict["difference"] <= verdict["interval"][1]
    assert 0 <= verdict["p"] <= 1
    (stage,) = content["time"]["stages"]
    assert (stage["name"], stage["devices"], stage["updates"], stage["resumed"]) == ("one_stage", 1, 12, 0)
    assert content["time"]["seconds"] == stage["seconds"] > 0 < stage["audio_seconds"]
    assert {"commit", "dirty", "command", "versions", "hardware", "data", "date"} <= content["provenance"].keys()
    assert content["provenance"]["data"]["name"] == "mini_speech"
    assert content["provenance"]["data"]["synthetic"] is False


def test_the_baseline_was_made_by_the_way_and_is_compared_with_nothing(run):
    content = json.loads((run.root / BASELINE / "seed0" / "result.json").read_text())
    assert "significance" not in content
    assert content["recipe"] == "full_precision"
    assert content["bits"] == {"target": None, "average": 32.0, "activations": 32.0}
    assert content["size"]["ideal_ratio"] == 1.0
    assert content["time"] == {"seconds": 0.0, "device_seconds": 0.0, "stages": []}


def test_the_packed_model_is_the_trained_one_bit_for_bit(run, speech_folder):
    trained = run.trained[str(run.folder / "model")].eval()
    packed, processor = stored.load_model(run.folder / "model")
    assert quantizers_of(trained) and not quantizers_of(packed)
    for path in sorted(speech_folder.rglob("*.flac"))[:3]:
        inputs = processor(soundfile.read(path)[0], sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            assert torch.equal(trained(inputs).logits, packed(inputs).logits)


def test_the_sizes_are_those_of_the_assignment_and_the_file(run):
    bits = json.loads((run.folder / "bits.json").read_text())
    trained = run.trained[str(run.folder / "model")]
    sites = {site.name: site for site in find_sites(trained)}
    assert bits.keys() == {name for name, site in sites.items() if site.searched} and set(bits.values()) <= {2, 4, 8}
    count = sum(sites[name].numel for name in bits)
    assert run.result.bits.average == sum(sites[name].numel * bits[name] for name in bits) / count
    files = sum((run.folder / "model" / name).stat().st_size for name in ("model.safetensors", "config.json"))
    assert run.result.size.file_bytes == files
    codes = sum(packed_bytes(site.numel, bits.get(name, 8)) for name, site in sites.items())
    assert codes < files


def test_anyone_can_recompute_the_word_errors_from_the_tracked_files(run):
    def read(path, field):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {(row["set"], row["id"]): row[field] for row in rows}

    references = read(run.root / "references" / "mini_speech.jsonl", "reference")
    hypotheses = read(run.folder / "hypotheses.jsonl", "hypothesis")
    assert references.keys() == hypotheses.keys() and len(references) == 4
    counts = jiwer.process_words(list(references.values()), [hypotheses[key] for key in references])
    errors = counts.substitutions + counts.deletions + counts.insertions
    assert run.result.wer["clean"].errors == errors
    assert run.result.wer["clean"].wer == pytest.approx(100 * errors / 8)


def test_the_config_names_no_folder_of_the_machine_but_those_that_were_typed(run):
    saved = OmegaConf.load(run.folder / "config.yaml")
    assert "root" not in saved and "cache" not in saved
    assert str(CONF.parent) not in (run.folder / "config.yaml").read_text()


def test_the_same_command_answers_from_the_record_without_work(run, monkeypatch):
    def work(*_, **__):
        raise AssertionError("this was done before")

    for name in ("teacher_of", "run_recipe", "transcribe_sets", "run_logger"):
        monkeypatch.setattr(pipeline, name, work)
    before = snapshot(run.root)
    assert pipeline.run(composed(*run.command)) == run.result
    assert pipeline.run(composed(*run.command, "data.workers=1", "trainer.threads=1", "logger.mode=off")) == run.result
    assert snapshot(run.root) == before


def test_a_copy_of_the_model_in_another_folder_makes_the_same_run(run, model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    before = snapshot(run.root / BASELINE)
    assert pipeline.run(composed(*run.command, f"model.path={copy}")) == run.result
    uniform = [f"model.path={copy}", "recipe=uniform", "target_bits=8", "trainer.updates=1", "logger.mode=off"]
    made = pipeline.run(composed(*run.command, *uniform))
    assert made is not None and made.significance is not None
    assert snapshot(run.root / BASELINE) == before
    trained, _ = loading.load(str(copy))
    trained.get_parameter("lm_head.bias").data += 1.0
    trained.save_pretrained(copy)
    with pytest.raises(UserError, match=r"holds a run with other settings \(model.path: .* -> .*copy\)"):
        pipeline.run(composed(*run.command, f"model.path={copy}"))
    shutil.rmtree(run.root / made.exp)


def test_other_settings_under_the_same_name_are_refused_by_name(run):
    before = snapshot(run.root)
    with pytest.raises(UserError) as refused:
        pipeline.run(composed(*run.command, "trainer.updates=13", "distill.temperature=2"))
    assert "trainer.updates: 12 -> 13" in str(refused.value) and "distill.temperature: 1.0 -> 2" in str(refused.value)
    assert "overwrite=true" in str(refused.value)
    assert snapshot(run.root) == before


@pytest.mark.parametrize("word", ["accelerator=abacus", "precision=3-bit", "strategy=luck", "compile=maybe"])
def test_a_machine_that_can_not_be_had_is_refused_before_an_older_run_is_replaced(run, word):
    before = snapshot(run.root)
    with pytest.raises(UserError, match=word.split("=")[1]):
        pipeline.run(composed(*run.command, f"trainer.{word}", "overwrite=true"))
    assert snapshot(run.root) == before


def test_another_budget_shares_the_baseline(run):
    before = snapshot(run.root / BASELINE)
    result = pipeline.run(
        composed(*run.command, "recipe=uniform", "target_bits=2", "trainer.updates=2", "logger.mode=off")
    )
    assert result.exp == "tiny_wav2vec2_uniform_2bit_mini_speech"
    assert result.bits.average == 2.0
    assert snapshot(run.root / BASELINE) == before
    assert len(load_records(run.root)) == 3


@pytest.mark.parametrize(("gone", "made_again"), [("model", False), ("hypotheses.jsonl", True)])
def test_a_baseline_is_made_again_only_for_its_hypotheses(gone, made_again, run, tmp_path):
    """A fresh clone has the tracked records and no models; recorded sentences, and so hypotheses, aren't tracked."""
    root = tmp_path / "clone"
    shutil.copytree(run.root / BASELINE, root / BASELINE)
    lost = root / BASELINE / "seed0" / gone
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    before = (root / BASELINE / "seed0" / "result.json").stat().st_mtime_ns
    uniform = ["recipe=uniform", "target_bits=8", "trainer.updates=1", f"root={root}", "logger.mode=off"]
    result = pipeline.run(composed(*run.command, *uniform))
    assert result.significance is not None
    assert ((root / BASELINE / "seed0" / "result.json").stat().st_mtime_ns != before) == made_again
    assert lost.exists() == made_again


def test_overwriting_replaces_the_record_and_the_model(tmp_path, model_folder, speech_folder):
    command = words(
        tmp_path / "records", model_folder, speech_folder, "recipe=uniform", "target_bits=2", "logger.mode=off"
    )
    first = pipeline.run(composed(*command, "trainer.updates=1"))
    folder = tmp_path / "records" / first.exp / "seed0"
    (folder / ".model.99999999.partial").mkdir()  # what a killed process left
    old = (folder / "model" / "model.safetensors").read_bytes()
    second = pipeline.run(composed(*command, "trainer.updates=3", "overwrite=true"))
    assert second.time.stages[0].updates == 3
    assert (folder / "model" / "model.safetensors").read_bytes() != old
    assert OmegaConf.load(folder / "config.yaml").trainer.updates == 3
    assert not list(folder.glob(".*"))
    assert pipeline.run(composed(*command, "trainer.updates=3")) == second


def test_the_teacher_that_is_compressed_is_the_folders(run, model_folder):
    """The baseline is the model of `model.path` as it is."""
    teacher, _ = loading.load(str(model_folder))
    baseline, _ = stored.load_model(run.root / BASELINE / "seed0" / "model")
    assert all(torch.equal(one, other) for one, other in zip(teacher.parameters(), baseline.parameters(), strict=True))
