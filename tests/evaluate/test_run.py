from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpq.data.librispeech import Utterance
from mpq.errors import UserError
from mpq.evaluate.run import compare_sets, references_of, score
from mpq.record.result import Baseline, CharacterErrors, Units

READER: Any = SimpleNamespace(scored=str.upper)  # as of a model with capital letters
SAID = {"clean": {"1-1-0": "a test of it", "2-1-0": "the kind"}, "other": {"3-1-0": "twice"}}
SETS = {
    name: [Utterance(id, name, id.split("-")[0], Path(id), text, 1.0) for id, text in texts.items()]
    for name, texts in SAID.items()
}


def test_references_are_of_what_was_transcribed():
    hypotheses = {"clean": {"2-1-0": "THE KIND"}, "other": {"3-1-0": ""}}
    heard = {name: [u for u in utterances if u.id in hypotheses[name]] for name, utterances in SETS.items()}
    references = references_of(heard, READER)
    assert references == {"clean": {"2-1-0": "THE KIND"}, "other": {"3-1-0": "TWICE"}}
    scores = score(references, hypotheses, SETS)
    assert (scores["clean"].wer, scores["clean"].words) == (0.0, 2)
    assert (scores["other"].wer, scores["other"].errors, scores["other"].utterances) == (100.0, 1, 1)
    units = Units("speaker", {"2": (0, 8)})
    assert scores["clean"].characters == CharacterErrors(0.0, 0, 8, None, units)  # of one speaker
    said = {f"{k % 6}-1-{k}": "AB CD" for k in range(18)}
    heard = {key: "AB C" * (k % 5 > 0) for k, key in enumerate(said)}
    utterances = [Utterance(key, "x", key.split("-")[0], Path(key), text, 1.0) for key, text in said.items()]
    (mixed,) = score({"x": said}, {"x": heard}, {"x": utterances}).values()
    for rate, (low, high) in ((mixed.wer, mixed.interval), (mixed.characters.cer, mixed.characters.interval)):
        assert low < rate < high
    assert mixed.units.kind == "speaker" and sum(words for _, words in mixed.units.counts.values()) == mixed.words == 36
    assert sum(errors for errors, _ in mixed.units.counts.values()) == mixed.errors


def test_the_difference_is_system_minus_baseline():
    good = {name: {id: text.upper() for id, text in texts.items()} for name, texts in SAID.items()}
    bad = {"clean": {"1-1-0": "A TEST", "2-1-0": "THE KIND"}, "other": {"3-1-0": "TWICE"}}
    references = references_of(SETS, READER)
    verdicts = compare_sets(Baseline("fp32", 0), references, good, bad, SETS)
    assert verdicts["clean"].difference == pytest.approx(100 * 2 / 6)
    assert verdicts["other"].difference == 0.0
    assert verdicts["clean"].characters.difference == pytest.approx(100 * 6 / 20)
    assert verdicts["other"].interval is None and verdicts["other"].characters.interval is None  # one speaker
    assert verdicts["clean"].change == {"1-1-0": 2, "2-1-0": 0}  # two speakers: by utterance
    assert verdicts["clean"].baseline == Baseline("fp32", 0)
    mirrored = compare_sets(Baseline("fp32", 0), references, bad, good, SETS)
    assert mirrored["clean"].difference == pytest.approx(-100 * 2 / 6)
    assert mirrored["clean"].z == pytest.approx(-verdicts["clean"].z)


def test_a_baseline_without_a_set_is_told():
    good = {name: {id: text.upper() for id, text in texts.items()} for name, texts in SAID.items()}
    references = references_of(SETS, READER)
    with pytest.raises(UserError, match="was not evaluated on other; run it again with overwrite=true"):
        compare_sets(Baseline("fp32", 0), references, {"clean": good["clean"]}, good, SETS)
