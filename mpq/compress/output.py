"""The output of `quantize_now` and `rebudget`: a packed model in the user's folder, and a summary of it."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mpq import settings
from mpq.checkpoint.format import CONFIG_FILE, QUANT_METHOD
from mpq.commands import script
from mpq.data.corpus import Corpus
from mpq.errors import UserError
from mpq.evaluate.significance import in_brackets, in_words
from mpq.evaluate.verdict import of_run
from mpq.files import check_writable, followed, naming, replacing, write_text
from mpq.models.hub import kind_at, stated_licence
from mpq.models.kinds import AUTO_CLASSES
from mpq.models.languages import left_behind
from mpq.record.result import Bits, Result, Significance, Size, WordErrors
from mpq.record.run_folder import RunFolder
from mpq.report.card import card_without_errors

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from mpq.compress.agreement import Agreement


@dataclass(frozen=True)
class Quantized:
    """The packed model in `folder`; `result` is its full record, None if it was not evaluated.

    `agreement` with its float model, of one that was not evaluated; None if it was not measured.
    """

    folder: Path
    method: str
    bits: Bits
    size: Size
    result: Result | None
    agreement: "Agreement | None" = None


def check_output(output: Path, overwrite: bool, made: Path | None = None) -> None:
    """Check, before any work, that the packed model can be written to `output`.

    `made`: a model that is finished already; an `output` that holds just that may stay.

    Raises: UserError if `output` holds anything but a packed model, or holds one and `overwrite` is false, or if it
    can't be written.
    """
    empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty and quant_method(output) != QUANT_METHOD:
        raise UserError(f"{output} exists and is not a packed model: choose another output, or remove it first")
    if not empty and not overwrite and not (made and is_copy(made, output)):
        raise UserError(f"{output} holds a packed model: overwrite=true replaces it, output=FOLDER keeps both")
    check_writable(output)


def is_copy(model: Path, output: Path) -> bool:
    """Whether `output` holds the packed `model`, by the checksums in the two files config.json."""
    mine, other = (_quantization(folder).get("sha256") for folder in (model, output))
    return mine is not None and mine == other


def quant_method(folder: Path) -> str | None:
    """The quantization method of the model in `folder`, in transformers' terms; None for a float model."""
    return str(_quantization(folder).get("quant_method", "")) or None


def _quantization(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return dict(config.get("quantization_config") or {})
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def copy_model(model: Path, output: Path) -> None:
    """Copy a model's folder to `output`, whole or not at all, unless a copy is there."""
    if not is_copy(model, output):
        with replacing(output) as temporary:
            shutil.copytree(model, temporary)


def compress_to(
    cfg: DictConfig, corpus: Corpus, output: Path, how_to_measure: str
) -> tuple[Bits, Size, "Agreement | None"]:
    """Run the recipe of a settled config without evaluation or record; write the packed model to `output`.

    `how_to_measure`: the sentence of its model card that says how to measure its word error rate.
    """
    from mpq import pipeline  # here: torch takes seconds, which no mistake needs
    from mpq.checkpoint.tensors import count_parameters
    from mpq.compress.agreement import agreement

    output = followed(output)
    teacher, _ = pipeline.teacher_of(cfg)
    check_writable(output, count_parameters(teacher.model))  # at most a byte for nearly all of them
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = {"dir": output.parent, "prefix": f".{output.name}.", "suffix": ".partial"}  # TMPDIR may be small
    with tempfile.TemporaryDirectory(**beside, ignore_cleanup_errors=True) as work, naming(output, work):
        folder = RunFolder(work, cfg.exp, cfg.seed)
        folder.work.mkdir(parents=True)
        bits, size, _, sites = pipeline.compress(cfg, corpus, folder, False, teacher)
        how = (pipeline.choices_of(cfg), cfg.trainer.accelerator)
        same = agreement(teacher, folder.model, *how, corpus.train, Path(work, "sentences"))
        how_to_measure += f" So far: {same.sentence()}." if same else ""
        base, licence = settings.hub_name(cfg), stated_licence(settings.model_path(cfg))
        lacks = left_behind(settings.model_path(cfg), teacher.one_language)
        about = (cfg.exp, licence, cfg.recipe.name, base, bits, size, sites, teacher.KIND, how_to_measure, lacks)
        write_text(folder.model / "README.md", card_without_errors(*about))
        with replacing(output) as temporary:
            folder.model.rename(temporary)
    return bits, size, same


_HOW = {
    "round": "rounded to nearest, precisions by rounding error; no data used",
    "gptq": "GPTQ on the recordings, precisions by rounding error; no training",
    "rebudget": "precisions from a finished run's search; no training",
    "rebudget_shared": "read from the weights of a shared run",
    "rebudget_every_rate": "read from the weights of a run with learned steps for every rate",
    "one_stage": "precisions and weights trained in one stage",
    "learned_steps": "steps and weights trained in one stage, for the size of the coded file",
}
_HOW_OF_SIZE = {
    "round": "rounded to nearest, steps by sensitivities on made-up noise; no data used",
    "gptq": "GPTQ on the recordings, steps by sensitivities; no training",
    "norms": "GPTQ on the recordings, steps by sensitivities; norms and biases trained",
}


def summary(made: Quantized) -> str:
    """The summary that is printed at the end: files, size, bits, WER and how to use the model."""
    most, how = made.size.target_megabytes, _HOW
    if most is not None:
        how = _HOW | {key: f"for at most {most:g} MB: {text}" for key, text in _HOW_OF_SIZE.items()}
    size, bits, auto = made.size, made.bits, AUTO_CLASSES[kind_at(str(made.folder))]
    lines = [
        f"model   {made.folder} ({how[made.method]})",
        f"size    {size.file_bytes / 1e6:.2f} MB, {size.file_ratio:.2f} times smaller than the float32 model's "
        f"{4 * size.parameters / 1e6:.2f} MB"
        + (f"; packed, not coded: {size.packed / 1e6:.2f} MB" if size.coded else ""),
        f"bits    {bits.average:.3f} per weight on average over the transformer's linear layers"
        + (f"; {bits.coded:.3f} once coded" if bits.coded else ""),
        *_words(made),
        f"load    import mpq; from transformers import {auto}",
        f"        model = {auto}.from_pretrained({str(made.folder)!r})",
        f"try     {script('transcribe', 'audio.wav', f'model={made.folder}')}",
    ]
    return "\n".join(lines)


def _words(made: Quantized) -> list[str]:
    """One line per evaluation set and the verdict over all, or one that says what measuring takes."""
    if made.result is None:
        how = "evaluate=true" if made.method.startswith("rebudget") else "data=FOLDER with transcripts"
        return [f"WER     not measured: that takes {how}", *_agreement(made)]
    tests = made.result.significance or {}
    verdict = of_run(made.result)
    lines = [_wer(name, words, tests.get(name)) for name, words in made.result.wer.items()]
    return [*lines, *([f"verdict over all sets: {verdict.sentence()}"] if verdict else [])]


def _agreement(made: Quantized) -> list[str]:
    """What is known of a model that was not evaluated: how far its texts are from the float model's."""
    if made.agreement is None:
        return []
    line = f"check   {made.agreement.sentence()}"
    if made.agreement.usable:
        return [line]
    more = "bits=, or megabytes=, which spends the bytes better" if made.size.target_megabytes is None else "megabytes="
    return [line, f"        its texts are no longer the float model's: choose a larger {more}"]


def _wer(name: str, words: WordErrors, test: Significance | None) -> str:
    line = f"WER     {words.wer:.2f} % on {name}, {words.utterances} utterances"
    if test is None:
        return line
    interval = in_brackets(test.interval)
    return f"{line}; {test.difference:+z.2f} against float32, {interval}, {in_words(test.p)} (MAPSSWE)"
