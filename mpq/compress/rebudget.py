"""Packs a finished run at another budget: its search already knows which precisions it prefers.

The run's learned logits choose the new precisions (`reassign`). Sites that keep their precision keep their trained
codes and scales; the others are rounded from the teacher's weights (`mpq.checkpoint.requantize`), and GPTQ compensates
for the rounding with some of the run's training audio. experiments/LOG.md reports what the alternatives cost.

A shared run (recipe=one_stage_shared) trained the weights and scales of every precision and kept them
(`mpq.checkpoint.supernet`): any assignment is read from them as it is, or trained further (`updates`, "pass 2"). So did
a run of recipe=one_stage_every_rate, with learned steps: one factor makes all of them longer or shorter, until the
coded codes take what is asked for.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from mpq import conf, settings, stages
from mpq.commands import script
from mpq.compress.output import Quantized, check_output, compress_to, copy_model
from mpq.data.corpus import Corpus, open_corpus
from mpq.errors import UserError
from mpq.record.run_folder import RunFolder
from mpq.record.search import StageSearch, read_search
from mpq.search.allocate import allocate, check_target
from mpq.search.assignment import Assignment

METHOD = "rebudget"
_KEPT = {
    "shared": "one_stage_shared",
    "every_rate": "one_stage_every_rate",
}  # recipes whose runs keep their float weights
EMPTY = Corpus("none", "", [], {}, [])


def rebudget(
    run: Path,
    target: float,
    output: Path | None = None,
    evaluate: bool = True,
    calibrate: bool = True,
    updates: int = 0,
    **changes: Any,
) -> Quantized:
    """Pack the model of the finished `run` (its folder, `<root>/<name>/seed<k>`) again at `target` bits on average.

    With `evaluate` this is a new run with its own record, `<model>_rebudget_<bits>bit`, beside the given one, and
    `output` is an additional copy. Without, only `output` is written (by default `quantized/<name>`). `calibrate` uses
    GPTQ, which a run that kept its float weights doesn't need; with neither, no audio is read. `updates`: of pass 2, of
    such a run alone, whose records are `<model>_rebudget_shared_<bits>bit` (or `every_rate`), with the updates, if any,
    next to the bits, and before them what the run's infix adds to the recipe's. `changes` are settings of the new run.

    Raises: UserError if the run is not finished or searched no precisions, or its candidates don't allow `target`.
    """
    cfg = config(run, target, calibrate, changes, updates)
    calibrate = "calibrate" in cfg.recipe.stages[METHOD]
    if not evaluate:
        output = output or Path("quantized") / cfg.exp
    made = RunFolder(cfg.root, cfg.exp, cfg.seed).model
    if output:
        check_output(output, cfg.overwrite, made if evaluate else None)
    if not evaluate:
        assert output is not None
        bits, size, same = compress_to(
            cfg,
            _corpus(cfg) if calibrate or updates else EMPTY,
            output,
            _how_to_measure(run, target, calibrate, updates),
        )
        return Quantized(output, cfg.recipe.name, bits, size, None, same)
    from mpq import pipeline

    result = pipeline.run(cfg)
    assert result is not None, "one process runs this"
    if output:
        copy_model(made, output)
    return Quantized(output or made, cfg.recipe.name, result.bits, result.size, result)


def _how_to_measure(run: Path, target: float, calibrate: bool, updates: int) -> str:
    """The sentence of the model card."""
    words = [f"run={'/'.join(run.resolve().parts[-2:])}", f"target_bits={target:g}"]
    words.append(f"updates={updates}" if updates else f"calibrate={str(calibrate).lower()}")
    same = script("rebudget", *words)
    return f"`{same}` makes the same model and measures its WER on the run's evaluation sets."


def config(run: Path, target: float, calibrate: bool, changes: dict[str, Any], updates: int = 0) -> DictConfig:
    """The settled config of the new run: that of `run` with the rebudget recipe."""
    folder = RunFolder.at(run)
    model = folder.model
    if not model.is_dir() or not folder.result.is_file():
        raise UserError(f"run={run} must be the folder of a finished run with its model, <root>/<name>/seed<k>")
    before = folder.read_config()
    recipe: Any = before.pop("recipe", None)
    kept = stages.budgets_of(recipe)
    assignment = None if kept == "every_rate" else reassign(read_search(folder.search), target)
    if kept and not folder.supernet.is_file():
        raise UserError(f"{folder.supernet} is missing, the weights that all budgets are read from: run {run} again")
    if updates and not kept:
        raise UserError(
            f"updates={updates} needs a run of recipe={' or recipe='.join(_KEPT.values())}: after another run's "
            "rebudget, scripts/run.py recipe=pass2 trains further"
        )
    before.data.pop("hash", None)  # of its recordings then; a run computes it from those of now
    settings.register_resolvers()
    with conf.composing():
        cfg: Any = compose("config")
    OmegaConf.set_struct(cfg, False)
    del cfg.recipe
    start = folder.supernet if kept else model
    stage: dict[str, Any] = {
        "search": conf.read("search", "fixed"),
        "start_from": os.path.relpath(start) if start.resolve().is_relative_to(Path.cwd()) else str(start),
        "updates": updates,
    }
    if assignment is None:
        stage["search"] = {**conf.read("search", "rate"), **list(recipe.stages.values())[-1].search, "lowest": None}
    else:
        stage["assignment"] = assignment
    if calibrate and not kept:
        stage["calibrate"] = conf.read("calibrate", "gptq")
    name = f"{METHOD}_{kept}" if kept else METHOD
    variant = str(recipe.infix).removeprefix(_KEPT[kept]) if kept else ""  # of a shared run with other networks, say
    infix = f"{name}{variant}" + (f"_{updates}updates" if updates else "")
    own: Any = {
        "recipe": {"name": name, "infix": infix, "stages": {METHOD: stage}},
        "target_bits": target,
        "budget": "bits",  # which the search's scores are for, whatever the run's budget counted
        "root": str(folder.root),
        "logger": {"mode": "off"},
    }
    cfg = OmegaConf.merge(cfg, before, own)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value)
    return settings.settle(cfg)


def _corpus(cfg: DictConfig) -> Corpus:
    """The data of the run."""
    return open_corpus(**settings.data_of(cfg), cache=cfg.cache)


def reassign(stages: Sequence[StageSearch], target: float) -> Assignment:
    """The assignment of at most `target` bits on average that the last search among `stages` prefers.

    Scores are, as at the search's end, the log-probabilities of learned logits under the new budget, or the negated
    measured sensitivities.

    Raises: UserError if no stage searched precisions, or its candidates don't allow `target`.
    """
    searched = [stage for stage in stages if stage.logits or stage.sensitivity]
    if not searched:
        raise UserError(
            "this run searched no precisions, so no other budget can be derived: use a run of recipe=one_stage or "
            "recipe=one_stage_every_rate"
        )
    stage = searched[-1]
    check_target(target, stage.candidates)
    if stage.logits:
        import torch  # here: it takes seconds, which no mistake needs

        from mpq.search.budget import log_solve

        logits, sizes = torch.tensor(stage.logits, dtype=torch.float64), torch.tensor(stage.parameters)
        scores = log_solve(logits, sizes, stage.candidates, target, stage.temperature or 1.0).numpy()
    else:
        scores = -np.array(stage.sensitivity)
    bits = allocate(scores, np.array(stage.parameters), stage.candidates, target)
    return {name: int(b) for name, b in zip(stage.sites, bits, strict=True)}
