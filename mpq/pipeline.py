"""A run from its config to its record: the story of this package, in the order in which it happens.

The model that is evaluated is the one read back from disk, so a table's cell can't describe another than the stored
file. A recipe is a list of stages and nothing here asks for its name: two-stage, one-stage, uniform and full precision
differ in their config alone.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from mpq import settings
from mpq.checkpoint import folder as model_folder
from mpq.checkpoint.parameters import count_parameters
from mpq.data.corpus import Corpus, open_corpus
from mpq.data.corpus import check as check_data
from mpq.evaluate.run import references_of, score, test_against, transcribe_sets
from mpq.models import ctc
from mpq.quant.sites import quantizers_of
from mpq.record import provenance
from mpq.record.folder import RunFolder
from mpq.record.hypotheses import add_references, read_hypotheses, write_hypotheses
from mpq.record.logger import make_logger
from mpq.record.result import Baseline, Bits, Data, Result, Size, Time
from mpq.record.sizes import measure
from mpq.search.assignment import to_json
from mpq.train.recipe import run_recipe


def run(cfg: DictConfig) -> Result:
    """Do what the config describes, or take it from the finished record; return the record.

    Raises: UserError where the config, the data or the model can't be used, before anything is written.
    """
    cfg = settings.settle(cfg)
    settings.check_target(cfg)
    check_data(**_data(cfg))
    if not settings.random_weights(cfg):
        ctc.check_available(cfg.model.path)
    return _run(cfg)


def _run(cfg: DictConfig) -> Result:
    folder = RunFolder(cfg.root, cfg.exp, cfg.seed)
    if done := folder.finished(cfg):
        return done
    corpus = open_corpus(**_data(cfg), cache=cfg.cache)
    baseline = _run(settings.full_precision(cfg)) if settings.needs_baseline(cfg) else None
    folder.begin(cfg)
    bits, size, time = _compress(cfg, corpus, folder)
    model, processor = model_folder.load(folder.model)
    ctc.to_accelerator(model, cfg.trainer.accelerator)
    hypotheses, skipped = transcribe_sets(
        model, processor, corpus.test, cfg.trainer.audio_seconds, cfg.data.on_bad_audio
    )
    references = references_of(corpus.test, hypotheses)
    write_hypotheses(folder.hypotheses, hypotheses)
    add_references(cfg.root, settings.data_name(cfg), references)
    significance = None
    if baseline is not None:
        before = RunFolder(cfg.root, baseline.exp, baseline.seed)
        others = read_hypotheses(before.hypotheses)
        significance = test_against(
            Baseline(baseline.exp, baseline.seed), references, others, hypotheses, corpus.test, cfg.seed
        )
    result = Result(
        exp=cfg.exp,
        seed=cfg.seed,
        scale=cfg.model.scale,
        smoke=cfg.smoke,
        model=cfg.model.name,
        recipe=cfg.recipe.name,
        bits=bits,
        size=size,
        wer=score(references, hypotheses),
        significance=significance,
        time=time,
        provenance=provenance.collect(Data(settings.data_name(cfg), corpus.hash, corpus.synthetic)),
    )
    folder.end(result)
    return result


def _compress(cfg: DictConfig, corpus: Corpus, folder: RunFolder) -> tuple[Bits, Size, Time]:
    """Load the teacher, run the recipe, store the model; return what it weighs and what it cost."""
    if settings.random_weights(cfg):
        architecture: Any = OmegaConf.to_container(cfg.model.architecture)
        teacher, processor = ctc.from_scratch(architecture, cfg.seed)
    else:
        teacher, processor = ctc.load(cfg.model.path)
    parameters = count_parameters(teacher)
    tags = [cfg.model.name, cfg.recipe.name, corpus.name]
    config: Any = OmegaConf.to_container(cfg)
    logger = make_logger(cfg.logger, cfg.exp, cfg.seed, tags, config, folder.path)
    model, assignment, ledger = run_recipe(cfg, teacher, processor, corpus, folder.work, logger)
    model_folder.save(folder.model, model, processor)
    if quantizers_of(model):
        to_json(assignment, folder.path / "bits.json")
    bits, size = measure(model, cfg.model.searched, cfg.target_bits, parameters, folder.model)
    return bits, size, ledger.time()


def _data(cfg: DictConfig) -> dict[str, Any]:
    return {key: cfg.data[key] for key in ("root", "corpus", "train", "test", "on_bad_audio")}
