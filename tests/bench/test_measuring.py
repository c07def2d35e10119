"""Rounds, ratios, options, records: everything around what is measured."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mpq import cli
from mpq.bench import inference, measuring, record
from mpq.bench.measuring import Times, compared, interleave, spread
from mpq.bench.models import file_bytes
from mpq.errors import UserError


@dataclass(frozen=True)
class Options:
    """Some options."""

    model: str = "tiny"
    seconds: tuple[float, ...] = (5.0, 20.0)
    rounds: int = 3
    output: str = "nowhere"


def test_a_spread_is_median_and_quartiles():
    values = np.random.default_rng().random(101)
    found = spread(values)
    ordered = np.sort(values)
    assert (found.low, found.median, found.high) == pytest.approx((ordered[25], ordered[50], ordered[75]))


def test_every_system_is_called_once_a_round_after_one_unmeasured_call():
    calls = []
    times = interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=4)
    assert calls[:3] == ["a", "b", "c"]
    rounds = [calls[start : start + 3] for start in range(3, 15, 3)]
    assert len(calls) == 15 and all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert all(len(time.wall) == len(time.processor) == 4 and (time.wall > 0).all() for time in times.values())


def test_a_ratio_is_taken_within_its_round():
    """A disturbance that slows a whole round leaves every ratio as it is."""
    pace = np.random.default_rng().uniform(1, 50, size=9)
    times = {"slow": Times(3 * pace, 6 * pace), "fast": Times(pace, pace)}
    found = compared(times, "slow")
    assert found["slow"]["ratio"] == {"median": 1, "low": 1, "high": 1}
    assert found["fast"]["ratio"] == pytest.approx(dict.fromkeys(("median", "low", "high"), 1 / 3))
    assert found["fast"]["processor_ratio"]["median"] == pytest.approx(1 / 6)
    assert found["fast"]["seconds"]["median"] == np.median(pace)


def test_options_are_read_by_the_type_of_their_defaults():
    found = cli.read(Options, ["seconds=1,2.5", "rounds=7", "model=base"])
    assert found == Options("base", (1.0, 2.5), 7)
    shown = cli.help_text(Options, Options.__doc__, "python x.py")
    assert "rounds=3" in shown and "Some options." in shown


@pytest.mark.parametrize("word", ["rounds=many", "rounds=-1", "seconds=1,x", "nonsense=1", "rounds", "seconds="])
def test_a_wrong_option_is_refused_by_name(word):
    with pytest.raises(UserError, match=word):
        cli.read(Options, [word])


def test_a_record_comes_back_and_its_page_names_every_system(tmp_path):
    rows = [
        {"system": "first", "ratio": {"median": 0.5, "low": 0.25, "high": 0.75}, "file_bytes": 2_500_000},
        {"system": "second", "problem": "absent: it is not installed"},
    ]
    path = record.write("inference", Options(output=str(tmp_path)), rows, "inference_tiny")
    found = record.read(path)
    assert found["rows"] == rows and found["options"]["rounds"] == 3
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert {"commit", "command", "hardware", "versions", "date"} <= set(found)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"at a load of {found['load']:.1f} (" in page
    assert "| first | 0.5 (0.25–0.75) | 2.5 |" in page and "- second: absent: it is not installed" in page


def test_a_record_is_named_by_bench_model_and_label():
    assert record.name("growth", object()) == "growth"
    cli = inference.Options(model="tiny")
    assert record.name("inference", cli) == "inference_tiny"
    assert record.name("inference", replace(cli, label="20s")) == "inference_tiny_20s"


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"schema": 99, "rows": []})])
def test_a_broken_record_is_refused_by_name(tmp_path, text):
    (tmp_path / "old.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"old\.json"):
        record.write_page(tmp_path)


def test_the_size_of_a_folder_is_that_of_its_weights(tmp_path):
    for name, size in (("model.safetensors", 70), ("model.onnx", 5), ("vocab.json", 900)):
        (tmp_path / name).write_bytes(bytes(size))
    assert file_bytes(tmp_path) == 75 and file_bytes(tmp_path / "vocab.json") == 900


def test_a_missing_library_is_named_with_what_installs_it():
    assert "brevitas" in inference.why(ModuleNotFoundError("gone", name="brevitas"))
    assert "[bench]" in inference.why(ModuleNotFoundError())
    assert inference.why(ValueError("no such mode\nmore")) == "ValueError: no such mode"
    assert inference.why(ImportError("no x in y (/home/me/y.py)")) == "ImportError: no x in y (<path>)"


@pytest.mark.skipif(measuring.resident_bytes() is None, reason="this system tells no memory")
def test_resident_memory_grows_by_what_is_held():
    before = measuring.resident_bytes()
    held = np.ones(64 * 2**20, dtype=np.uint8)
    assert measuring.resident_bytes() - before == pytest.approx(held.nbytes, rel=0.1)
    assert measuring.resident_bytes("VmHWM") >= measuring.resident_bytes()
