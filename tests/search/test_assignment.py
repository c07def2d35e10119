import json

import pytest
from examples import sites_of

from mpq.errors import UserError
from mpq.search.assignment import average_bits, check, from_json, to_json

SITES = sites_of([10, 30])


def test_average_is_weighted_by_parameters():
    assert average_bits({"layers.0.weight": 8, "layers.1.weight": 2}, SITES) == 3.5


def test_json_round_trip(tmp_path):
    assignment = {"layers.1.weight": 4, "layers.0.weight": 2}
    to_json(assignment, tmp_path / "new" / "bits.json")
    assert from_json(tmp_path / "new" / "bits.json") == assignment
    assert list(from_json(tmp_path / "new" / "bits.json")) == list(assignment)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ({"layers.0.weight": 2}, "no bits for these sites of the model: layers.1.weight"),
        ({"layers.0.weight": 2, "layers.1.weight": 2, "x": 4}, "does not have: x"),
        ({"layers.0.weight": 3, "layers.1.weight": 2}, r"candidates \[2, 4, 8\]: layers.0.weight=3"),
        ({"layers.0.weight": True, "layers.1.weight": 2}, "layers.0.weight=True"),
    ],
)
def test_a_wrong_assignment_is_refused_by_name(assignment, message):
    with pytest.raises(UserError, match=message):
        check(assignment, SITES, [1, 2] if assignment["layers.0.weight"] is True else [2, 4, 8])


def test_many_wrong_names_are_cut_short():
    with pytest.raises(UserError, match=r"layers.4.weight and 15 more$"):
        check({}, sites_of([1] * 20))


@pytest.mark.parametrize("text", ["[1]", '{"a": 2.0}', '{"a": "4"}', '{"a": true}', "{", "\xff"])
def test_a_file_that_is_no_assignment_is_refused(tmp_path, text):
    path = tmp_path / "bits.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"bits\.json"):
        from_json(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        from_json(tmp_path / "bits.json")


def test_what_is_written_is_plain_json(tmp_path):
    to_json({"a": 4}, tmp_path / "bits.json")
    assert json.loads((tmp_path / "bits.json").read_text()) == {"a": 4}
