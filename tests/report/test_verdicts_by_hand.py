"""Five verdicts of the tables, recomputed with numpy from the tracked transcripts, with nothing of mpq's statistics."""

import gzip
import json
import shutil
from functools import cache
from math import lgamma
from pathlib import Path

import jiwer
import numpy as np
import pytest

from mpq.report.tables.system import load_systems

ROOT = Path(__file__).resolve().parents[2] / "experiments"
REFERENCES = ROOT / "references" / "synthetic.jsonl"
SYSTEMS = (
    ("tiny_wav2vec2", "uniform_8bit"),
    ("tiny_wav2vec2", "uniform_4bit"),
    ("tiny_wav2vec2", "two_stage_gumbel_3p5bit"),
    ("tiny_wav2vec2", "3p5bit"),
    ("tiny_hubert", "3p5bit"),
)


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """The systems above as the tables load them, by name: all records there are would take seconds."""
    root, models = tmp_path_factory.mktemp("experiments"), dict(SYSTEMS)
    for name in ("references", *(f"{model}_fp32" for model in models), *("_".join(system) for system in SYSTEMS)):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("model"))
    return {system.exp: system for model in models for system in load_systems("compression", model, root)}


@cache
def read(path: Path, field: str) -> dict[tuple[str, str], str]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = map(json.loads, raw.decode().splitlines())
    return {(row["set"], row["id"]): row[field] for row in rows}


@cache
def errors_by_speaker(folder: Path) -> np.ndarray:
    """Errors `[speakers]` of the run in `folder`, in the order of `spoken`."""
    said, heard = read(REFERENCES, "reference"), read(next(folder.glob("hypotheses*")), "hypothesis")
    output = jiwer.process_words([said[key] for key in said], [heard[key] or " " for key in said])
    sums = dict.fromkeys(spoken(), 0)
    for key, chunks in zip(said, output.alignments, strict=True):
        for chunk in (chunk for chunk in chunks if chunk.type != "equal"):
            sums[key[1].split("-")[0]] += max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
    return np.array(list(sums.values()), dtype=float)


def spoken() -> dict[str, int]:
    """Speaker -> reference words."""
    sums: dict[str, int] = {}
    for (_, utterance), text in read(REFERENCES, "reference").items():
        speaker = utterance.split("-")[0]
        sums[speaker] = sums.get(speaker, 0) + len(text.split())
    return dict(sorted(sums.items()))


def quantile_of_t(freedom: float, share: float = 0.975) -> float:
    """By summing the density."""
    x = np.linspace(0, 40, 400_001)
    scale = np.exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / np.sqrt(freedom * np.pi)
    density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    below = 0.5 + np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * (x[1] - x[0]))])
    return float(np.interp(share, below, x))


def interval_of(cells: np.ndarray, words: np.ndarray) -> tuple[float, float, float]:
    """Estimate, low and high of the pooled change, in points. cells: `[seeds, speakers]`; words: `[speakers]`."""
    seeds, speakers = cells.shape
    rate = cells.sum() / seeds / words.sum()
    residual = (cells - rate * words) / words.sum()
    of_speaker, of_seed = residual.mean(0), residual.sum(1)
    rest = residual - of_speaker - np.outer(of_seed, words / words.sum())
    more = speakers / (speakers - 1)
    a = more * (of_speaker**2).sum()
    b = (of_seed**2).sum() / seeds / (seeds - 1)
    c = more * (rest**2).sum() / seeds / (seeds - 1)
    variance, freedom = a, speakers - 1
    if b > c:
        variance = a + b - c
        parts = a**2 / (speakers - 1) + b**2 / (seeds - 1) + c**2 / (seeds - 1) / (speakers - 1)
        freedom = min(max(variance**2 / parts, seeds - 1), freedom)
    half = quantile_of_t(freedom) * np.sqrt(variance)
    return 100 * rate, 100 * (rate - half), 100 * (rate + half)


@pytest.mark.parametrize(("model", "name"), SYSTEMS)
def test_a_verdict_of_the_tables_comes_out_the_same(model, name, systems):
    words = np.array(list(spoken().values()))
    folders = [ROOT / f"{model}_fp32" / "seed0", *(ROOT / f"{model}_{name}" / f"seed{k}" for k in range(3))]
    counts = [errors_by_speaker(folder) for folder in folders]
    estimate, low, high = interval_of(np.array(counts[1:]) - counts[0], words)
    margin = 0.03 * 100 * counts[0].sum() / words.sum()
    word = "no worse" if high < margin else "worse" if low > 0 else "undecided"

    verdict = systems[f"{model}_{name}"].verdict()
    assert verdict is not None and verdict.change.interval is not None
    assert verdict.change.estimate == pytest.approx(estimate)
    assert verdict.change.interval == pytest.approx((low, high), abs=1e-5)
    assert verdict.word == word


def test_every_record_holds_errors_by_speaker_so_that_it_can_be_judged():
    """Without its transcripts, which most records lack."""
    for path in ROOT.rglob("seed*/result.json"):
        for words in json.loads(path.read_text())["wer"].values():
            assert sum(errors for errors, _ in words["units"]["counts"].values()) == words["errors"], path
