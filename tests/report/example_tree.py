"""An invented tree of experiments with every file that tables and pictures read: its figures mean nothing."""

import json
import random
import zlib
from dataclasses import replace
from pathlib import Path

from example_records import coded, record, write_record

from mpq.record.hypotheses import add_references, write_hypotheses
from mpq.record.result import Result, StageTime, Time
from mpq.record.run_folder import RunFolder, references_file
from mpq.record.search import Snapshot, StageSearch, write_search
from mpq.report.tables.planned import Row, planned

MODEL = "tiny_wav2vec2"
_PROJECTIONS = ("attention.k_proj", "attention.v_proj", "attention.q_proj", "attention.out_proj")
_PROJECTIONS += ("feed_forward.intermediate_dense", "feed_forward.output_dense")
_ESTIMATE = ("estimate", 160.0)
_COST = {
    "fine_tuned": (("fine_tuned", 150.0),),
    "uniform": (("uniform", 160.0),),
    "two_stage_gumbel": (("precision", 80.0), _ESTIMATE),
    "two_stage_kl": (("precision", 40.0), _ESTIMATE),
    "two_stage_hessian": (("precision", 60.0), _ESTIMATE),
    "one_stage": (("one_stage", 165.0),),
    "one_stage_pass2": (("one_stage", 165.0), ("pass2", 80.0)),
}


def write_tree(root: Path, *recipes: str, layers: int = 2) -> list[Result]:
    """Write a record for every run of `MODEL` that Table 1 plans of these recipes (none named: of all)."""
    rows = planned("compression", MODEL)
    return [_write(root, row, layers) for row in rows if row.recipe in recipes or not recipes]


def _write(root: Path, row: Row, layers: int) -> Result:
    chance = random.Random(zlib.crc32(f"{row.exp} {row.seed}".encode()))
    place = RunFolder(root, row.exp, row.seed).path
    if row.recipe == "full_precision":
        result = record(row.exp, row.recipe, 32)
        _write_texts(root, place, result)
    else:
        bits = row.bits or 20 * row.megabytes
        change = round(150 / bits - 30 + 40 * chance.random())
        change = change if row.recipe != "fine_tuned" else round(-20 * chance.random())
        result = record(row.exp, row.recipe, bits, change=change, seed=row.seed)
        result = coded(result, row.megabytes, row.megabytes) if row.megabytes else result
        stages = _COST.get(row.recipe, (("round", 4.0),))
        times = tuple(_stage(name, seconds * (0.9 + 0.2 * chance.random())) for name, seconds in stages)
        total = sum(stage.seconds for stage in times)
        result = replace(result, time=Time(total, total, times))
        if row.recipe != "fine_tuned" and row.bits:
            _write_precisions(place, row, layers, chance)
    write_record(result, root)
    return result


def _write_texts(root: Path, place: Path, result: Result) -> None:
    """References and hypotheses with about the record's word error rates, an error an utterance."""
    said = {name: {f"{name}-{i}": "one two three four" for i in range(500)} for name in result.wer}
    heard = {
        name: {key: text[4:] if i < 20 * result.wer[name].wer else text for i, (key, text) in enumerate(texts.items())}
        for name, texts in said.items()
    }
    add_references(references_file(root, "embedded"), said)
    write_hypotheses(place / "hypotheses.jsonl", heard)


def _stage(name: str, seconds: float) -> StageTime:
    return StageTime(name, seconds, 1, 300, 12000.5, 1_234_567_890, processor_seconds=1.4 * seconds)


def _write_precisions(place: Path, row: Row, layers: int, chance: random.Random) -> None:
    sites = [f"wav2vec2.encoder.layers.{i}.{name}.weight" for i in range(layers) for name in _PROJECTIONS]
    if "stage" not in row.recipe:
        (place / "bits.json").parent.mkdir(parents=True)
        (place / "bits.json").write_text(json.dumps(dict.fromkeys(sites, int(row.bits))))
        return
    candidates = (2, 4, 8)
    chosen = [chance.choice((0, 0, 1, 1, 1, 2)) for _ in sites]
    shots = []
    for update in range(0, 320, 20):
        sharp = min(1.0, update / 250)
        rows = [[sharp * (c == choice) + (1 - sharp) / 3 for c in range(3)] for choice in chosen]
        shots.append(Snapshot(update, 1.0, 1.0 - 0.9 * sharp, row.bits, tuple(map(tuple, rows))))
    shots.append(Snapshot(320, 0.9))  # frozen from here on
    bits = [candidates[choice] for choice in chosen]
    write_search(
        place / "search.json",
        [StageSearch("one_stage", "gumbel", candidates, row.bits, tuple(sites), (9216,) * len(sites), tuple(shots))],
    )
    (place / "bits.json").write_text(json.dumps(dict(zip(sites, bits, strict=True))))
