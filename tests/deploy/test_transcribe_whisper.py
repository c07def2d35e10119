"""scripts/transcribe.py and evaluate.py with a packed Whisper: long recordings, the JSON, its WER, what is refused."""

import json
import runpy
import shutil
import sys

import numpy as np
import pytest
import soundfile
import transformers
from packed_whisper import packed_whisper
from tiny_run import run_here
from tiny_whisper import GREEDY, tiny_whisper

import mpq
from mpq.checkpoint.packed import save_model, save_packed
from mpq.conf import REPOSITORY
from mpq.deploy.compare import compare_with_run, over_all
from mpq.deploy.onnx_export import export
from mpq.deploy.pauses import pieces
from mpq.deploy.runtime_seq2seq import OnnxWhisper
from mpq.errors import UserError
from mpq.evaluate.wer import word_errors
from mpq.record.hypotheses import read_hypotheses, read_references

RATE = 16_000
EVALUATE = REPOSITORY / "scripts" / "evaluate.py"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper") / "packed"
    model, processor = tiny_whisper()
    mpq.quantize(model, 4)
    save_packed(folder, model, processor)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The exported folder of a model whose texts are varied; the packed one is beside it."""
    folder = tmp_path_factory.mktemp("mixed")
    packed_whisper(folder / "packed", (2, 3, 4))
    return export(folder / "packed", folder / "onnx", "memory")


def here(monkeypatch, *words):
    """Run the script in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["transcribe.py", *map(str, words), "device=cpu"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(REPOSITORY / "scripts" / "transcribe.py"), run_name="__main__")
    return stop.value.code


def refused(monkeypatch, capsys, *words):
    assert here(monkeypatch, *words) == 1
    return capsys.readouterr().err.splitlines()[-1]


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def test_a_long_recording_is_the_texts_of_its_pieces(monkeypatch, capsys, packed, tmp_path, rng):
    samples = (0.3 * rng.standard_normal(7 * RATE) * (np.arange(7 * RATE) % RATE > RATE // 2)).astype(np.float32)
    recognize = transformers.pipeline("automatic-speech-recognition", model=str(packed), generate_kwargs=GREEDY)
    parts = list(pieces([samples], len(samples), 3 * RATE, RATE // 2, RATE))
    want = " ".join(recognize(part)["text"] for part in parts).split()
    path = write(tmp_path / "long.wav", samples)
    words = [path, f"model={packed}", "chunk_seconds=3", "margin_seconds=0.5", "silence_seconds=30", "fallback=false"]
    capsys.readouterr()
    assert here(monkeypatch, *words) == 0
    assert len(parts) == 3 and capsys.readouterr().out.split() == want
    assert here(monkeypatch, *words, "json=true") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"file": str(path), "seconds": 7.0, "text": " ".join(want), "words": None, "segments": None}


def test_what_cannot_be_transcribed_is_one_sentence(monkeypatch, capsys, packed, tmp_path, rng):
    path = write(tmp_path / "a.wav", rng.standard_normal(RATE))
    sentence = refused(monkeypatch, capsys, path, f"model={packed}", "chunk_seconds=40")
    assert sentence == "error: chunk_seconds=40 must be at most 30, all that the model takes"
    model, processor = tiny_whisper()
    model.proj_out.weight.data[3, 5] = float("nan")
    save_model(tmp_path / "nan", model, processor)
    sentence = refused(monkeypatch, capsys, path, f"model={tmp_path / 'nan'}")
    assert "embed_tokens.weight holds NaN or infinite values" in sentence


def test_a_multilingual_model_is_told_the_language(monkeypatch, capsys, tmp_path, rng):
    model, processor = tiny_whisper()
    token = processor.tokenizer.convert_tokens_to_ids
    model.generation_config.is_multilingual = True
    model.generation_config.lang_to_id = {"<|en|>": token("<|en|>")}
    model.generation_config.task_to_id = {"transcribe": token("<|transcribe|>")}
    save_model(tmp_path / "many", model, processor)
    path = write(tmp_path / "a.wav", rng.standard_normal(RATE))
    words = [path, f"model={tmp_path / 'many'}"]
    assert "language= for the other scripts" in refused(monkeypatch, capsys, *words)
    assert "must be one of en, but is xx" in refused(monkeypatch, capsys, *words, "language=xx")
    assert here(monkeypatch, *words, "language=en") == 0
    assert len(capsys.readouterr().out) > 5


def test_an_exported_model_writes_the_same_texts_and_times_of_segments(monkeypatch, capsys, mixed, tmp_path, rng):
    folder = shutil.copytree(mixed, tmp_path / "onnx")
    samples = (0.3 * rng.standard_normal(7 * RATE) * (np.arange(7 * RATE) % RATE > RATE // 2)).astype(np.float32)
    path = write(tmp_path / "long.wav", samples)
    words = [path, "chunk_seconds=3", "margin_seconds=0.5", "fallback=false"]
    capsys.readouterr()
    assert here(monkeypatch, *words, f"model={mixed.parent / 'packed'}") == 0
    want = capsys.readouterr().out
    assert here(monkeypatch, *words, f"model={folder}") == 0
    assert capsys.readouterr().out == want and len(want) > 5
    assert here(monkeypatch, *words, f"model={folder}", "json=true") == 0
    found = json.loads(capsys.readouterr().out)
    recognizer = OnnxWhisper(folder, threads=1)
    parts = list(pieces([samples], len(samples), 3 * RATE, RATE // 2, RATE))
    begins = np.cumsum([0, *map(len, parts)]) / RATE
    segments = [
        {"text": " ".join(one.text.split()), "start": round(b + one.start, 2), "end": round(b + one.end, 2)}
        for part, b in zip(parts, begins, strict=False)
        for one in recognizer.segments([part])[0]
    ]
    assert found["segments"] == segments and len(parts) == 3
    assert found["text"] == " ".join(one["text"] for one in segments if one["text"]) and found["words"] is None
    sentence = refused(monkeypatch, capsys, path, f"model={folder / 'encoder_model.onnx'}")
    assert sentence.endswith("is one of the two files of a Whisper: name its folder")
    (folder / "decoder_model_merged.onnx").unlink()
    sentence = refused(monkeypatch, capsys, path, f"model={folder}")
    assert "lacks decoder_model_merged.onnx: export the model again" in sentence


@pytest.fixture(scope="module")
def evaluated(mixed, speech_folder):
    """The exported folder and a run of its weights, whose model heard 1 s of silence after the recordings."""
    root = mixed.parent
    words = ["model=whisper_tiny_en", f"model.path={root / 'packed'}", "model.margin_seconds=1", "data.test=[clean]"]
    words += [f"data.root={speech_folder}", "data.train=[train]", "data.utterances_per_speaker=null", f"root={root}"]
    words += ["recipe=full_precision", "logger.mode=off", f"cache={root}/cache", "data.workers=0"]
    with pytest.MonkeyPatch.context() as patch:
        assert run_here(patch, *words) == 0
    (run,) = root.glob("*/seed0")
    return mixed, run


def test_an_exported_model_is_compared_with_its_run(evaluated, monkeypatch, capsys):
    """As much silence, the same batches, the same normal form: else texts of random weights differ."""
    file, run = evaluated
    capsys.readouterr()
    assert run_here(monkeypatch, f"file={file}", f"run={run}", script=EVALUATE) == 0
    record = json.loads((run / "result.json").read_text())["wer"]["clean"]
    line, verdict = capsys.readouterr().out.splitlines()
    assert line.startswith(f"clean: WER {record['wer']:.2f} % -> {record['wer']:.2f} % (+0.00, ")
    assert line.endswith(
        f"loops {record['loops']} -> {record['loops']}; 0 of {record['utterances']} utterances changed"
    )
    assert verdict.startswith("all sets: +0.00 points; no interval")


def test_differences_are_counted_tested_and_pooled(evaluated, tmp_path):
    file, run = evaluated
    copy = shutil.copytree(run, tmp_path / run.parent.name / "seed0")
    texts = read_hypotheses(run / "hypotheses.jsonl")["clean"]
    (said,) = run.parent.parent.glob("references/*.jsonl")
    right = read_references(said)["clean"]
    better = dict(texts) | dict(list(right.items())[:-1])  # as if the run had got all but one right
    lines = [json.dumps({"set": "clean", "id": key, "hypothesis": text}) for key, text in better.items()]
    (copy / "hypotheses.jsonl").write_text("\n".join(lines) + "\n")
    (result,) = found = compare_with_run(file, copy, "unused", [])
    assert result.run == word_errors(right, better).wer and result.file == word_errors(right, texts).wer
    assert result.changed == len(right) - 1 and result.run_loops <= 1
    verdict = over_all(found)
    assert verdict.change.estimate == pytest.approx(result.file - result.run)
    assert verdict.baseline == pytest.approx(result.run)
    assert result.verdict.difference == pytest.approx(result.file - result.run)


def test_a_file_of_another_kind_is_refused(evaluated, tmp_path):
    _, run = evaluated
    with pytest.raises(UserError, match=r"none\.onnx is of another kind than the model of .*/model"):
        compare_with_run(tmp_path / "none.onnx", run, "unused", [])
