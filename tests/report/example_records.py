"""Invented records for the tests of the tables: the figures are of a plausible size and mean nothing."""

from dataclasses import replace
from pathlib import Path

from mpq.record.result import (
    Baseline,
    Bits,
    CharacterChange,
    CharacterErrors,
    Data,
    Hardware,
    Provenance,
    Result,
    Significance,
    Size,
    StageTime,
    Time,
    Units,
    WordErrors,
)
from mpq.record.run_folder import RunFolder

SETS = ("dev-clean", "dev-other", "test-clean", "test-other")


SPEAKERS = tuple(f"s{k}" for k in range(10))


def word_errors(errors: int, utterances: int = 500) -> WordErrors:
    counts = {name: (part, 800) for name, part in spread(errors).items()}
    return WordErrors(100 * errors / 8000, errors, 8000, utterances, units=Units("speaker", counts))


def spread(errors: int) -> dict[str, int]:
    """Errors by speaker, evenly but for some more and as many less at other speakers."""
    shares = {name: errors // 10 + (k < errors % 10) for k, name in enumerate(SPEAKERS)}
    uneven = [errors % 7 // 2 * (-1) ** k * (k % 4 < 2) for k in range(len(SPEAKERS))]
    return {name: share + more for (name, share), more in zip(shares.items(), uneven, strict=True)}


def record(exp: str, recipe: str, bits: float, *, change: int | None = None, seed: int = 0, smoke: bool = False):
    """Make a run; `change` are its word errors above the baseline's on each set (None: it is the baseline)."""
    wer = {name: word_errors(400 * (1 + i) + (change or 0)) for i, name in enumerate(SETS)}
    tests = {}
    for name in SETS if change is not None else ():
        difference = 100 * change / 8000
        p = 0.0004 if change > 60 else 0.412
        before = word_errors(wer[name].errors - change).units.counts
        more = {key: errors - before[key][0] for key, (errors, _) in wer[name].units.counts.items()}
        interval = (difference - 0.4, difference + 0.4)
        tests[name] = Significance(Baseline("tiny_wav2vec2_fp32", 0), difference, interval, 0.8, p, change=more)
    stages = () if change is None else (StageTime("one_stage", 143.21, 1, 300, 12000.5, 1_234_567_890),)
    seconds = sum(stage.seconds for stage in stages)
    return Result(
        exp=exp,
        seed=seed,
        scale="tiny",
        smoke=smoke,
        model="tiny_wav2vec2",
        recipe=recipe,
        bits=Bits(None if change is None else bits, bits),
        size=Size(1_430_000, int(bits * 1_430_000), 32 / bits, int(bits * 1_430_000 / 8 * 1.01), 32 / bits / 1.01),
        wer=wer,
        significance=tests or None,
        time=Time(seconds, seconds, stages),
        provenance=Provenance(
            commit="0" * 40,
            dirty=False,
            command="python scripts/run.py",
            versions={"python": "3.11"},
            hardware=Hardware("a CPU", 2, 8_000_000_000, ()),
            data=Data("embedded", "0123456789abcdef", True),
            date="2026-01-01T00:00:00+00:00",
        ),
    )


def coded(result: Result, megabytes: float, asked: float | None = None) -> Result:
    """The same run with a coded file of so many megabytes; `asked`: the size that it was made for, if for one."""
    float_bytes = result.size.file_ratio * result.size.file_bytes
    file_bytes = round(1e6 * megabytes)
    size = replace(
        result.size,
        file_bytes=file_bytes,
        file_ratio=float_bytes / file_bytes,
        packed_bytes=result.size.file_bytes,
        target_megabytes=asked,
    )
    bits = replace(result.bits, target=None if asked else result.bits.target, coded=2.5, zeros=0.25)
    return replace(result, size=size, bits=bits)


def with_characters(result: Result) -> Result:
    """The same run with character errors: half as many a cent as word errors, and half the change."""
    wer = {
        name: replace(words, characters=CharacterErrors(words.wer / 2, 2 * words.errors, 4 * words.words))
        for name, words in result.wer.items()
    }
    tests = {
        name: replace(t, characters=CharacterChange(t.difference / 2, (t.difference / 2 - 0.1, t.difference / 2 + 0.1)))
        for name, t in (result.significance or {}).items()
    }
    return replace(result, wer=wer, significance=tests or None)


def several() -> list[Result]:
    """Make a baseline and systems of every kind of name, with a seed, a smoke run and a significant loss."""
    return [
        record("tiny_wav2vec2_fp32", "full_precision", 32),
        record("tiny_wav2vec2_3p5bit", "one_stage", 3.5, change=12),
        record("tiny_wav2vec2_uniform_2bit", "uniform", 2, change=111),
        record("tiny_wav2vec2_two_stage_hessian_3p5bit", "two_stage_hessian", 3.5, change=-20, seed=1),
        record("hubert_large_3p5bit", "one_stage", 3.5, change=900, smoke=True),
    ]


def write_record(result: Result, root: Path) -> Path:
    """Write the record where its run leaves it below `root` and return its path."""
    return RunFolder.of(root, result).write(result)
