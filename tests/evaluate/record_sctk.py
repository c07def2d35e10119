"""Record what sctk says about made-up hypotheses, so that the tests can compare where it is not installed.

Run `python tests/evaluate/record_sctk.py` from the repository's root with Debian's `sctk` (2.4.10) installed. It
writes `data/mapsswe_<case>.json`: the texts and the figures of `sc_stats`, three decimals, by the commands that stand
in `sctk.py`. The seeds are fixed, so a second run changes nothing.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import sctk
from random_texts import Texts, random_references, recognise

DATA = Path(__file__).parent / "data"
_BY_HAND: dict[str, tuple[str, str, str]] = {
    "s1_insertion_at_the_end_of_first": ("a b c d", "a b c d e", "a b c d"),
    "s1_insertion_at_the_end_of_second": ("a b c d", "a b c d", "a b c d e f"),
    "s1_one_good_word_does_not_end_a_segment": ("a b c d e f g", "a x c y e f g", "a b c d e f g"),
    "s1_two_good_words_end_a_segment": ("a b c d e f g", "a x c d y f g", "a b c d e f z"),
    "s1_insertion_between_good_words": ("a b c d e f", "x b c y d e f", "a b c d e f"),
    "s1_errors_of_both_touch": ("a b c d e f", "a x c d e f", "a b y d e z"),
    "s2_silence": ("", "", ""),
    "s2_first_hears_words_in_silence": ("", "a b", ""),
    "s2_second_hears_words_in_silence": ("", "", "a"),
    "s2_first_hears_nothing": ("a b c d", "", "a b c d"),
    "s2_tie_between_places_of_an_insertion": ("a b c", "a a b c", "a b b c"),
    "s2_substitutions_dearer_than_a_shift": ("a b c d e", "x a b c d", "a b c d e"),
}


def main() -> None:
    DATA.mkdir(exist_ok=True)
    _record("by_hand", *({name: texts[k] for name, texts in _BY_HAND.items()} for k in range(3)))
    for case, (utterances, vocabulary, first_rate, second_rate) in {
        "alike": (60, 300, 0.10, 0.10),
        "worse": (60, 300, 0.25, 0.10),
        "better": (60, 300, 0.05, 0.20),
        "many_ties": (60, 3, 0.30, 0.40),
        "hopeless": (30, 20, 0.90, 0.95),
    }.items():
        rng = np.random.default_rng([utterances, vocabulary, int(100 * first_rate)])
        references = random_references(rng, utterances, vocabulary)
        first = recognise(rng, references, vocabulary, first_rate)
        _record(case, references, first, recognise(rng, references, vocabulary, second_rate))


def _record(case: str, references: Texts, first: Texts, second: Texts) -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = sctk.mapsswe(references, first, second, Path(folder))
    record = {"references": references, "first": first, "second": second, "sc_stats": figures}
    (DATA / f"mapsswe_{case}.json").write_text(json.dumps(record, indent=0) + "\n")


if __name__ == "__main__":
    main()
