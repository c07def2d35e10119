"""What the settings of training must be; needs no torch, so that a mistake in a config is told at once.

The classes that take these settings check the same.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Literal, get_args

from mpq.errors import UserError
from mpq.quant.rules import check_compile

RANDOM, FROZEN, TRAINED = "random", "frozen", "trained"
"""A choice of a stage's `shared.networks`, and those of its `shared.full_precision`."""
Trained = Literal["all", "vectors"]
"""What a stage trains: all parameters, or norms and biases alone (`trained` of a stage)."""
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


def check_megabytes(own: str, megabytes: Any, updates: Any, activations: Any) -> None:
    """Check the size of the file that a stage, at `own` (dotted), quantizes for; None: by bits.

    `updates`: 0 for one that trains with the codes of an earlier stage.

    Raises: UserError if it is not a positive number, or the stage trains or quantizes activations.
    """
    if megabytes is None:
        return
    if type(megabytes) not in (int, float) or not 0 < megabytes < inf:
        raise UserError(f"target_megabytes={megabytes} must be a number of megabytes above 0, such as 12")
    if updates != 0:
        raise UserError(
            f"{own}.updates={updates} must be 0: a stage that chooses steps for a size of the file does not train"
        )
    if activations != "none":
        raise UserError(f"quantizer.activations={activations} must be none where target_megabytes sets the file's size")


def check_optimization(given: Mapping[str, Any], keys: Mapping[str, str] | None = None) -> None:
    """Check the settings of `mpq.train.optimization.Optimization`, by name; `keys` has those that are set elsewhere.

    Raises: UserError for an invalid value.
    """
    keys = keys or {}
    for name, lowest in _LOWEST_WHOLE.items():
        value = given[name]
        if type(value) is not int or value < lowest:
            raise UserError(f"{keys.get(name, _key(name))}={value} must be a whole number, {lowest} or more")
    rates = ["vector_learning_rate"] if given.get("vector_learning_rate") is not None else []
    for name in (*_NOT_NEGATIVE, *rates, "audio_seconds"):
        value = given[name]
        if type(value) not in (int, float) or not 0 <= value < inf or (name == "audio_seconds" and value == 0):
            rule = "above 0" if name == "audio_seconds" else "0 or more"
            raise UserError(f"{keys.get(name, _key(name))}={value} must be a number, {rule}")
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


def check_trained(own: str, trained: Any, last: bool = True) -> None:
    """Raise UserError unless the setting `trained` of the stage at `own` (dotted) can be used.

    `last`: whether no stage follows; one would find weights and scales frozen.
    """
    if trained not in get_args(Trained):
        raise UserError(f"{own}.trained={trained} must be one of {', '.join(get_args(Trained))}")
    if trained != "all" and not last:
        raise UserError(f"{own}.trained={trained} must be all: only the last stage may train a part of the model")


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


def check_shared(networks: Any, each_update: Any, full_precision: Any) -> None:
    """Check the settings of `mpq.train.shared.Shared`.

    Raises: UserError for networks that are no precisions or named twice, more of them an update than there are, or an
    unknown kind of full precision.
    """
    several = isinstance(networks, Sequence) and not isinstance(networks, str)
    named = list(networks) if several else []
    known = all(bits == RANDOM or (type(bits) is int and 1 <= bits <= 8) for bits in named)
    if not named or not known or len(set(named)) < len(named):
        raise UserError(
            f"shared.networks={networks} must be a list of precisions from 1 to 8 bits and {RANDOM}, each named once"
        )
    if each_update is not None and (type(each_update) is not int or not 1 <= each_update <= len(named)):
        raise UserError(f"shared.each_update={each_update} must be null or a whole number from 1 to {len(named)}")
    if full_precision not in (FROZEN, TRAINED):
        raise UserError(f"shared.full_precision={full_precision} must be {FROZEN} or {TRAINED}")


def check_shared_stage(shared: Mapping[str, Any], candidates: Any, updates: int, ctc_weight: Any) -> None:
    """Check the settings `shared` of a stage beside its search's `candidates`, its updates and `distill.ctc_weight`.

    Raises: UserError also for an unknown setting, for a search without candidates, for networks that are none of them,
    or for a trained full precision without the task's loss.
    """
    choices = ("each_update", "full_precision", "networks")
    if unknown := [key for key in shared if key not in choices]:
        raise UserError(f"there is no setting shared.{unknown[0]}; shared has {', '.join(choices)}")
    check_shared(shared.get("networks"), shared.get("each_update"), shared.get("full_precision", FROZEN))
    if not candidates or updates < 1:
        raise UserError("shared networks are trained in a search's updates: the stage must have both")
    if strange := [bits for bits in shared["networks"] if bits != RANDOM and bits not in candidates]:
        raise UserError(
            f"shared.networks has {strange[0]} bits, which search.candidates={list(candidates)} must then have, too"
        )
    if shared.get("full_precision") == TRAINED and ctc_weight == 0:
        raise UserError("shared.full_precision=trained needs distill.ctc_weight above 0: it has no other loss")


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
