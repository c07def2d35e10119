"""The one reader of command lines, and the help of every script."""

import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mpq import commands
from mpq.bench.options import BENCHES
from mpq.cli import command, help_text, option, others, positional, read, required
from mpq.conf import REPOSITORY
from mpq.errors import UserError

SCRIPTS = sorted(path.stem for path in (REPOSITORY / "scripts").glob("*.py"))


@dataclass(frozen=True)
class Plain:
    """Every type."""

    name: str = required("what it is called")
    rate: float = option(0.5, "how much")
    count: int = option(3, "how many")
    last_count: int | None = option(None, "how many at last")
    fast: bool = option(False, "in a hurry")
    careful: bool = option(True, "with care")
    folder: Path = option(Path("here"), "where")
    kind: Literal["red", "green"] = option("red", "which colour")
    shares: tuple[float, float] = option((0.25, 1.0), "from, to")
    sizes: tuple[int, ...] = option((1, 2), "which sizes")
    sets: tuple[str, ...] = option((), "which sets")
    label: str = option("", "ends the name")


@dataclass(frozen=True)
class Files:
    """Files, and a few keys."""

    audio: tuple[Path, ...] = positional("files")
    model: str | None = option(None, "which model")
    json: bool = option(False, "as JSON")
    chunk_seconds: float = option(30.0, "long")


@dataclass(frozen=True)
class Choice:
    """One word, and a key."""

    data: Literal["large", "small"] = positional("which data")
    splits: tuple[str, ...] = option((), "which splits")


@dataclass(frozen=True)
class Rest:
    """Keys, and whatever else there is."""

    table: str = option("all", "which table")
    list: bool = option(False, "only names")
    word: tuple[str, ...] = others("passed on")


def fresh():
    """Random values of every type, and the words that write them."""
    rng = np.random.default_rng()
    name = "".join(rng.choice(list("abcé =,'\"-$"), 12)).lstrip("~") + "x"
    found = Plain(
        name=name,
        rate=float(rng.random()),
        count=int(rng.integers(1000)),
        last_count=int(rng.integers(1000)),
        fast=bool(rng.random() < 0.5),
        careful=bool(rng.random() < 0.5),
        folder=Path(f"a b/{rng.integers(1000)}=ü"),
        kind=str(rng.choice(["red", "green"])),  # pyright: ignore[reportArgumentType]
        shares=(float(rng.random()), float(rng.random() * 1e-7)),
        sizes=tuple(map(int, rng.integers(1000, size=rng.integers(1, 5)))),
        sets=tuple(f"set-{k}" for k in rng.integers(1000, size=rng.integers(1, 5))),
        label=f"{rng.integers(1000)}",
    )
    return found, {one.name: written(getattr(found, one.name)) for one in fields(found)}


def written(value):
    if isinstance(value, tuple):
        return ",".join(map(written, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_values_of_every_type_come_back_in_any_order_and_spelling():
    for _ in range(50):
        options, values = fresh()
        spellings = (
            lambda key, value: [f"{key}={value}"],
            lambda key, value: [f"{key.replace('_', '-')}={value}"],
            lambda key, value: [f"--{key.replace('_', '-')}={value}"],
            lambda key, value: [f"--{key}", value] if not value.startswith("--") else [f"{key}={value}"],
        )
        rng = np.random.default_rng()
        pairs = list(values.items())
        groups = [spellings[rng.integers(4)](*pairs[k]) for k in rng.permutation(len(pairs))]
        # A tuple takes the words after it, too: nothing without a key follows here.
        assert read(Plain, [word for group in groups for word in group]) == options


def test_what_is_not_given_has_its_default_and_the_last_word_counts():
    assert read(Plain, ["name=x"]) == Plain("x")
    assert read(Plain, ["name=x", "count=5", "--count", "7"]) == Plain("x", count=7)
    assert read(Plain, ["name=x", "sets=", "label=", "last_count="]) == Plain("x")
    assert read(Plain, ["name=x", "folder=~/y"]).folder == Path.home() / "y"


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--fast"], {"fast": True}),
        (["--fast", "--careful", "false"], {"fast": True, "careful": False}),
        (["fast=True", "careful=FALSE"], {"fast": True, "careful": False}),
        (["--fast", "kind=green"], {"fast": True, "kind": "green"}),
        (["--sets", "a", "b", "--sizes", "3", "4", "5"], {"sets": ("a", "b"), "sizes": (3, 4, 5)}),
        (["--sets=a,b", "--last-count=4"], {"sets": ("a", "b"), "last_count": 4}),
    ],
)
def test_habits_mean_the_same(words, changes):
    assert read(Plain, ["name=x", *words]) == replace(Plain("x"), **changes)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name= must be given; --help says more"),
        (["name="], "name= must be a name"),
        (["rate=much"], "rate=much must be a number of 0 or more, such as rate=0.5"),
        (["rate=-1"], "rate=-1 must be a number"),
        (["rate=nan"], "rate=nan must be a number"),
        (["rate=inf"], "rate=inf must be a number of 0 or more, such as rate=0.5; for no limit, write a large one"),
        (["count=1.5"], "count=1.5 must be a whole number of 0 or more, such as count=3"),
        (["last_count=x"], "last_count=x must be a whole number of 0 or more"),
        (["fast=1"], "fast=1 must be true or false"),
        (["folder="], "folder= must be a path, such as folder=here"),
        (["kind=blue"], "kind=blue must be one of red, green"),
        (["shares=1"], "shares=1 must be 2 numbers of 0 or more separated by commas, such as shares=0.25,1"),
        (["sizes=1,x"], "sizes=1,x must be whole numbers of 0 or more separated by commas, such as sizes=1,2"),
        (["sizes="], "sizes= must be whole numbers"),
        (["sets=a,,b"], "sets=a,,b must be names separated by commas"),
        (["nmae=x"], "unknown argument 'nmae=x'; the arguments are name=, rate=, count=, last_count=, fast="),
        (["--nmae", "x"], "unknown argument '--nmae'; the arguments are name="),
        (["word"], "unknown argument 'word'; the arguments are name="),
        (["name"], "'name' has no value: write name=VALUE"),
        (["--name"], "--name has no value: write name=VALUE"),
        (["--name", "--fast"], "--name has no value: write name=VALUE"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(words, sentence):
    with pytest.raises(UserError) as refused:
        read(Plain, words)
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)


def test_all_that_is_missing_is_named():
    with pytest.raises(UserError, match=re.escape("AUDIO ... must be given; --help says more")):
        read(Files, ["model=x"])
    with pytest.raises(UserError, match=re.escape("large|small must be given")):
        read(Choice, [])


def test_files_are_words_without_a_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["a.wav", "--json", "b c.flac", "model=x", "json", "--chunk-seconds", "7", "./model=y.wav", "d/e=f.wav"]
    files = ("a.wav", "b c.flac", "json", "model=y.wav", "d/e=f.wav")
    assert read(Files, words) == Files(tuple(map(Path, files)), "x", True, 7.0)
    for word in ("a=b.wav", "--a=b.wav", "-a.wav", ""):
        sentence = f"unknown argument {word!r}; the arguments are AUDIO ..., model="
        with pytest.raises(UserError, match=re.escape(sentence)):
            read(Files, ["x.wav", word])
    Path("a=b.wav").touch()
    Path("model=b.wav").touch()
    assert read(Files, ["a=b.wav", "model=b.wav"]) == Files((Path("a=b.wav"),), "b.wav")


def test_one_word_of_several():
    assert read(Choice, ["small", "--splits", "a", "b"]) == Choice("small", ("a", "b"))
    assert read(Choice, ["splits=a", "large"]) == Choice("large", ("a",))
    for words in (["medium"], ["small", "large"], ["x=small"]):
        with pytest.raises(UserError, match=re.escape(f"{words[-1]!r}; the arguments are large|small, splits=")):
            read(Choice, words)


def test_other_words_are_passed_on_as_they_are():
    words = ["hydra/launcher=joblib", "--list", "+data.root=a b", "~logger", "table=x", "--multirun", "model-x=1"]
    assert read(Rest, words) == Rest("x", True, tuple(words[k] for k in (0, 2, 3, 5, 6)))


def test_the_help_shows_every_key_with_its_default():
    for kind in (Plain, Files, Choice, Rest):
        shown = help_text(kind, "What it does.\n\nWhat else there is.\n", "python scripts/x.py")
        first, usage, keys, last = shown.split("\n\n")
        assert (first, last) == ("What it does.", "What else there is.")
        assert usage.startswith("usage: python scripts/x.py ")
        assert all(len(line) <= 120 for line in shown.splitlines())
        lines = keys.splitlines()
        for one in fields(kind):
            assert any(one.metadata["text"] in line for line in lines)
    assert "\n  name=          what it is called (required)\n" in help_text(Plain, "", "x")
    assert "\n  shares=0.25,1  from, to\n" in help_text(Plain, "", "x")
    assert "usage: x name=... [key=value ...]" in help_text(Plain, "", "x")
    assert "usage: x AUDIO ... [key=value ...]" in help_text(Files, "", "x")
    assert "usage: x large|small [key=value ...]" in help_text(Choice, "", "x")
    assert "usage: x [key=value ...] [WORD ...]" in help_text(Rest, "", "x")


def test_a_command_reads_its_words_or_those_of_the_process(monkeypatch, capsys):
    main = command(Rest)(lambda options: options.table)
    assert main(["table=x"]) == "x"
    monkeypatch.setattr(sys, "argv", ["x.py", "table=y"])
    assert main() == "y"
    assert main(["table=y", "-h"]) is None
    assert capsys.readouterr().out.startswith("The one reader of command lines") and main([]) == "all"


ASKING = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    assert not stop.code
assert not {"torch", "transformers", "lightning", "pandas", "matplotlib"} & set(sys.modules), sys.argv
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_at_hand_at_once(name, tmp_path):
    """Nothing heavy is imported for it, and every key is there."""
    script = str(REPOSITORY / "scripts" / f"{name}.py")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}

    def asked(*words):
        run = [sys.executable, "-c", ASKING, script, *words]
        return subprocess.run(run, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout

    for word in ("--help", "-h"):
        shown = asked(word)
        assert "key=value" in shown
    if name == "bench":
        for bench, kind in BENCHES.items():
            assert bench in shown
            check(asked(bench, "--help"), kind)
    elif name != "run":  # whose help is Hydra's
        kind = runpy.run_path(script)["Options"]
        assert f"usage: python scripts/{name}.py" in shown
        check(shown, kind)


def check(shown, kind):
    for one in fields(kind):
        if one.metadata.get("role", "key") == "key":
            assert re.search(rf"^  {one.name}=\S*( |$)", shown, re.M), one.name
            assert one.metadata["text"].split()[0] in shown


def test_a_printed_command_is_what_was_meant():
    """In a shell, and for `run.py` in Hydra's grammar as well."""
    rng = np.random.default_rng()
    for _ in range(20):
        value = "a" + "".join(rng.choice(list("abé =,'\"-\\()[]{}#;&|<>*?!~"), rng.integers(1, 15)))
        line = commands.script("run", commands.setting("data.root", value), f"model={value}")
        typed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
        python, path, setting, word = typed.stdout.splitlines()
        assert [python, path, word] == ["python", "scripts/run.py", f"model={value}"]
        (override,) = OverridesParser.create().parse_overrides([setting])
        assert override.key_or_group == "data.root" and override.value() == value, setting
    plain = commands.script("run", "+exp=a", commands.setting("root", "b/c-d.e"))
    assert plain == "python scripts/run.py +exp=a root=b/c-d.e"
