"""Provenance against git and the libraries themselves, and that it gives away no person and no place."""

import getpass
import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from mpq.record.provenance import collect, command, hardware, versions
from mpq.record.result import Data

DATA = Data("embedded", "abc", True)


def git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    options = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *options, *arguments], check=True, capture_output=True, env=environment
    )
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "--no-verify", "-m", "one")
    return tmp_path


def test_commit_and_dirty(repository, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as inside a hook of another repository
    here = collect(DATA, ["scripts/run.py"], repository)
    assert (here.commit, here.dirty) == (git(repository, "rev-parse", "HEAD"), False)
    (repository / "experiments").mkdir()
    (repository / "experiments" / "result.json").write_text("{}")
    assert collect(DATA, [], repository).dirty is False
    (repository / "code.py").write_text("2")
    assert collect(DATA, [], repository).dirty is True
    git(repository, "checkout", "-q", "code.py")
    (repository / "new.py").write_text("2")
    assert collect(DATA, [], repository).dirty is True


def test_outside_git_and_inside_another_repository(repository, tmp_path_factory):
    outside = collect(DATA, [], tmp_path_factory.mktemp("outside"))
    assert (outside.commit, outside.dirty) == (None, None)
    inner = repository / "site-packages"
    inner.mkdir()
    assert collect(DATA, [], inner).commit is None


def test_the_command_has_no_path_of_this_machine(tmp_path):
    def line(*argv: str) -> str:
        return command(argv, tmp_path)

    assert line(f"{tmp_path}/scripts/run.py", "+exp=a", "seed=1,2") == "python scripts/run.py +exp=a seed=1,2"
    assert line("scripts/run.py", "data.root=../data/real") == "python scripts/run.py data.root=../data/real"
    assert line("r.py", f"data.root={tmp_path}/data") == "python r.py data.root=data"
    assert line("/opt/tools/run.py", "model.path=facebook/wav2vec2-base") == (
        "python '<path>' model.path=facebook/wav2vec2-base"
    )
    assert line("r.py", "url=https://example.org/a/b") == "python r.py url=https://example.org/a/b"
    for word in (
        "data.root=/home/alice/speech", "/home/alice", "a=[/home/alice/x,/home/alice]", "a={root:/home/alice}",
        "a='/home/alice'", "a=file:///home/alice/x", "a=//home/alice", "a=/home/alice smith/x", "--a=/home/alice",
    ):  # fmt: skip
        assert "<path>" in line("r.py", word)
        assert not {"alice", "smith", "home"} & set(line("r.py", word).replace("/", " ").split())
        assert "alice" not in line("r.py", word)


def test_nothing_tells_of_a_person_or_a_place():
    text = json.dumps(asdict(collect(DATA, [str(Path.cwd() / "scripts" / "run.py")])))
    # Short names ("ci", "root") would be found inside other words by chance.
    secrets = {platform.node(), str(Path.home()), str(Path.cwd())} | {getpass.getuser() for _ in range(1)}
    assert not [secret for secret in secrets if len(secret) > 4 and secret in text]


def test_versions_hardware_and_date():
    found = versions()
    assert found["torch"] == version("torch") and found["safetensors"] == version("safetensors")
    assert found["python"] == platform.python_version()
    assert "pytest" not in found
    machine = hardware()
    assert machine.cpu and machine.cores >= 1 and machine.memory_bytes > 1e8
    assert len(machine.gpus) == torch.cuda.device_count()
    provenance = collect(DATA, [])
    assert provenance.data == DATA
    assert abs((datetime.now(UTC) - datetime.fromisoformat(provenance.date)).total_seconds()) < 600
