"""Whisper from the command to the record, on a part of the test set, with labels by the teacher."""

import json

import pytest
from tiny_run import run_here
from tiny_whisper import whisper

from mpq.record.hypotheses import read_references


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    model, processor = whisper()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "normalizer.json").write_text("{}")
    return folder


def words(root, whisper_folder, speech_folder, *more):
    return [
        "model=whisper_tiny_en",
        f"model.path={whisper_folder}",
        "model.margin_seconds=1",
        f"data.root={speech_folder}",
        "data.train=[train]",
        "data.test=[clean]",
        "data.workers=0",
        "trainer.updates=2",
        "trainer.interval=1",
        "trainer.audio_seconds=4",
        "trainer.calibration_utterances=2",
        "logger.mode=off",
        f"root={root}",
        f"cache={root}/cache",
        *more,
    ]


def test_a_run(tmp_path, whisper_folder, speech_folder, monkeypatch, capsys):
    command = words(tmp_path, whisper_folder, speech_folder, "recipe=fine_tuned", "data.utterances_per_speaker=1")
    assert run_here(monkeypatch, *command) == 0, capsys.readouterr().err
    results = {path.parts[-3]: json.loads(path.read_text()) for path in tmp_path.glob("*/seed0/result.json")}
    tuned = results["whisper_tiny_en_fp32_fine_tuned_mini_speech"]
    assert tuned["normalizer"] == "whisper english" and tuned["scale"] == "real"
    assert tuned["provenance"]["data"]["utterances_per_speaker"] == 1
    errors = tuned["wer"]["clean"]
    assert errors["utterances"] == 2  # of four, by two speakers
    assert errors["insertions"] + errors["deletions"] + errors["substitutions"] == errors["errors"]
    assert "loops" in errors and tuned["significance"]["clean"]["baseline"]["seed"] == 0
    said = read_references(tmp_path / "references" / "mini_speech-whisper_english.jsonl")["clean"]
    assert all(text == text.lower() for text in said.values())
    assert list((tmp_path / "cache").glob("transcripts-*/*.json"))

    # A record on all utterances serves as the baseline of one on a part.
    whole = words(tmp_path / "whole", whisper_folder, speech_folder, "data.utterances_per_speaker=null")
    assert run_here(monkeypatch, *whole, "recipe=full_precision") == 0
    assert run_here(monkeypatch, *whole[:-1], "recipe=fine_tuned", "data.utterances_per_speaker=1") == 0
    results = {p.parts[-3]: json.loads(p.read_text()) for p in (tmp_path / "whole").glob("*/seed0/result.json")}
    assert [r["wer"]["clean"]["utterances"] for r in results.values()].count(4) == 1 and len(results) == 2


@pytest.mark.parametrize(
    "more",
    [
        ("recipe=uniform", "target_bits=4", "quantizer.activations=static", "distill.keep=true"),
        ("recipe=two_stage_hessian", "target_bits=3", "trainer.accumulate=2"),
        ("recipe=one_stage", "target_bits=3", "data.labels=transcripts", 'model.searched="*"'),
        ("recipe=ptq_gptq", "target_bits=4"),
    ],
)
def test_recipes(tmp_path, whisper_folder, speech_folder, monkeypatch, capsys, more):
    assert run_here(monkeypatch, *words(tmp_path, whisper_folder, speech_folder, *more)) == 0, capsys.readouterr().err
    (path,) = (path for path in tmp_path.glob("*/seed0/result.json") if "fp32" not in str(path))
    record = json.loads(path.read_text())
    target = record["bits"]["target"]
    assert record["bits"]["average"] <= target and record["wer"]["clean"]["utterances"] == 4
    parameters = sum(parameter.numel() for parameter in whisper()[0].parameters())  # a tied tensor once
    assert record["size"]["parameters"] == parameters


def test_training_audio_that_is_too_long(tmp_path, whisper_folder, monkeypatch, capsys):
    import numpy as np
    import soundfile
    from tiny_speech import write_speech

    root = write_speech(tmp_path / "long", {"train": 3, "clean": 2}, np.random.default_rng())
    noise = np.random.default_rng().standard_normal(31 * 16_000) * 0.1
    soundfile.write(root / "train" / "1" / "1" / "1-1-0000.flac", noise, 16_000)
    command = words(tmp_path, whisper_folder, root, "recipe=fine_tuned", "trainer.accelerator=cpu")
    assert run_here(monkeypatch, *command) == 1
    assert "1-1-0000 lasts 31.0 s, longer than the 30 s" in capsys.readouterr().err
    assert run_here(monkeypatch, *command, "data.on_bad_audio=skip") == 0
