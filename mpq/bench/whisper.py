"""Running a Whisper: speed, memory, file size and WER of mpq and its peers, on the same recordings.

Each round is one recording, which all systems transcribe in turn. Peers that are not installed have a row that says so.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mpq.bench import measuring
from mpq.bench.inference import REFERENCE, chosen, why
from mpq.bench.measuring import compared, interleave
from mpq.bench.models import file_bytes
from mpq.bench.options import Whisper as Options
from mpq.bench.systems import usable_threads
from mpq.bench.whisper_files import Files, check
from mpq.bench.whisper_systems import SIZED, TRAINED, System, Text, all_systems
from mpq.data.audio import load
from mpq.data.librispeech import Utterance, read_split
from mpq.errors import UserError
from mpq.evaluate.wer import word_errors_and_kinds
from mpq.models.processor import load_processor
from mpq.models.seq2seq import Seq2SeqReader
from mpq.progress import track

_RATE, _LONGEST = 16_000, 30.0


def run(options: Options) -> list[dict[str, Any]]:
    """Return one row per system; a system that can't be run has a row with the reason.

    Raises:
        UserError: the model, the recordings or a system is missing, or a number is not above 0.
    """
    systems = _chosen(options)
    check(Path(options.folder))
    heard = _spread(read_split(options.root, options.split).utterances, options.utterances)
    threads, folders = usable_threads(options.threads), {TRAINED: options.trained, SIZED: options.sized}
    with nullcontext(options.files) if options.files else tempfile.TemporaryDirectory() as folder:
        given = {name: Path(one) for name, one in folders.items() if one}
        files = Files(Path(options.folder), given, Path(folder))
        made, loaded, problems = {}, {}, {}
        for name, system in track(list(systems.items()), "Making and loading", "systems"):
            try:
                made[name] = system.make(files)
                loaded[name] = system.load(made[name], threads)
                loaded[name](np.zeros(_RATE, dtype=np.float32))
            except Exception as error:  # an error of a peer becomes its row
                loaded.pop(name, None)
                problems[name] = why(error)
        longest = load(max(heard, key=lambda one: one.seconds).path, _RATE)
        single = {name: _alone(name, made[name], longest, options, threads, files.folder) for name in loaded}
        rows = _rows(loaded, heard, load_processor(options.folder))
        for row in rows:
            row |= {"file_bytes": file_bytes(made[row["system"]]), "alone": single[row["system"]]}
    return rows + [{"system": name, "problem": problem} for name, problem in problems.items()]


def _chosen(options: Options) -> dict[str, System]:
    if options.utterances < 1 or not options.silence >= 0:
        raise UserError(f"utterances={options.utterances} must be at least 1, silence={options.silence:g} at least 0")
    return chosen(all_systems(options.silence), options.systems)


def _spread(utterances: list[Utterance], count: int) -> list[Utterance]:
    """Return `count` utterances (or all) at even distances in the order of their lengths."""
    fitting = sorted((one for one in utterances if one.seconds <= _LONGEST), key=lambda one: (one.seconds, one.id))
    if not fitting:
        raise UserError("there is no recording of at most 30 s")
    places = np.linspace(0, len(fitting) - 1, min(count, len(fitting)))
    return [fitting[round(place)] for place in places]


def _alone(
    name: str, path: Path, audio: np.ndarray, options: Options, threads: int, folder: Path
) -> dict[str, Any] | None:
    """Return figures from a fresh process with the longest recording; None if it fails."""
    file = folder / "longest.npy"
    np.save(file, audio)
    systems = ("mpq.bench.whisper_systems", [options.silence])
    try:
        found = [asdict(measuring.measure(name, path, file, threads, systems)) for _ in range(options.repeats)]
    except RuntimeError:
        return None
    return {key: float(np.median([one[key] for one in found])) for key in found[0]} if found else None


def _rows(loaded: Mapping[str, Text], heard: list[Utterance], processor: Any) -> list[dict[str, Any]]:
    recordings = [load(one.path, _RATE) for one in heard]
    texts: dict[str, list[str]] = {name: [] for name in loaded}
    times = interleave({name: _turns(run, recordings, texts[name]) for name, run in loaded.items()}, len(heard))
    scored = Seq2SeqReader(processor, longest=0, english=True).scored
    references = {one.id: scored(one.text) for one in heard}
    figures, rows = compared(times, REFERENCE), []
    for name in loaded:
        hypotheses = {one.id: scored(text) for one, text in zip(heard, texts[name], strict=True)}
        errors, words, kinds = word_errors_and_kinds(references, hypotheses)
        row = {"system": name, **figures[name], "processor_seconds": float(times[name].processor.sum())}
        row |= {"audio_seconds": round(sum(map(len, recordings)) / _RATE, 1), "words": int(words.sum())}
        rows.append(row | {"wer": 100.0 * float(errors.sum() / words.sum()), "loops": kinds["loops"]})
    return rows


def _turns(run: Text, recordings: list[np.ndarray], texts: list[str]) -> Callable[[], None]:
    """Return what transcribes the next recording at each call, after a first call that does not count."""
    left = iter(recordings)
    warm = False

    def turn() -> None:
        nonlocal warm
        if warm:
            texts.append(run(next(left)))
        else:
            run(recordings[0])
            warm = True

    return turn
