"""What the settings of each search must be; needs no torch, so that a mistake in a config is told at once.

The searches check the same in their constructors. Each has its keys in `conf/search/`, under its short name.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from mpq import conf
from mpq.errors import UserError
from mpq.search.allocate import check_candidates, check_target, check_uniform
from mpq.search.assignment import from_json

SHARES = ("tensor", "block", "group")
BITS, CODED = BUDGETS = ("bits", "coded")
"""What target_bits counts: the bits of the codes, or of the codes as they are coded in the file."""


def check_settings(own: str, search: Mapping[str, Any], target: float) -> None:
    """Check the settings of a search in a config, at `own` (dotted), and its `target`, average bits per weight.

    Of a search that `conf/search/` lacks only the candidates are checked; its class does the rest.

    Raises:
        UserError: an unknown setting, or a value that can't be used.
    """
    name = str(search.get("name"))
    declared = conf.read("search", name) if name in _CHECKS else {}
    if declared and search.get("_target_") == declared["_target_"]:
        choices = sorted(declared.keys() - {"name", "_target_"})
        if unknown := [str(key) for key in search if key not in declared]:
            raise UserError(f"there is no setting {own}.{unknown[0]}; {name} has {', '.join(choices) or 'none'}")
        given = {key: search.get(key, declared[key]) for key in choices}
        _CHECKS[name](target, **given)
    elif search.get("candidates") is not None:
        check_target(target, check_candidates(search["candidates"]))


def check_budget(budget: Any, coding: str, searches: Sequence[str]) -> None:
    """Check what the budget of a run's `searches` (short names) counts, in a file with this `coding`.

    Raises:
        UserError: an unknown word, or one that has no effect.
    """
    if budget not in BUDGETS:
        raise UserError(f"budget={budget} must be one of {', '.join(BUDGETS)}")
    if budget == CODED and coding == "none":
        raise UserError("budget=coded needs coding=zstd: with coding=none every code takes its bits")
    if budget == CODED and "penalty" in searches:
        raise UserError("budget=coded can't be had with search=penalty, whose size term counts the bits of the codes")
    if budget == CODED and not set(searches) - {"uniform", "rate"}:
        counted = ", and the target of search=rate is in coded bits anyway" if "rate" in searches else ""
        raise UserError(f"budget=coded is for recipes that choose precisions: this one has none to choose{counted}")


def check_share(share: str) -> str:
    """Return `share`.

    Raises:
        UserError: it is not one of `SHARES`.
    """
    if share not in SHARES:
        raise UserError(f"share={share} must be one of {', '.join(SHARES)}")
    return share


def check_gumbel(
    candidates: Sequence[int],
    temperature: Sequence[float],
    freeze_at: float,
    logit_learning_rate: float,
    hard: bool,
    cotrain: float,
    share: str,
    descend: float | None,
    descend_from: float | None,
    noise: float,
) -> None:
    """Check the settings of `mpq.search.gumbel`, which says what they mean.

    Raises:
        UserError: a value outside its range.
    """
    highest = check_candidates(candidates)[-1]
    _check_learning(temperature, freeze_at, logit_learning_rate)
    if not isinstance(hard, bool):
        raise UserError(f"hard={hard} must be true or false")
    if not _within(cotrain, 0, 1) or cotrain == 1:
        raise UserError(f"cotrain={cotrain} must be a share of the search's updates, at least 0 and below 1")
    if not _within(noise, 0, 1):
        raise UserError(f"noise={noise} must be a factor of the Gumbel noise, from 0 to 1")
    check_share(share)
    if descend is None and descend_from is not None:
        raise UserError(f"descend_from={descend_from} has no effect without descend, a share of the search's updates")
    if descend is not None and (not _within(descend, 0, 1) or descend == 0):
        raise UserError(f"descend={descend} must be null or a share of the search's updates above 0 and at most 1")
    if descend_from is not None and not _within(descend_from, -inf, highest):
        raise UserError(
            f"descend_from={descend_from} must be null or a number of bits up to {highest}, the largest candidate"
        )


def _check_learning(temperature: Sequence[float], freeze_at: float, logit_learning_rate: float) -> None:
    """Check what all searches with learned logits have."""
    pair = list(temperature) if isinstance(temperature, Sequence) and not isinstance(temperature, str) else []
    if len(pair) != 2 or not all(_within(one, 0, inf) for one in pair) or not 0 < pair[1] <= pair[0]:
        raise UserError(f"temperature={pair or temperature} must be two numbers above 0, the second no greater")
    if not _within(freeze_at, 0, 1) or freeze_at == 0:
        raise UserError(f"freeze_at={freeze_at} must be a share of the updates above 0 and at most 1")
    if not _within(logit_learning_rate, 0, inf):
        raise UserError(f"logit_learning_rate={logit_learning_rate} must be a number, 0 or more")


def check_penalty(
    candidates: Sequence[int],
    temperature: Sequence[float],
    freeze_at: float,
    logit_learning_rate: float,
    head_start: float,
    band: float,
    weight: float,
    hard_size: bool,
    share: str,
) -> None:
    """Check the settings of `mpq.search.penalty`, which says what they mean.

    Raises:
        UserError: a value outside its range.
    """
    check_candidates(candidates)
    _check_learning(temperature, freeze_at, logit_learning_rate)
    for name, value in (("head_start", head_start), ("band", band), ("weight", weight)):
        if not _within(value, 0, inf):
            raise UserError(f"{name}={value} must be a number, 0 or more")
    if not isinstance(hard_size, bool):
        raise UserError(f"hard_size={hard_size} must be true or false")
    check_share(share)


def check_band(target: float, candidates: Sequence[int], band: float) -> None:
    """Refuse a band that reaches below what the candidates allow.

    Raises:
        UserError: the target less the band is below the lowest candidate.
    """
    if target - band < check_candidates(candidates)[0]:
        raise UserError(f"band={band} below target_bits={target} reaches under the lowest candidate: choose less")


def check_descent(descend_from: float, target: float) -> None:
    """Refuse a budget that would have to rise.

    Raises:
        UserError: it starts below the target.
    """
    if descend_from < target:
        raise UserError(
            f"descend_from={descend_from} must be at least target_bits={target}: the budget only comes down"
        )


def check_rate(step_learning_rate: float, lowest: float | None) -> None:
    """Check the settings of `mpq.search.rate`, which says what they mean.

    Raises:
        UserError: a value outside its range.
    """
    if not _within(step_learning_rate, 0, inf):
        raise UserError(f"step_learning_rate={step_learning_rate} must be a number, 0 or more")
    if lowest is not None and (not _within(lowest, 0, 8) or lowest == 0):
        raise UserError(f"lowest={lowest} must be null or a number of bits above 0 and at most target_bits")


def check_rate_target(target: float, lowest: float | None) -> None:
    """Refuse a target that codes of 8 bits can't have, whatever the weights, and one below the `lowest` rate.

    Raises:
        UserError: it is not between 0 and 8 bits, or below `lowest`.
    """
    if not 0 < target < 8:
        raise UserError(
            f"target_bits={target} must be above 0 and below 8, the bits of the codes before they are coded"
        )
    if lowest is not None and lowest > target:
        raise UserError(f"lowest={lowest} must be at most target_bits={target}, the highest rate that is trained")


def check_measured(utterances: int | None, share: str, probes: int = 1) -> None:
    """Check the settings of the measured searches besides their candidates; `utterances` None: it needs no audio.

    Raises:
        UserError: a value that can't be used.
    """
    if utterances is not None and (type(utterances) is not int or utterances < 1):
        raise UserError(
            f"utterances={utterances} must be a whole number of 1 or more: sensitivities are measured on them"
        )
    if type(probes) is not int or probes < 1:
        raise UserError(f"probes={probes} must be a whole number of 1 or more")
    check_share(share)


def _uniform(target: float) -> None:
    check_uniform(target)


def _fixed(target: float, assignment: Any) -> None:
    if isinstance(assignment, str) and assignment != "previous":
        from_json(assignment)


def _gumbel(target: float, **given: Any) -> None:
    check_gumbel(**given)
    check_target(target, check_candidates(given["candidates"]))
    if given["descend_from"] is not None:
        check_descent(given["descend_from"], target)


def _penalty(target: float, **given: Any) -> None:
    check_penalty(**given)
    check_target(target, check_candidates(given["candidates"]))
    check_band(target, given["candidates"], given["band"])


def _rate(target: float, step_learning_rate: float, lowest: float | None) -> None:
    check_rate(step_learning_rate, lowest)
    check_rate_target(target, lowest)


def _measured(target: float, candidates: Sequence[int], share: str, utterances: Any = None, probes: Any = 1) -> None:
    check_measured(utterances, share, probes)
    check_target(target, check_candidates(candidates))


def _within(value: Any, low: float, high: float) -> bool:
    """Whether `value` is a number from `low` to `high`, and finite."""
    return type(value) in (int, float) and low <= value <= high and abs(value) < inf


_CHECKS = {
    "fixed": _fixed,
    "gumbel": _gumbel,
    "hessian": _measured,
    "kl": _measured,
    "penalty": _penalty,
    "rate": _rate,
    "uniform": _uniform,
    "weight_error": _measured,
}
