"""The columns that a table may have, one statement each: a function `Result -> value` and the format of its value.

Every `Column` of this module is available under its variable name. Columns "per set" read a record that `only` has
reduced to one evaluation set, so a column needs nothing but the record, and the table decides whether sets are side by
side or one below the other.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar

from mpq.errors import UserError
from mpq.evaluate.verdict import Verdict, of_run
from mpq.record.result import Result, Significance, WordErrors
from mpq.report.tables.column import Column

T = TypeVar("T")
ALPHA = 0.05
SIGNIFICANT, NOT_SIGNIFICANT = "significant increase", "no significant increase"
NONE = "none"


def only(result: Result, name: str) -> Result:
    """Return the record reduced to the evaluation set `name`; empty if it was not evaluated on that set."""
    significance = None if result.significance is None else _keep(result.significance, name)
    return replace(result, wer=_keep(result.wer, name), significance=significance)


def find(name: str, module: ModuleType | None = None) -> Column:
    """Return the column `name` of `module` (default: this module); raises UserError listing the valid names."""
    columns = {
        key: value for key, value in (vars(module) if module else globals()).items() if isinstance(value, Column)
    }
    if name not in columns:
        raise UserError(f"unknown column {name!r}; the columns are {', '.join(columns)}")
    return columns[name]


def judge(result: Significance) -> str:
    """Return whether the WER is significantly higher than the baseline's: MAPSSWE, two-tailed, p < 0.05."""
    return SIGNIFICANT if result.p < ALPHA and result.difference > 0 else NOT_SIGNIFICANT


def _keep(sets: Mapping[str, T], name: str) -> dict[str, T]:
    return {name: sets[name]} if name in sets else {}


def _wer(value: Callable[[WordErrors], Any]) -> Callable[[Result], Any]:
    return lambda result: next((value(errors) for errors in result.wer.values()), None)


def _of_characters(value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`value` of the character part of a record's errors or test; None if characters were not counted."""
    return lambda of_words: value(of_words.characters) if of_words.characters else None


def _test(value: Callable[[Significance], Any]) -> Callable[[Result], Any]:
    return lambda result: next((value(test) for test in (result.significance or {}).values()), None)


def _system(result: Result) -> str:
    return result.exp + (f" seed {result.seed}" if result.seed else "") + (" (smoke)" if result.smoke else "")


def _stages(result: Result) -> str | None:
    return " + ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in result.time.stages) or None


def _processor_seconds(result: Result) -> float | None:
    return sum(stage.processor_seconds for stage in result.time.stages) or None  # 0: not counted in older records


def _posteriors(result: Result) -> str | None:
    """Whether the first stage that keeps the teacher's posteriors found them on disk; None if none keeps them."""
    found = next((s.posteriors_found for s in result.time.stages if s.posteriors_found is not None), None)
    return None if found is None else f"{found:,} found" if found else "computed"


def _peak_gigabytes(result: Result) -> float | None:
    return max((stage.peak_memory_bytes / 1e9 for stage in result.time.stages), default=None)


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def bounds(interval: tuple[float, float]) -> str:
    """An interval of changes as text."""
    return f"[{_signed(interval[0])}, {_signed(interval[1])}]"


def up_to(interval: tuple[float, float] | None) -> float | str | None:
    """The largest increase within an interval; "none" if all of it lies below zero."""
    return None if interval is None else interval[1] if interval[1] > 0 else NONE


def above_zero(points: float) -> str:
    """A change above zero with two digits, so that it does not read +0.00."""
    return _signed(max(points, 0.01))


def _verdict(value: Callable[[Verdict], Any]) -> Callable[[Result], Any]:
    """`value` of the verdict over all sets of a run; None if it has none."""

    def function(result: Result) -> Any:
        verdict = of_run(result)
        return None if verdict is None else value(verdict)

    return function


_signed, _two, _one, _whole = "{:+z.2f}".format, "{:.2f}".format, "{:.1f}".format, "{:,.0f}".format

system = Column("System", _system, "the run's name, its seed unless 0, and smoke for a smoke run")
model = Column("Model", lambda r: r.model, "the model that was compressed")
recipe = Column("Recipe", lambda r: r.recipe, "the compression recipe")
seed = Column("Seed", lambda r: r.seed, "the seed of the run")
target_bits = Column("Target bits", lambda r: r.bits.target, "requested bits per searched weight", format="{:g}".format)
average_bits = Column("Bits", lambda r: r.bits.average, "realised average bits per searched weight", "lower", _two)
coded_bits = Column(
    "Coded bits", lambda r: r.bits.coded, "average bits of a searched weight's code in the coded file", "lower", _two,
    optional=True,
)  # fmt: skip
zeros = Column(
    "Zeros %", lambda r: None if r.bits.zeros is None else 100 * r.bits.zeros,
    "percent of the searched weights that are zero", format=_one, optional=True,
)  # fmt: skip
activation_bits = Column("Act. bits", lambda r: r.bits.activations, "bits per activation", "lower", "{:g}".format)
parameters = Column("Params M", lambda r: r.size.parameters / 1e6, "parameters, millions", format=_two)
packed_mb = Column(
    "Packed MB", lambda r: r.size.packed / 1e6, "bytes / 1,000,000 of the file, every code in its bits", "lower", _two
)
coded_mb = Column(
    "Coded MB", lambda r: r.size.coded and r.size.coded / 1e6, "bytes / 1,000,000 of the same file, coded without loss",
    "lower", _two, optional=True,
)  # fmt: skip
ideal_ratio = Column("Ideal ratio", lambda r: r.size.ideal_ratio, "float32 bits / (bits x parameters)", "higher", _two)
packed_ratio = Column(
    "Packed ratio", lambda r: r.size.packed_ratio, "float32 bytes / bytes of the packed file", "higher", _two
)
coded_ratio = Column(
    "Coded ratio", lambda r: r.size.coded_ratio, "float32 bytes / bytes of the coded file", "higher", _two,
    optional=True,
)  # fmt: skip
seconds = Column("Time s", lambda r: r.time.seconds, "compression time, evaluation excluded", "lower", _one)
processor_seconds = Column(
    "Processor s", _processor_seconds, "seconds of all threads and workers; affected little by other work",
    "lower", _one,
)  # fmt: skip
device_seconds = Column("Device s", lambda r: r.time.device_seconds, "seconds x devices", "lower", _one)
stages = Column("Stages", _stages, "seconds of each stage")
updates = Column("Updates", lambda r: sum(s.updates for s in r.time.stages), "optimizer updates", "lower", _whole)
audio = Column(
    "Audio s", lambda r: sum(s.audio_seconds for s in r.time.stages), "audio-seconds trained on", "lower", _whole
)
posteriors = Column(
    "Teacher kept", _posteriors, "posteriors that an earlier run had left on disk, or computed here", optional=True
)
peak_memory = Column("Peak GB", _peak_gigabytes, "peak memory of the stage that needs most", "lower", _two)
hardware = Column("Hardware", lambda r: ", ".join(r.provenance.hardware.gpus) or r.provenance.hardware.cpu, "machine")
set_name = Column("Set", lambda r: next(iter(r.wer), None), "the evaluation set", per_set=True)
utterances = Column("Utts", _wer(lambda e: e.utterances), "utterances of the set", format=_whole, per_set=True)
words = Column("Words", _wer(lambda e: e.words), "words of the set", format=_whole, per_set=True)
wer = Column("WER %", _wer(lambda e: e.wer), "word error rate, percent", "lower", _two, per_set=True)
cer = Column(
    "CER %", _wer(_of_characters(lambda e: e.cer)), "character error rate, percent; spaces count as characters",
    "lower", _two, per_set=True, optional=True,
)  # fmt: skip
difference = Column(
    "WER change",
    _test(lambda t: t.difference),
    "WER minus the baseline's, percentage points",
    "lower",
    _signed,
    per_set=True,
)
interval = Column(
    "95 % interval",
    _test(lambda t: t.interval),
    "interval of the WER change, over speakers",
    format=bounds,
    per_set=True,
)
largest_increase = Column(
    "Up to", _test(lambda t: up_to(t.interval)), "the largest WER increase within the interval",
    "lower", above_zero, per_set=True,
)  # fmt: skip
cer_difference = Column(
    "CER change", _test(_of_characters(lambda t: t.difference)), "CER minus the baseline's, percentage points",
    "lower", _signed, per_set=True, optional=True,
)  # fmt: skip
cer_interval = Column(
    "CER 95 % interval", _test(_of_characters(lambda t: t.interval)), "interval of the CER change, over speakers",
    format=bounds, per_set=True, optional=True,
)  # fmt: skip
z = Column("Z", _test(lambda t: t.z), "MAPSSWE's Z; positive: worse", "lower", _signed, per_set=True)
p = Column("p", _test(lambda t: t.p), "MAPSSWE's two-tailed p", format=_p_value, per_set=True)
alone = Column("MAPSSWE alone", _test(judge), "at alpha 0.05, as if it were the only comparison", per_set=True)
change = Column(
    "Change, all sets", _verdict(lambda v: v.change.estimate), "WER minus the baseline's over all sets, points",
    "lower", _signed,
)  # fmt: skip
change_interval = Column(
    "its 95 % interval", _verdict(lambda v: v.change.interval), "of the change over all sets", format=bounds
)
detectable = Column(
    "Detectable", _verdict(lambda v: v.change.detectable), "the change that would be found four times in five",
    "lower", _two,
)  # fmt: skip
verdict = Column("Verdict", _verdict(lambda v: v.word), "over all sets, of this seed alone, at the stated margin")
baseline = Column("Baseline", _test(lambda t: t.baseline.exp), "the run that it was compared with", per_set=True)
