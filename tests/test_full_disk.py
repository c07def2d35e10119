"""A disk that takes no more is one sentence of every script that writes, and nothing half-written stays."""

import os
import resource
import shutil

import pytest
from tiny_run import run_here, words

import mpq.files as files
from mpq.checkpoint.packed import load_packed
from mpq.compress.quantize_now import quantize_now
from mpq.conf import REPOSITORY
from mpq.data.synthetic import corpus
from mpq.errors import UserError
from mpq.guard import explain


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def full(monkeypatch):
    """Call it, and no file can grow beyond that many bytes; what is asked before the work sees that only if `asked`."""

    def fill(size, asked):
        monkeypatch.setattr(files, "_PROBE", files._PROBE if asked else 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def told(capsys):
    """The one sentence with which a script ends."""
    err = capsys.readouterr().err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err and sentence.endswith("can't be written: File too large"), err
    return sentence


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("name", ["quantize", "export", "figures", "report", "overview"])
def test_a_full_disk_is_one_sentence(name, asked, here, model_folder, full, monkeypatch, capsys):
    """Before the work where the disk is full by then, and else where it fills up during the work."""
    commands = {
        "quantize": [f"model={model_folder}", "output=out"],
        "export": ["model=packed", "output=out/x.onnx"],
        "figures": ["root=records", "output=out"],
        "report": ["root=records"],
        "overview": ["root=records"],
    }
    if name == "export":
        quantize_now(str(model_folder), 4, output=here / "packed")
    if name in ("figures", "report", "overview"):
        for row in ("fp32", "uniform_4bit"):
            exp = f"tiny_wav2vec2_{row}"
            shutil.copytree(REPOSITORY / "experiments" / exp, here / "records" / exp)
        shutil.copy(REPOSITORY / "experiments" / "README.md", here / "records")
    before, files_before = contents(here), set(here.rglob("*"))
    full(2_000, asked)
    assert run_here(monkeypatch, *commands[name], script=REPOSITORY / "scripts" / f"{name}.py") == 1
    sentence = told(capsys)
    assert ("records" if "records" in commands[name][-1] else "out") in sentence and ".partial" not in sentence
    assert {path: content for path, content in contents(here).items() if path in files_before} == before
    assert not list(here.rglob("*.partial")) and (not asked or set(here.rglob("*")) == files_before)


@pytest.mark.parametrize("name", ["bench", "sizes", "prepare"])
def test_it_is_found_before_long_work(name, full, monkeypatch, capsys):
    commands = {"bench": ["growth", "output=out"], "sizes": ["root=out"], "prepare": ["synthetic", "cache=out"]}
    full(2_000, asked=True)
    assert run_here(monkeypatch, *commands[name], script=REPOSITORY / "scripts" / f"{name}.py") == 1
    assert told(capsys).startswith("error: out")


def test_a_run_asks_for_its_root_before_it_trains(here, model_folder, speech_folder, full, monkeypatch, capsys):
    command = words(here / "records", model_folder, speech_folder, "logger.mode=off")
    full(2_000, asked=True)
    assert run_here(monkeypatch, *command) == 1
    assert f"{here}/records/" in told(capsys) and not list((here / "records").rglob("config.yaml"))


def test_what_is_needed_is_compared_with_what_is_free(here, model_folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5_000.0}))
    with pytest.raises(UserError, match=r"out needs about .* GB, but its disk has only 5e-06 GB free"):
        quantize_now(str(model_folder), 4, output=here / "out")
    with pytest.raises(UserError, match=r"/synthetic-\w+ needs about 0\.00016 GB"):
        corpus.make(here / "cache", {"train": 2}, 0)
    assert not list(here.iterdir())


def test_a_chapter_of_the_corpus_names_its_folder(here, full):
    (chapter,) = corpus.plan({"train": 1}, 0)
    full(2_000, asked=False)
    with pytest.raises(OSError) as refused:
        corpus.make_chapter(here, chapter)
    assert explain(refused.value) == f"{here / chapter.folder} can't be written: File too large"


def test_an_error_of_a_library_in_rust_is_the_systems(here, full, model_folder):
    """safetensors has no OSError; what it says has the system's number."""
    model, processor = load_packed(quantize_now(str(model_folder), 4, output=here / "packed").folder)
    full(2_000, asked=False)
    with pytest.raises(Exception, match=r"os error 27") as refused:
        model.save_pretrained(here / "again")
    assert explain(refused.value) == "a file can't be written: File too large" and processor is not None


def test_what_others_may_read_is_what_the_umask_says(here, model_folder, monkeypatch):
    monkeypatch.setattr(files, "_UMASK", 0o027)
    before = os.umask(0o027)
    try:
        made = quantize_now(str(model_folder), 4, output=here / "new" / "packed").folder
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [made, *made.iterdir()]}
    assert modes.pop("packed") == "0o750" and "model.safetensors" in modes and set(modes.values()) == {"0o640"}


def test_no_place_for_temporary_files_is_told():
    error = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    assert str(explain(error)).endswith("set TMPDIR to a folder with free space")


def test_a_file_that_cannot_be_read_is_not_called_unwritable(here, monkeypatch):
    path = here / "secret"
    path.touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert explain(PermissionError(13, "Permission denied", str(path))) == f"{path} can't be read: Permission denied"
