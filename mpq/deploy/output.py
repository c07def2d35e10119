"""Where a packed model goes when no run keeps it: a folder of choice, replaced only where it holds another one."""

import json
import shutil
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from mpq import pipeline, settings
from mpq.checkpoint.format import CONFIG_FILE, QUANT_METHOD
from mpq.data.corpus import Corpus
from mpq.errors import UserError
from mpq.models.licence import stated_licence
from mpq.record.atomic import replacing, write_text
from mpq.record.folder import RunFolder
from mpq.record.result import Bits, Size
from mpq.report.card import card_without_errors


def check_output(output: Path) -> None:
    """Refuse, before any work, a folder that holds something else than a packed model.

    Raises: UserError.
    """
    empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty and quant_method(output) != QUANT_METHOD:
        raise UserError(f"{output} exists and is not a packed model: choose another output, or remove it first")


def quant_method(folder: Path) -> str | None:
    """The way in which the model in `folder` is quantized, as transformers calls it; None for a float model."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return str((config.get("quantization_config") or {}).get("quant_method", "")) or None
    except (OSError, ValueError, AttributeError):
        return None


def copy_model(model: Path, output: Path) -> None:
    """Copy a model's folder to `output`, whole or not at all."""
    with replacing(output) as temporary:
        shutil.copytree(model, temporary)


def compress_to(cfg: DictConfig, corpus: Corpus, output: Path, how_to_measure: str) -> tuple[Bits, Size]:
    """Run the recipe of a settled config without evaluation or record; write the packed model to `output`.

    `how_to_measure`: the sentence of its model card that tells how its word error rate is measured.
    """
    with tempfile.TemporaryDirectory() as work:
        folder = RunFolder(work, cfg.exp, cfg.seed)
        folder.work.mkdir(parents=True)
        bits, size, _, sites, _ = pipeline.compress(cfg, corpus, folder, logger=False, baseline=None)
        base, licence = settings.hub_name(cfg), stated_licence(settings.model_path(cfg))
        about = (cfg.exp, licence, cfg.recipe.name, base, bits, size, sites, how_to_measure)
        write_text(folder.model / "README.md", card_without_errors(*about))
        copy_model(folder.model, output)
    return bits, size
