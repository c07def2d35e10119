"""The licence that goes from a model's card to the card of what is made from it."""

from pathlib import Path

import pytest
import yaml

from mpq.models.hub import stated_licence
from mpq.quant.quantizer import FLOAT_BITS
from mpq.record.result import Bits, Size
from mpq.report.card import card_without_errors

NOT_STATED = "Licence not stated"


def card_of(licence, base_model=None):
    """Front matter and text of the card of a model made from one with this licence."""
    about = ("mine_3p5bit", licence, "one_stage", base_model, Bits(3.5, 3.5, FLOAT_BITS), Size(8, 28, 9.1, 4, 8.0))
    _, front, text = card_without_errors(*about, {"a": 4}, "CTC", "Measure it.").split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.parametrize(
    "stated",
    [
        {"license": "apache-2.0"},
        {"license": ["mit", "cc-by-4.0"]},
        {"license": "other", "license_name": "house rules", "license_link": "LICENCE"},
    ],
)
def test_what_a_card_states_is_handed_on(tmp_path, stated):
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(stated | {'language': 'en'})}---\n# A model\n")
    assert stated_licence(str(tmp_path)) == stated
    front, text = card_of(stated_licence(str(tmp_path)))
    assert {key: front[key] for key in stated} == stated and NOT_STATED not in text


@pytest.mark.parametrize(
    "readme",
    [None, "", "# A model under the MIT licence\n", "---\nlanguage: en\n---\n", "---\nlicense: other\n---\n",
     "---\nlicense: [\n---\n", "---\njust words\n---\n", b"\xff\xfe---"],
)  # fmt: skip
def test_without_a_statement_none_is_made(tmp_path, readme):
    if readme is not None:
        (tmp_path / "README.md").write_bytes(readme if isinstance(readme, bytes) else readme.encode())
    assert stated_licence(str(tmp_path)) == {}


def test_a_card_says_that_no_licence_is_known():
    front, text = card_of({})
    assert front["license"] == "other" and f"{NOT_STATED}.\n" in text
    assert f"{NOT_STATED}: see the card of someone/theirs," in card_of({}, "someone/theirs")[1]


def test_ours_state_theirs():
    for folder in (Path(__file__).resolve().parents[2] / "mpq" / "models").glob("tiny_*"):
        assert stated_licence(str(folder)) == {"license": "mit"}
