"""scripts/pack.py: one version of the format into the other and back, and what it refuses."""

import runpy
import shutil
import sys

import pytest
from tiny_packed import make_processor, quantized, tiny_model, uneven

from mpq.checkpoint.format import read_declared
from mpq.checkpoint.packed import save_packed
from mpq.compress.convert import convert
from mpq.conf import REPOSITORY
from mpq.errors import UserError


@pytest.fixture
def packed(tmp_path):
    """A folder of version 1 with a processor and a subfolder, whose weights become smaller when coded."""
    model = quantized(uneven(tiny_model("wav2vec2_layer")), (2, 4, 8, 5), "per_channel")
    save_packed(tmp_path / "packed", model, make_processor(tmp_path), coding="none")
    (tmp_path / "packed" / "onnx").mkdir()
    (tmp_path / "packed" / "onnx" / "config.json").write_text("another program's")
    return tmp_path / "packed"


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def version(folder):
    return read_declared(folder)[0]["quantization_config"]["format_version"]


def test_there_and_back_and_there_again(packed, tmp_path):
    before, after = convert(packed, tmp_path / "coded", "zstd")
    assert before > after and (version(packed), version(tmp_path / "coded")) == (1, 2)
    assert convert(tmp_path / "coded", tmp_path / "back", "none") == (after, before)
    assert files(tmp_path / "back") == files(packed)
    convert(tmp_path / "back", tmp_path / "again", "zstd")
    convert(tmp_path / "coded", tmp_path / "same", "zstd")
    assert files(tmp_path / "coded") == files(tmp_path / "again") == files(tmp_path / "same") != files(packed)
    assert files(tmp_path / "coded").keys() == files(packed).keys()


def test_the_script(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pack.py", f"model={packed}", f"output={tmp_path / 'coded'}"])
    runpy.run_path(str(REPOSITORY / "scripts" / "pack.py"), run_name="__main__")
    assert version(tmp_path / "coded") == 2 and f"{tmp_path / 'coded'}  " in capsys.readouterr().out


def test_what_is_refused_leaves_nothing(packed, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    shutil.copytree(packed, tmp_path / "other")
    shutil.copytree(packed, tmp_path / "damaged")
    with open(tmp_path / "damaged" / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    before = files(tmp_path)
    for folder, output, match in [
        (packed, packed, "must not be the folder of the model"),
        (packed, packed / "onnx" / "x", "must not be the folder of the model"),
        (packed, tmp_path / "notes", "is not a packed model"),
        (packed, tmp_path / "other", "overwrite=true replaces it"),
        (tmp_path / "damaged", tmp_path / "new", "damaged or truncated"),
        (tmp_path / "nothing", tmp_path / "new", "is not a folder"),
    ]:
        with pytest.raises(UserError, match=match):
            convert(folder, output, "zstd")
    with pytest.raises(UserError, match="coding=zip must be one of zstd, none"):
        convert(packed, tmp_path / "new", "zip")  # type: ignore[arg-type]
    assert files(tmp_path) == before
    convert(packed, tmp_path / "other", "zstd", overwrite=True)
    assert version(tmp_path / "other") == 2
