"""A mistake and the help are told before torch is imported, which takes ten seconds on a slow machine."""

import json
import subprocess
import sys

import pytest
import tiny_run

from mpq.conf import REPOSITORY

# Runs scripts one after the other in one process and says what each printed at its end, and which heavy module it took.
CODE = """
import io, json, runpy, sys
from contextlib import redirect_stderr, redirect_stdout
HEAVY = {"torch", "transformers", "lightning"}
for line in json.loads(sys.argv[1]):
    before = HEAVY & sys.modules.keys()
    sys.argv = line
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            runpy.run_path(line[0], run_name="__main__")
        except SystemExit as end:
            print("status", end.code)
    print(json.dumps([said.getvalue(), sorted(HEAVY & sys.modules.keys() - before)]))
"""
MISTAKES = {
    ("run", "--help"): "Run one experiment",
    ("run", "target_bits=99"): "between 2 and 8",
    ("run", "recipe=uniform", "target_bits=3.5"): "must be a whole number from 1 to 8 for a uniform precision",
    ("run", "recipe.stages.one_stage.search.freeze_at=2"): "freeze_at=2 must be a share of the updates",
    ("run", "+recipe.stages.one_stage.search.heat=2"): "there is no setting recipe.stages.one_stage.search.heat;",
    ("run", "recipe.stages.one_stage.search=kl"): "search@recipe.stages.one_stage.search=NAME, with one of fixed",
    ("run", "recipe=two_stage_kl", "trainer.calibration_utterances=0"): "utterances=0 must be a whole number of 1",
    ("run", "recipe=ptq_gptq", "target_bits=4", "+recipe.stages.round.calibrate.damping=0"): "damping=0 to be positive",
    ("run", "trainer.learning_rate=fast"): "trainer.learning_rate=fast must be a number, 0 or more",
    ("run", "trainer.threads=-1"): "trainer.threads=-1 must be a whole number, 0 or more",
    ("run", "trainer.precision=bf16-true"): "must be one of 32-true, bf16-mixed, 16-mixed",
    ("run", "trainer.compile=maybe"): "must be auto, true or false",
    ("run", "recipe=from_scratch", "distill=ctc_kl"): "distill.kl_weight must be 0 if there is no teacher",
    ("run", "quantizer.granularity=row"): "quantizer.granularity=row must be one of per_tensor, per_channel",
    ("run", "quantizer.fixed_bits=9"): "quantizer.fixed_bits=9 must be a whole number from 1 to 8",
    ("run", "quantizer.activations=8bit"): "must be one of none, static, dynamic",
    ("run", "data.labels=mine"): "data.labels=mine must be transcripts",
    ("run", "data.test_audio_seconds=0"): "data.test_audio_seconds=0 must be a number, above 0",
    ("run", "data.utterances_per_speaker=0"): "must be a whole number of 1 or more, or null for all",
    ("run", "overwrite=maybe"): "overwrite=maybe must be true or false",
    ("run", "data.train=x"): "must be lists of splits",
    ("run", "data.root=/no/such"): "/no/such is not a folder",
    ("run", "model.path=no-such-model"): "no-such-model",
    ("run", "logger.mode=loud"): "must be one of auto",
    ("run", "+exp=no_such_row"): "there is no exp=no_such_row",
    ("run", "seed=-1"): "must be a whole number",
    ("run", "demo=true", "data=real"): "demo=true is for the embedded corpus",
    ("quantize", "model=my model"): "neither a folder here nor a name on the Hub: name the folder of a model saved by",
    ("quantize", "modle=mpq/models/tiny_hubert", "bits=4"): "model= must be given, not 'modle=mpq/models/tiny_hubert'",
    ("quantize", "bits=4"): "model= must be given; --help",
    ("quantize", "mpq/models/tiny_hubert", "bits=4"): "model= must be given, as model=mpq/models/tiny_hubert; --help",
    ("quantize", "model=mpq/models/tiny_hubert/config.json"): "config.json is a file: name the folder of a model",
    ("quantize", "model=mpq/models/tiny_hubert", "bits=a"): "bits=a must be a number from 2 to 8",
    ("quantize", "model=mpq/models/tiny_hubert", "megabytes=1MB"): "must be a number of megabytes above 0, such as 12",
    (
        "quantize",
        "model=mpq/models/tiny_hubert",
        "target_bits=3",
    ): "the setting target_bits= is for scripts/run.py",
    ("quantize", "model=mpq/models/tiny_hubert", "data.root=x"): "scripts/run.py alone: write data=FOLDER instead",
    ("quantize", "model=mpq/models/tiny_hubert", "bits=99"): "must be a number from 2 to 8",
    ("quantize", "model=mpq/models/tiny_hubert", "trainer.clip=x"): "trainer.clip=x must be a number, 0 or more",
    ("quantize", "model=mpq/models/tiny_hubert", "method=gptq"): "needs data=FOLDER",
    ("quantize", "model=mpq/models/tiny_hubert", "data=/no/such"): "/no/such is not a folder",
    ("quantize", "model=mpq/models/tiny_hubert", "output=tests"): "is not a packed model",
    ("transcribe", "/no/such.wav"): "no such file",
    ("export", "model=/no/such"): "/no/such is not a folder",
    ("export", "model=mpq/models/tiny_hubert"): "but is None; scripts/quantize.py packs a float model",
    ("evaluate", "run=/no/such", "file=x.onnx"): "not a run's folder",
    ("evaluate", "run=experiments/tiny_wav2vec2_3p5bit/seed0", "file=x.onnx"): "x.onnx is not a file",
    ("rebudget", "run=/no/such", "target_bits=3"): "must be the folder of a finished run",
    ("sweep", "table=no_such"): "lists no systems",
    ("tables", "table=no_such"): "unknown table",
    ("report", "run=/no/such"): "holds no record",
    ("bench", "no_such"): "there is no bench",
    ("sizes", "no_such=1"): "unknown argument",
}


def answers(lines):
    """What each command line said, and the heavy modules that were imported by then."""
    environment = {"PATH": "", "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(lines)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines() if not line.startswith("status")]


@pytest.fixture(scope="module")
def told():
    found = answers([[f"scripts/{name}.py", *words] for name, *words in MISTAKES])
    return dict(zip(MISTAKES, found, strict=True))


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_it_is_told_before_torch_is_imported(told, words):
    said, heavy = told[words]
    assert MISTAKES[words] in said
    assert heavy == []


def test_a_finished_run_on_recordings_is_shown_without_torch(tmp_path, model_folder, speech_folder, monkeypatch):
    command = tiny_run.words(tmp_path, model_folder, speech_folder, "recipe=full_precision", "logger.mode=off")
    assert tiny_run.run_here(monkeypatch, *command) == 0
    ((said, heavy),) = answers([["scripts/run.py", *command]])
    assert "record      " in said and heavy == []
