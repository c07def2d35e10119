"""What our commands write leaves a checkout clean: else the next record would say that its code was changed."""

import subprocess

import pytest
from tiny_run import SCRIPT, run_here, words

from mpq.conf import REPOSITORY
from mpq.record.provenance import collect
from mpq.record.result import Data


def git(folder, *arguments):
    options = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The current folder: a repository whose only content is our .gitignore."""
    (tmp_path / ".gitignore").write_bytes((REPOSITORY / ".gitignore").read_bytes())
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "--no-verify", "-m", "one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme_leave_it_clean(checkout, model_folder, speech_folder, monkeypatch):
    """Each with its default output, at the size of a test; only records in experiments/ may be new."""
    few = [*words("experiments/local", model_folder, speech_folder)[:-2], "trainer.updates=1", "logger.mode=offline"]
    packed = "quantized/smallest_ptq_rtn_weight_error_3bit"
    commands = [
        ("run", "-m", *few, "recipe=ptq_rtn", "target_bits=2"),
        ("run", *few, "root=experiments", "recipe=ptq_rtn", "target_bits=2"),
        ("quantize", f"model={model_folder}", "bits=3"),
        ("transcribe", *map(str, speech_folder.glob("clean/*/*/*.flac")), f"model={packed}"),
        ("tables", "table=records"),
        ("report", "root=experiments/local"),
    ]
    for name, *arguments in commands:
        status = run_here(monkeypatch, *arguments, script=SCRIPT.with_name(f"{name}.py"))
        assert status == 0, (name, status)
        left = git(checkout, "status", "--porcelain", "--", ".", ":(exclude)experiments")
        assert left == "", f"{name} left {left}"
        assert collect(Data("x", "", True), ["x"], checkout).dirty is False
    new = git(checkout, "status", "--porcelain", "--untracked-files=all").replace("?? ", "").split()
    assert all(path.startswith("experiments/") and "/local/" not in path for path in new)
    assert not [path for path in new if path.endswith((".html", "multirun.yaml")) or "/model/" in path]
