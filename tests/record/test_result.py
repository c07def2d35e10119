"""The record: the contract's own fields there and back, and every way in which a file may be broken."""

import copy
import json
import re

import pytest

from mpq.errors import UserError
from mpq.record.result import SCHEMA, CharacterChange, CharacterErrors, Result, from_json
from mpq.record.run_folder import RunFolder, load_records

# Written by hand from the contract, not made by the code under test.
CONTRACT = {
    "schema": 1,
    "exp": "tiny_wav2vec2_3p5bit",
    "seed": 2,
    "scale": "tiny",
    "smoke": False,
    "model": "tiny_wav2vec2",
    "recipe": "one_stage",
    "bits": {"target": 3.5, "average": 3.49, "activations": 32.0},
    "size": {
        "parameters": 1000,
        "ideal_bits": 3720,
        "ideal_ratio": 8.602,
        "file_bytes": 470,
        "file_ratio": 8.51,
    },
    "wer": {"test-clean": {"wer": 5.0, "errors": 5, "words": 100, "utterances": 10}},
    "significance": {
        "test-clean": {
            "baseline": {"exp": "tiny_wav2vec2_fp32", "seed": 0},
            "difference": 1.0,
            "interval": [-0.5, 2.5],
            "z": 0.7,
            "p": 0.48,
        }
    },
    "time": {
        "seconds": 10.5,
        "device_seconds": 21.0,
        "stages": [
            {
                "name": "one_stage",
                "seconds": 10.5,
                "devices": 2,
                "updates": 7,
                "audio_seconds": 99.5,
                "peak_memory_bytes": 12345,
                "resumed": 1,
                "processor_seconds": 8.5,
            }
        ],
    },
    "provenance": {
        "commit": None,
        "dirty": None,
        "command": "python scripts/run.py",
        "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "a CPU", "cores": 2, "memory_bytes": 8, "gpus": ["a GPU", "a GPU"]},
        "data": {"name": "embedded", "hash": "abc", "synthetic": True, "skipped": 0},
        "date": "2026-01-01T00:00:00+00:00",
        "teacher": "0f" * 32,
    },
}


def record() -> Result:
    return from_json(json.dumps(CONTRACT))


def changed(path: str, value: object) -> str:
    content = copy.deepcopy(CONTRACT)
    *way, last = path.split(".")
    place = content
    for key in way:
        place = place[key]
    place[last] = value
    return json.dumps(content)


def test_the_contracts_fields_there_and_back():
    result = record()
    assert json.loads(result.to_json()) == CONTRACT
    assert from_json(result.to_json()) == result
    assert result.significance is not None
    assert result.significance["test-clean"].interval == (-0.5, 2.5)
    assert result.time.stages[0].devices == 2
    assert result.to_json().endswith("}\n")


def test_a_baseline_has_no_significance():
    content = {key: value for key, value in CONTRACT.items() if key != "significance"}
    result = from_json(json.dumps(content))
    assert result.significance is None
    assert "significance" not in json.loads(result.to_json())


def test_fields_added_later_are_passed_over_and_optional_ones_may_be_absent():
    assert from_json(changed("size.embedded_bytes", 3)) == record()
    content = copy.deepcopy(CONTRACT)
    del content["provenance"]["data"]["synthetic"], content["provenance"]["data"]["skipped"]
    del content["time"]["stages"][0]["resumed"], content["time"]["stages"][0]["processor_seconds"]
    del content["provenance"]["teacher"]
    result = from_json(json.dumps(content))
    assert result.provenance.data.synthetic is None
    assert (result.time.stages[0].resumed, result.time.stages[0].processor_seconds) == (0, 0.0)
    assert result.provenance.teacher is None
    assert result.wer["test-clean"].characters is None  # which the contract above has not, nor its file


def test_character_errors_there_and_back():
    content = copy.deepcopy(CONTRACT)
    characters = {"cer": 2.0, "errors": 10, "characters": 500, "interval": [1.5, 2.25]}
    content["wer"]["test-clean"] |= {"characters": characters, "interval": [3.5, 6.5]}
    content["significance"]["test-clean"]["characters"] = {"difference": 0.5, "interval": [-0.25, 1.25]}
    result = from_json(json.dumps(content))
    assert json.loads(result.to_json()) == content
    assert result.wer["test-clean"].characters == CharacterErrors(2.0, 10, 500, (1.5, 2.25))
    assert result.wer["test-clean"].interval == (3.5, 6.5)
    assert result.significance is not None
    assert result.significance["test-clean"].characters == CharacterChange(0.5, (-0.25, 1.25))


def test_whole_numbers_pass_for_floats_and_nan_for_nothing():
    assert from_json(changed("bits.average", 4)).bits.average == 4.0
    with pytest.raises(UserError, match=r"bits\.average must be a finite number"):
        from_json(changed("bits.average", float("nan")))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", True, "seed must be a valid integer, but is True"),
        ("seed", "0", "seed must be a valid integer, but is '0'"),
        ("smoke", 0, "smoke must be a valid boolean, but is 0"),
        ("scale", "huge", "scale must be 'real', 'tiny', 'paper' or 'own', but is 'huge'"),
        ("bits", [], "bits must be an object"),
        ("wer", [], "wer must be an object"),
        ("wer.test-clean", {"wer": 1.0}, r"wer\.test-clean\.errors is missing"),
        ("significance.test-clean.interval", [0.1], r"interval\[1\] is missing"),
        ("significance.test-clean.interval", [0.1, 0.2, 0.3], r"interval: .* at most 2 items .*, but is \[0\.1, 0"),
        ("time.stages", {}, r"time\.stages must be a valid array"),
        ("time.stages", [{"name": 3}], r"time\.stages\[0\]\.name must be a valid string, but is 3"),
        ("provenance.hardware.gpus", ["a", 3], r"gpus\[1\] must be a valid string, but is 3"),
    ],
)
def test_a_wrong_field_is_named(path, value, message):
    with pytest.raises(UserError, match=f"some/result.json.*{message}"):
        from_json(changed(path, value), "some/result.json")


@pytest.mark.parametrize("schema", [0, None, "1", True, 1.0])
def test_an_older_schema_asks_for_a_new_run(schema):
    with pytest.raises(UserError, match="run the experiment again"):
        from_json(changed("schema", schema), "some/result.json")


def test_a_newer_schema_asks_for_an_update():
    with pytest.raises(UserError, match=f"schema {SCHEMA + 1}.*update mpq"):
        from_json(changed("schema", SCHEMA + 1), "some/result.json")


def test_a_truncated_text_is_refused_wherever_it_ends():
    text = record().to_json().rstrip()
    for end in range(0, len(text), 37):
        with pytest.raises(UserError, match=r"some/result\.json is broken or truncated"):
            from_json(text[:end], "some/result.json")
    for other in ("[]", "3", "null"):
        with pytest.raises(UserError):
            from_json(other)


def test_records_are_found_at_any_depth(tmp_path):
    first = record()
    path = RunFolder.of(tmp_path, first).write(first)
    assert path == RunFolder(tmp_path, first.exp, first.seed).path / "result.json"
    nested = RunFolder.of(tmp_path / "local" / "of_mine", first).write(first)
    assert load_records(tmp_path) == [first, first]
    assert [file.name for file in nested.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"copy_of_it.*is the record of tiny_wav2vec2_3p5bit/seed2"),
        (b"{", r"copy_of_it.*truncated"),
        (b"\xff", r"copy_of_it.*can't be read"),
    ],
)
def test_a_bad_record_is_named_and_left_out(tmp_path, caplog, content, reason):
    path = RunFolder.of(tmp_path, record()).write(record())
    moved = RunFolder.at(tmp_path / "copy_of_it" / "seed2")
    moved.path.mkdir(parents=True)
    moved.result.write_bytes(path.read_bytes() if content is None else content)
    assert load_records(tmp_path) == [record()]
    assert re.search(f"left out: .*{reason}", caplog.text)
    with pytest.raises(UserError, match=reason):
        moved.read()


def test_a_missing_root_and_an_empty_one(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*none; .*scripts/run\.py"):
        load_records(tmp_path / "none")
    assert load_records(tmp_path) == []


def test_a_record_without_packed_bytes_is_of_a_packed_file_and_stays_as_it_is():
    size = record().size
    assert (size.packed, size.packed_ratio, size.coded, size.coded_ratio) == (470, 8.51, None, None)
    assert json.loads(record().to_json())["size"] == CONTRACT["size"]


def test_a_coded_file_has_both_sizes():
    size = {**CONTRACT["size"], "file_bytes": 400, "file_ratio": 10.0, "packed_bytes": 470}
    coded = from_json(changed("size", size))
    assert json.loads(coded.to_json())["size"] == size
    assert (coded.size.packed, coded.size.coded, coded.size.coded_ratio) == (470, 400, 10.0)
    assert coded.size.packed_ratio == pytest.approx(4000 / 470)
