"""What the settings of training must be; needs no torch, so that a mistake in a config is told at once.

The classes that take these settings check the same.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

from mpq.errors import UserError
from mpq.quant.rules import check_compile

TRANSCRIPTS, TEACHER = "transcripts", "teacher"
"""The choices of `data.labels`."""
# Not Lightning's bf16-true, 16-true and 64-true: they convert every weight and scale, but the packed format is float32.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_SHORT = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # Lightning's own short names
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_LOWEST_WHOLE = {"updates": 0, "interval": 1, "accumulate": 1, "workers": 0}
_NOT_NEGATIVE = ("learning_rate", "scale_learning_rate", "weight_decay", "warmup", "decay", "clip", "pad_seconds")


def check_labels(labels: str) -> None:
    """Raise UserError unless `data.labels` is one of the two choices."""
    if labels not in (TRANSCRIPTS, TEACHER):
        raise UserError(f"data.labels={labels} must be {TRANSCRIPTS} (the corpus's own) or {TEACHER} (written by it)")


def check_optimization(given: Mapping[str, Any]) -> None:
    """Check the settings of `mpq.train.optimization.Optimization`, by name.

    Raises: UserError for an invalid value.
    """
    for name, lowest in _LOWEST_WHOLE.items():
        value = given[name]
        if type(value) is not int or value < lowest:
            raise UserError(f"{_key(name)}={value} must be a whole number, {lowest} or more")
    for name in (*_NOT_NEGATIVE, "audio_seconds"):
        value = given[name]
        if type(value) not in (int, float) or not 0 <= value < inf or (name == "audio_seconds" and value == 0):
            rule = "above 0" if name == "audio_seconds" else "0 or more"
            raise UserError(f"{_key(name)}={value} must be a number, {rule}")
    for name in ("dropout", "train_feature_encoder"):
        if type(given[name]) is not bool:
            raise UserError(f"{_key(name)}={given[name]} must be true or false")
    if given["warmup"] + given["decay"] > 1:
        raise UserError(
            f"trainer.warmup={given['warmup']} and trainer.decay={given['decay']} are shares of the updates: their "
            "sum must be at most 1"
        )


def _key(name: str) -> str:
    return f"data.{name}" if name == "workers" else f"trainer.{name}"


def check_loss(ctc_weight: Any, kl_weight: Any, temperature: Any, has_teacher: bool) -> None:
    """Check the settings of `mpq.train.loss.Loss`.

    Raises: UserError for a negative weight, two weights of zero, a temperature that is not positive, or a
    `kl_weight` without a teacher.
    """
    numbers = all(type(value) in (int, float) for value in (ctc_weight, kl_weight, temperature))
    if not (numbers and min(ctc_weight, kl_weight) >= 0 and 0 < ctc_weight + kl_weight < inf and temperature > 0):
        raise UserError(
            f"distill.ctc_weight={ctc_weight} and distill.kl_weight={kl_weight} must be 0 or more and not both 0, "
            f"and distill.temperature={temperature} must be a positive number"
        )
    if kl_weight > 0 and not has_teacher:
        raise UserError("distill.kl_weight must be 0 if there is no teacher (distill=ctc)")


def check_machine(given: Mapping[str, Any]) -> None:
    """Check the words and numbers of `mpq.train.machine.Machine`, by name; whether it is there is for Lightning to say.

    Raises: UserError for a value that can't be used.
    """
    precision = given["precision"]
    if _SHORT.get(str(precision), precision) not in PRECISIONS:
        raise UserError(f"trainer.precision={precision} must be one of {', '.join(PRECISIONS)}")
    if given["accelerator"] not in ACCELERATORS:
        raise UserError(f"trainer.accelerator={given['accelerator']} must be one of {', '.join(ACCELERATORS)}")
    for name, lowest in (("nodes", 1), ("threads", 0)):
        if type(given[name]) is not int or given[name] < lowest:
            raise UserError(f"trainer.{name}={given[name]} must be a whole number, {lowest} or more")
    check_compile(given["compile"])
