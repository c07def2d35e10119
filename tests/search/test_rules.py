"""The rules for the settings of searches, told without torch, are those of the searches themselves."""

import inspect

import numpy as np
import pytest
from hydra.utils import get_class

from mpq import conf
from mpq.errors import UserError
from mpq.search.rules import check_settings

NAMES = conf.names("search")
VALUES = {
    "candidates": [[2, 4, 8], [4], [2, 2], [0, 4], [], "4", 4, [1, 2, 3, 4, 5, 6, 7, 8]],
    "temperature": [[1.0, 0.1], [2, 2], [0.1, 1.0], [1.0, 0.0], [1.0], "hot", 1],
    "freeze_at": [0.5, 1, 0, 1.5, -1, "half"],
    "logit_learning_rate": [0.05, 0, -1, "fast"],
    "hard": [True, False, "yes"],
    "cotrain": [0.0, 0.5, 1, -0.1, "some"],
    "share": ["tensor", "block", "group", "layer"],
    "descend": [0.5, None, 1, 0, 2, True],
    "descend_from": [None, 8, 4.5, 1, 9, "top"],
    "head_start": [0.02, 0, -1, "ahead"],
    "band": [0.1, 0, 1.5, -0.1, "broad"],
    "weight": [0.1, 0, -1, "heavy"],
    "hard_size": [True, False, "yes"],
    "noise": [1.0, 0, 0.25, 2, -1, "loud"],
    "step_learning_rate": [0.01, 0, -1, "fast"],
    "lowest": [None, 0.5, 3.5, 0, 8, 9, "all"],
    "utterances": [32, 1, 0, -1, 1.5],
    "probes": [32, 1, 0, -1, 1.5],
}
TARGETS = [1, 2, 3.5, 4, 8, 9]


def refusal(call):
    try:
        call()
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_file_declares_what_its_class_takes_and_its_values_pass(name):
    declared = conf.read("search", name)
    kind = get_class(declared["_target_"])
    takes = set(inspect.signature(kind).parameters) - {"args", "kwargs"}  # those of a class without a constructor
    assert declared.keys() - {"name", "_target_"} == takes
    values = {key: 32 if str(value).startswith("${") else value for key, value in declared.items()}
    check_settings("search", values, 4)
    with pytest.raises(UserError, match=r"there is no setting search\.heat"):
        check_settings("search", values | {"heat": 1}, 4)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"fixed"}))
def test_they_refuse_exactly_what_the_class_refuses_in_the_same_words(name):
    declared = conf.read("search", name)
    kind = get_class(declared["_target_"])
    keys = sorted(declared.keys() - {"name", "_target_"})
    defaults = {key: VALUES[key][0] for key in keys}
    seed = int(np.random.default_rng().integers(2**31))
    print("seed:", seed)
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(600):
        given = dict(defaults)
        for key in rng.permutation(keys)[: rng.integers(3)]:
            given[key] = VALUES[key][rng.integers(len(VALUES[key]))]
        target = TARGETS[rng.integers(len(TARGETS))]
        ours = refusal(lambda: check_settings("search", {**declared, **given}, target))  # noqa: B023
        own = refusal(lambda: kind(**given)) or refusal(lambda: kind.check_budget(target, given))  # noqa: B023
        assert ours == own, (given, target)
        refused += ours is not None
    assert 60 < refused < 600


def test_an_assignment_that_is_not_there_is_told(tmp_path):
    settings = conf.read("search", "fixed")
    with pytest.raises(UserError, match="cannot read the assignment"):
        check_settings("search", settings | {"assignment": str(tmp_path / "bits.json")}, 4)


def test_of_a_search_elsewhere_the_candidates_are_checked():
    mine = {"_target_": "mine.Search", "name": "gumbel", "candidates": [2, 4], "heat": 1}
    check_settings("search", mine, 3)
    with pytest.raises(UserError, match="target_bits=5 must be between 2 and 4"):
        check_settings("search", mine, 5)
