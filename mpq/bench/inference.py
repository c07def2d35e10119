"""Running a model: latency, load time, memory and file size of mpq, PyTorch, ONNX Runtime and OpenVINO."""

import re
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mpq.bench import measuring
from mpq.bench.measuring import compared, interleave
from mpq.bench.models import Files, file_bytes, noise
from mpq.bench.options import Inference as Options
from mpq.bench.systems import Logits, System, all_systems, usable_threads
from mpq.errors import UserError

REFERENCE = "torch_float32"
_System = TypeVar("_System")
_PATH = re.compile(r"(?<![\w.])/[^\s'\")]+")  # records are published and must not contain local paths


def run(options: Options) -> list[dict[str, Any]]:
    """Return one row per system and length of audio; a system that can't be run has one row with the reason.

    Raises:
        UserError: the model or a system is unknown, or `rounds` or `seconds` is not above 0.
    """
    systems = chosen(all_systems(), options.systems)
    if options.rounds < 1 or min(options.seconds) <= 0:
        raise UserError(f"rounds={options.rounds} and seconds={options.seconds} must be above 0")
    threads, rows = usable_threads(options.threads), []
    with nullcontext(options.files) if options.files else tempfile.TemporaryDirectory() as folder:
        made, problems = _make(systems, Files(options.model, Path(folder)))
        single = {name: _alone(name, path, options, threads) for name, path in made.items()}
        loaded, more = _load(systems, made, threads)
        for seconds in options.seconds:
            rows += _rows(loaded, made, single, options, seconds)
    return rows + [{"system": name, "problem": problem} for name, problem in {**problems, **more}.items()]


def chosen(systems: Mapping[str, _System], names: tuple[str, ...]) -> dict[str, _System]:
    """Return those of `systems` with these names ("all": every one), always including the reference.

    Raises:
        UserError: a system is unknown.
    """
    if names == ("all",):
        return dict(systems)
    if unknown := [name for name in names if name not in systems]:
        raise UserError(f"there is no system {unknown[0]!r}; choose among {', '.join(systems)}")
    return {name: system for name, system in systems.items() if name in (*names, REFERENCE)}


def why(error: Exception) -> str:
    """Return in one line why a system can't be run."""
    if isinstance(error, ModuleNotFoundError):
        return f"absent: {error.name} is not installed (pip install -e '.[bench]' -c constraints.txt)"
    line = (str(error).strip() or "?").splitlines()[0]
    return f"{type(error).__name__}: {_PATH.sub('<path>', line)}"


def _make(systems: Mapping[str, System], files: Files) -> tuple[dict[str, Path], dict[str, str]]:
    made, problems = {}, {}
    for name, system in systems.items():
        try:
            made[name] = system.make(files)
        except UserError:
            raise
        except Exception as error:  # an error of a peer becomes its row
            problems[name] = why(error)
    return made, problems


def _load(
    systems: Mapping[str, System], made: Mapping[str, Path], threads: int
) -> tuple[dict[str, Logits], dict[str, str]]:
    loaded, problems = {}, {}
    for name, path in made.items():
        try:
            loaded[name] = systems[name].load(path, threads)
            loaded[name](noise(1.0))
        except Exception as error:
            loaded.pop(name, None)
            problems[name] = why(error)
    return loaded, problems


def _alone(name: str, path: Path, options: Options, threads: int) -> list[dict[str, Any]]:
    """Figures from fresh processes with the longest audio; empty if they fail, as `_load` then reports the reason."""
    try:
        seconds = max(options.seconds)
        return [asdict(measuring.measure(name, path, seconds, threads)) for _ in range(options.repeats)]
    except RuntimeError:
        return []


def _rows(
    loaded: Mapping[str, Logits],
    made: Mapping[str, Path],
    single: Mapping[str, list[dict[str, Any]]],
    options: Options,
    seconds: float,
) -> list[dict[str, Any]]:
    audio = noise(seconds)
    times = interleave({name: lambda run=run: run(audio) for name, run in loaded.items()}, options.rounds)
    figures, rows = compared(times, REFERENCE), []
    for name, run in loaded.items():
        row: dict[str, Any] = {"system": name, "audio_seconds": seconds, **figures[name]}
        row["file_bytes"] = file_bytes(made[name])
        if exact := loaded.get(_same_weights(name)):
            row["logit_error"] = _error(run(audio), exact(audio))
        if single[name] and seconds == max(options.seconds):
            row["alone"] = {key: _median([one[key] for one in single[name]]) for key in single[name][0]}
        rows.append(row)
    return rows


def _same_weights(name: str) -> str:
    """The PyTorch system with the same weights as `name`."""
    return f"ours_torch_packed_{name.rpartition('_')[2]}" if name.startswith("ours_") else REFERENCE


def _error(logits: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(logits - reference) / np.linalg.norm(reference))


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
