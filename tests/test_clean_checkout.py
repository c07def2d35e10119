"""What our commands write leaves a checkout clean: else the next record would say that its code was changed."""

import re
import runpy
import shlex
import subprocess
from dataclasses import MISSING, fields

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


# What the commands of our pages write in a checkout by default. A command that is missing here fails the test.
RUN = ("experiments/local/x/seed0/result.json", ".cache/synthetic-0/x.flac", ".cache/multirun.yaml")
SCRIPTS = {
    "bench": ("experiments/local/bench/x.json", ".cache/synthetic-0/x.flac"),
    "costs": (),
    "dashboard": (),
    "evaluate": (".cache/synthetic-0/x.flac",),
    "export": ("quantized/x/onnx/model_speed.onnx", "experiments/x/seed0/model/onnx/model_speed.onnx"),
    "figures": ("experiments/figures/x.png",),
    "overview": ("experiments/README.md",),
    "pack": (),
    "prepare": ("data/LibriSpeech/dev-clean", "data/.download/x.tar.gz", ".cache/synthetic-0/x.flac"),
    "quantize": ("quantized/x/model.safetensors", *RUN),
    "rebudget": ("quantized/x/model.safetensors", *RUN),
    "report": ("experiments/report.html", "experiments/x/seed0/report.html"),
    "run": (*RUN, "experiments/x/seed0/result.json"),
    "sizes": ("experiments/paper_sizes.json",),
    "sweep": (*RUN, "experiments/x/seed0/failed.log", ".submitit/x/x.out"),
    "tables": (),
    "transcribe": (),
}
OTHERS = {  # by their first words
    "make": (".venv/installed", ".cache/synthetic-0/x.flac", ".pytest_cache/x", "mpq/__pycache__/x.pyc", RUN[0]),
    "pip install": (),
    "pip wheel": ("wheels/x.whl",),
    "python -m pytest": (".pytest_cache/x", "tests/__pycache__/x.pyc"),
    "python -c": (),
    "hf download": (),
    "conda env create": (),
    "jupyter lab": ("notebooks/.ipynb_checkpoints/tables-checkpoint.ipynb",),
}
PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/*.md"), *REPOSITORY.glob("mpq/*/README.md")]
PAGES += REPOSITORY.glob("experiments/bench/*.md")
_LED = r"^(?:[A-Z_]+=\w+ )*(?:\.venv/bin/)?(?=(?:python|make|pip|hf|conda|jupyter) )"
_ARGUMENTS = ("output=", "root=", "cache=")


def commands():
    """Each command in the code of our pages, as a list of words; the log names scripts of other times."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", "") if page.name != "LOG.md" else ""
        blocks = "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        for line in [*blocks.splitlines(), *re.findall(r"`([^`\n]+)`", text)]:
            for part in line.split("&&"):
                if re.match(_LED, part.strip()):
                    yield shlex.split(re.sub(_LED, "", part.strip()), comments=True)


def outputs(command):
    """The files that a command writes: of the tables above, and what it names itself unless that is a FOLDER."""
    own = [word.partition("=")[2] for word in command if word.startswith(_ARGUMENTS)]
    own = [f"{path}/x" if "." not in path else path for path in own if not re.match("[A-Z<$/]", path)]
    script = re.fullmatch(r"scripts/(\w+)\.py", command[1]) if len(command) > 1 else None
    if script:
        return [*SCRIPTS[script[1]], *own]
    (found,) = [paths for words, paths in OTHERS.items() if " ".join(command).startswith(words)]
    return [*found, *own]


def dirty(folder, path):
    ignored = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=folder, check=False).returncode == 0
    return not ignored and not path.startswith("experiments/")  # records are what a checkout is for


def test_no_command_of_our_pages_writes_where_git_would_see_a_change(checkout):
    found = list(commands())
    assert len(found) > 80 and {command[0] for command in found} >= {"python", "make", "pip", "hf", "conda", "jupyter"}
    left = {path: command for command in found for path in outputs(command) if dirty(checkout, path)}
    assert left == {}
    assert dirty(checkout, "model_speed.bin")


def test_every_script_is_in_the_table_with_its_default_outputs():
    assert {path.stem for path in (REPOSITORY / "scripts").glob("*.py")} == {*SCRIPTS}
    for name, paths in SCRIPTS.items():
        options = runpy.run_path(str(SCRIPT.with_name(f"{name}.py"))).get("Options")
        for one in fields(options) if options else ():
            stated = one.name in ("output", "cache") and one.default is not MISSING
            default = str(one.default) if stated else "None"
            assert default == "None" or any(path.startswith(default) for path in paths), (name, one.name, default)
