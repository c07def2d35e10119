"""scripts/evaluate.py on an exported Whisper, against a run of the very weights that were exported."""

import json
import shutil

import pytest
from packed_whisper import packed_whisper
from tiny_run import run_here

from mpq.conf import REPOSITORY
from mpq.deploy.compare import compare_with_run, over_all
from mpq.deploy.onnx_export import export
from mpq.errors import UserError
from mpq.evaluate.wer import word_errors
from mpq.record.hypotheses import read_hypotheses, read_references

SCRIPT = REPOSITORY / "scripts" / "evaluate.py"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, speech_folder):
    """The exported folder and the run, whose model heard 1 s of silence after the recordings."""
    root = tmp_path_factory.mktemp("compared")
    packed_whisper(root / "packed", (2, 3, 4))
    words = ["model=whisper_tiny_en", f"model.path={root / 'packed'}", "model.margin_seconds=1", "data.test=[clean]"]
    words += [f"data.root={speech_folder}", "data.train=[train]", "data.utterances_per_speaker=null", f"root={root}"]
    words += ["recipe=full_precision", "logger.mode=off", f"cache={root}/cache", "data.workers=0"]
    with pytest.MonkeyPatch.context() as patch:
        assert run_here(patch, *words) == 0
    (run,) = root.glob("*/seed0")
    return export(root / "packed", root / "onnx", "memory"), run


def test_the_file_writes_what_the_run_wrote(evaluated, monkeypatch, capsys):
    """As much silence, the same batches, the same normal form: else texts of random weights differ."""
    file, run = evaluated
    capsys.readouterr()
    assert run_here(monkeypatch, f"file={file}", f"run={run}", script=SCRIPT) == 0
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
