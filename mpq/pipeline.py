"""A run from its config to its record, step by step.

The evaluated model is the one read back from disk, so the figures in a table always describe the stored file. A recipe
is a list of stages, and nothing here depends on its name: two-stage, one-stage, uniform and full precision differ only
in their config.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mpq import settings, stages
from mpq.checkpoint.packed import load_model, save_model
from mpq.checkpoint.size import bits_and_size
from mpq.checkpoint.supernet import save_supernet
from mpq.checkpoint.tensors import count_parameters, weights_digest
from mpq.checks import checked, open_data, recordings, weights
from mpq.data.corpus import Corpus
from mpq.data.folder import tell_left_out
from mpq.errors import ONE_LANGUAGE, UserError, unused
from mpq.evaluate.run import compare_sets, references_of, score, transcribe_sets
from mpq.files import check_folder, write_text
from mpq.models.hub import stated_licence
from mpq.models.languages import left_behind, tell_left_behind
from mpq.models.loading import from_scratch, load, speech_model
from mpq.models.reader import Reader
from mpq.models.speech import Choices, SpeechModel
from mpq.record import provenance
from mpq.record.hypotheses import (
    Texts,
    Unfinished,
    add_references,
    check_references,
    read_hypotheses,
    write_hypotheses,
)
from mpq.record.identity import DIGEST
from mpq.record.result import Baseline, Bits, Data, Result, Significance, Size, Time, references_name
from mpq.record.run_folder import Needed, RunFolder, references_file
from mpq.record.search import write_search
from mpq.report.card import card
from mpq.search.assignment import Assignment, to_json
from mpq.tracking.content import log_result
from mpq.tracking.logger import run_logger
from mpq.train import processes
from mpq.train.file_size import MEGABYTE, check_size
from mpq.train.machine import check as check_machine
from mpq.train.machine import machine_of
from mpq.train.recipe import learned, run_recipe


def run(cfg: DictConfig) -> Result | None:
    """Run what the config describes unless its record is finished; return the record.

    Returns None in a follower, as torchrun and SLURM start them for several devices.

    Raises: UserError if the config, the data or the model can't be used, before anything is written; TakenError if
    another process is working on this run.
    """
    cfg = checked(cfg)
    corpus = recordings(cfg)
    weights(cfg)
    return run_checked(cfg, corpus)


def run_checked(cfg: DictConfig, corpus: Corpus | None) -> Result | None:
    """Like `run`, for a config that went through the functions of `mpq.checks`, and its recordings, if any."""
    stages.check_target(cfg)
    return follow(cfg) if processes.is_follower(cfg.trainer) else _run(cfg, corpus)


def follow(cfg: DictConfig) -> None:
    """Take part in the training of the settled config's run, led by its first process, and write nothing."""
    folder = RunFolder(cfg.root, cfg.exp, cfg.seed)
    if folder.finished(cfg):
        return
    corpus = open_data(cfg)
    teacher, _ = teacher_of(cfg)
    with processes.together(cfg, folder.work):
        run_recipe(cfg, teacher, corpus, folder.work, logger=False)


def _run(cfg: DictConfig, corpus: Corpus | None, as_baseline: bool = False) -> Result:
    """Return the run's record, made here unless it exists; a baseline that another process is making is waited for.

    `corpus`: the data, if it is open already.
    """
    folder = RunFolder(cfg.root, cfg.exp, cfg.seed)
    # Comparing with a baseline doesn't need its model, which a fresh clone of the repository lacks.
    needed: Needed = "hypotheses" if as_baseline else "model"
    if done := folder.finished(cfg, needed):
        return done
    with folder.claim(wait=as_baseline):  # check again: the other process may have finished it
        try:
            return folder.finished(cfg, needed) or _make(cfg, corpus, folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command resumes from the last checkpoint, if there is one") from None


def _make(cfg: DictConfig, opened: Corpus | None, folder: RunFolder) -> Result:
    check_machine(machine_of(cfg.trainer))  # before the embedded corpus is made, which takes minutes
    corpus = opened or open_data(cfg)
    tell_left_out(corpus.skipped)
    teacher, digest = teacher_of(cfg)
    _check_lengths(cfg, corpus, teacher)
    _check_references(cfg, corpus, teacher)
    if cfg.target_megabytes is not None:
        check_size(teacher.model, cfg.model.searched, int(cfg.target_megabytes * MEGABYTE))  # a baseline takes long
    check_folder(folder.path, _bytes(cfg, teacher))
    baseline = _baseline(cfg, corpus, digest) if settings.needs_baseline(cfg) else None
    folder.begin(cfg)
    tags = [cfg.model.name, cfg.recipe.name, corpus.name, cfg.model.scale, *(["smoke"] if cfg.smoke else [])]
    about = {"exp": cfg.exp, "seed": cfg.seed, "job_type": cfg.recipe.name, "tags": tags, "config": _plain(cfg)}
    with run_logger(cfg.logger, **about, folder=folder.path, work=folder.work) as logger:
        bits, size, time, assignment = compress(cfg, corpus, folder, logger, teacher, supernet=True)
        references, hypotheses, skipped, reader = _transcribe(cfg, corpus, folder)
        result = Result(
            exp=cfg.exp,
            seed=cfg.seed,
            scale=cfg.model.scale,
            smoke=cfg.smoke,
            model=cfg.model.name,
            recipe=cfg.recipe.name,
            bits=bits,
            size=size,
            wer=score(references, hypotheses, corpus.test),
            significance=baseline and _compare(cfg, baseline, corpus, references, hypotheses),
            time=time,
            provenance=provenance.collect(
                Data(
                    settings.data_name(cfg),
                    corpus.hash,
                    corpus.synthetic,
                    skipped,
                    cfg.data.get("utterances_per_speaker"),
                ),
                teacher=digest,
            ),
            normalizer=reader.normalizer,
            spelling=reader.spelling,
        )
        searched = learned(cfg, folder.work)
        licence = {} if settings.random_weights(cfg) else stated_licence(settings.model_path(cfg))
        lacks = left_behind(settings.model_path(cfg), teacher.one_language)
        text = card(result, settings.hub_name(cfg), assignment, licence, teacher.KIND, lacks)
        write_text(folder.model / "README.md", text)
        folder.end(result)  # before the dashboard, whose failures must not cost the record
        log_result(logger, result, searched)
    return result


def _check_lengths(cfg: DictConfig, corpus: Corpus, teacher: SpeechModel) -> None:
    """Refuse to train on recordings that are longer than the model takes, unless bad files are to be left out."""
    trained = cfg.recipe.stages and not settings.random_weights(cfg) and cfg.data.on_bad_audio == "stop"
    longest = teacher.reader.longest_seconds if trained else None
    too_long = [utterance for utterance in corpus.train if longest is not None and utterance.seconds > longest]
    if too_long:
        raise UserError(
            f"{too_long[0].id} lasts {too_long[0].seconds:.1f} s, longer than the {longest:g} s of audio that the "
            f"model takes ({len(too_long)} such in all): leave such utterances out of the training set with "
            "data.on_bad_audio=skip"
        )


def _baseline(cfg: DictConfig, corpus: Corpus, teacher: str | None) -> Result:
    """Return the record of the 32-bit baseline: of the one on all utterances where its record exists.

    An overwriting run replaces one of other weights or recordings.

    Raises: UserError if the record belongs to other weights, for example before the checkpoint was trained again.
    """
    wanted = settings.full_precision(cfg)
    wanted.model[DIGEST] = teacher
    folder = RunFolder(wanted.root, wanted.exp, wanted.seed)
    recorded = folder.settings()
    if recorded and recorded.get("data.utterances_per_speaker", "None") == "None":
        OmegaConf.update(wanted, "data.utterances_per_speaker", None, force_add=True)
    if cfg.overwrite and folder.result.is_file():
        before = folder.read().provenance
        other_data = wanted.data.get("hash") not in (None, before.data.hash)
        wanted.overwrite = other_data or _differ(before.teacher, teacher)
    same = wanted.data.get("utterances_per_speaker") == cfg.data.get("utterances_per_speaker")
    baseline = _run(wanted, corpus if same else None, as_baseline=True)
    if _differ(baseline.provenance.teacher, teacher):
        raise UserError(
            f"{settings.model_path(cfg)} has other weights than those of the record {folder.path}; "
            "overwrite=true makes that anew, too, root=FOLDER keeps both"
        )
    return baseline


def _differ(recorded: str | None, teacher: str | None) -> bool:
    """Whether two digests of weights differ; one that is not stated (None) differs from none."""
    return recorded is not None and teacher is not None and recorded != teacher


def _check_references(cfg: DictConfig, corpus: Corpus, teacher: SpeechModel) -> None:
    """Refuse, before any work, data whose name stands for other words in this root; an overwriting run replaces them.

    Raises: UserError.
    """
    if not cfg.overwrite:
        check_references(_references(cfg, teacher), references_of(corpus.test, teacher.reader))


def _references(cfg: DictConfig, speech: SpeechModel) -> Path:
    return references_file(cfg.root, references_name(settings.data_name(cfg), speech.reader.normalizer))


def _bytes(cfg: DictConfig, teacher: SpeechModel) -> int:
    """Return how much disk the run needs, roughly: models, and two checkpoints of AdamW while one is replaced."""
    trained = any(stage.updates for stage in cfg.recipe.stages.values())
    floats = 2 if stages.budgets_of(cfg.recipe) else 1
    return count_parameters(teacher.model) * (4 * floats + (2 * 12 if trained else 0))


def compress(
    cfg: DictConfig, corpus: Corpus, folder: RunFolder, logger: Any, teacher: SpeechModel, supernet: bool = False
) -> tuple[Bits, Size, Time, Assignment]:
    """Run the recipe and store the model; return its bits, size, cost and precisions.

    `supernet`: whether to keep the float weights, too, if other budgets can be read from them.
    """
    parameters = count_parameters(teacher.model)
    with processes.together(cfg, folder.work):
        model, assignment, ledger = run_recipe(cfg, teacher, corpus, folder.work, logger)
    if supernet and stages.budgets_of(cfg.recipe):
        save_supernet(folder.supernet, model)
    save_model(folder.model, model, teacher.processor, cfg.coding)
    tell_left_behind(settings.model_path(cfg), teacher.one_language)
    if assignment:
        to_json(assignment, folder.bits)
        write_search(folder.search, learned(cfg, folder.work))
    target = cfg.target_bits if cfg.target_megabytes is None else None
    bits, size = bits_and_size(model, cfg.model.searched, target, parameters, folder.model)
    return bits, replace(size, target_megabytes=cfg.target_megabytes), ledger.time(), assignment


def teacher_of(cfg: DictConfig) -> tuple[SpeechModel, str | None]:
    """Return the fine-tuned model and its digest, or one with random weights if the recipe starts from scratch."""
    if settings.random_weights(cfg):
        return speech_model(*from_scratch(_plain(cfg.model.architecture), cfg.seed), choices_of(cfg)), None
    own = choices_of(cfg)
    teacher = speech_model(*load(settings.model_path(cfg), language=own.language), own)
    unused(["model.language"] if own.language and not teacher.takes_language else [], ONE_LANGUAGE)
    return teacher, weights_digest(teacher.model)


def choices_of(cfg: DictConfig) -> Choices:
    """Return the settings of `model` that only some kinds of models use."""
    return Choices(cfg.model.get("margin_seconds"), cfg.model.get("language"), bool(cfg.model.get("fallback")))


def _transcribe(cfg: DictConfig, corpus: Corpus, folder: RunFolder) -> tuple[Texts, Texts, int, Reader]:
    """Evaluate the model that is on disk.

    Return references, hypotheses, the number of files left out, and the model's reader, which compares the texts.
    """
    speech = speech_model(*load_model(folder.model), choices_of(cfg))
    speech.to_accelerator(cfg.trainer.accelerator)
    so_far = Unfinished(folder.work / folder.hypotheses.name, weights_digest(speech.model))
    given = speech, corpus.test, cfg.data.test_audio_seconds, cfg.data.on_bad_audio
    hypotheses, skipped = transcribe_sets(*given, so_far)
    tell_left_out(skipped)
    heard = {name: [u for u in utterances if u.id in hypotheses[name]] for name, utterances in corpus.test.items()}
    references = references_of(heard, speech.reader)
    write_hypotheses(folder.hypotheses, hypotheses)
    add_references(_references(cfg, speech), references, replace=cfg.overwrite)
    return references, hypotheses, len(corpus.skipped) + len(skipped), speech.reader


def _compare(
    cfg: DictConfig, baseline: Result, corpus: Corpus, references: Texts, hypotheses: Texts
) -> dict[str, Significance]:
    before = read_hypotheses(RunFolder.of(cfg.root, baseline).hypotheses)
    name = Baseline(baseline.exp, baseline.seed)
    part = cfg.data.get("utterances_per_speaker") is not None
    return compare_sets(name, references, before, hypotheses, corpus.test, part)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]  # a DictConfig gives a dict
