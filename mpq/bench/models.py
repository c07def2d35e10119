"""The models that are measured, and the files that the systems load, each made once.

The shipped models are trained. Models of the true dimensions have random weights, which affect neither time nor memory
nor file size; errors of logits are meaningful only for the shipped ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mpq import conf
from mpq.checkpoint.packed import save_packed
from mpq.errors import UserError
from mpq.models import loading
from mpq.models.kinds import CTC, kind_of
from mpq.quant.quantizer import QuantizerSettings, WeightQuantizer
from mpq.quant.sites import attach, find_sites
from mpq.search.allocate import allocate

CANDIDATES = (2, 4, 8)


def load_model(name: str) -> tuple[Any, Any]:
    """Return the model of `conf/model/<name>.yaml` and its processor: trained if it is shipped, else random.

    Raises:
        UserError: the model is unknown, or not a CTC model.
    """
    settings = check(name)
    if (conf.REPOSITORY / settings["path"]).is_dir():
        return loading.load(str(conf.REPOSITORY / settings["path"]))
    return loading.from_scratch(settings["architecture"], seed=0)


def check(name: str) -> dict[str, Any]:
    """Return the settings of `conf/model/<name>.yaml`.

    Raises:
        UserError: there is no such file, or the model is of another kind, which most of the systems can't run.
    """
    settings = conf.required("model", name)["model"]
    if kind_of(settings["architecture"]) != CTC:
        raise UserError(f"model={name} must be a CTC model, such as tiny_wav2vec2: the benches run no other kind")
    return settings


def quantize_at(model: nn.Module, bits: float, clipping: Any = "minmax") -> dict[str, WeightQuantizer]:
    """Attach quantizers to every weight of `model`: the encoder's at `bits` on average, all others at 8.

    One of the candidates gives uniform precision; any other average a random mixture of 2, 4 and 8 bits under that
    budget. `minmax` scales are quick to compute, and speed does not depend on them.
    """
    sites = find_sites(model)
    searched = [site for site in sites if site.searched]
    uniform = bits in CANDIDATES
    quantizers = attach(model, sites, (int(bits),) if uniform else CANDIDATES, QuantizerSettings(clipping=clipping))
    if not uniform:
        scores = np.random.default_rng(0).random((len(searched), len(CANDIDATES)))
        chosen = allocate(scores, np.array([site.numel for site in searched]), CANDIDATES, bits)
        for site, precision in zip(searched, chosen, strict=True):
            quantizers[site.name].freeze(int(precision))
    return quantizers


def noise(seconds: float, rate: int = 16_000) -> np.ndarray:
    """Return `seconds` of noise, float32 `[samples]`, with mean 0 and variance 1 like the models' input."""
    return np.random.default_rng(0).standard_normal(round(seconds * rate)).astype(np.float32)


def file_bytes(path: Path) -> int:
    """Return the bytes of a file, or of the weight files (no configuration, no vocabulary) in a folder."""
    weights = (".safetensors", ".onnx", ".zst", ".data", ".bin", ".xml", ".pt")
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in weights]
    return sum(file.stat().st_size for file in files)


_OPSET = 20


class Files:
    """The files of one model in one folder."""

    def __init__(self, model: str, folder: Path) -> None:
        check(model)
        torch.set_num_threads(1)  # making files takes many small steps, which more threads only slow down
        self.model = model
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the path `name` in the folder; `make` writes it if it does not exist yet."""
        path = self.folder / name
        if not path.exists():
            make(path)
        return path

    def float_folder(self) -> Path:
        """The float32 model as transformers saves it."""

        def make(path: Path) -> None:
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()
            model, processor = load_model(self.model)
            model.save_pretrained(path)
            processor.save_pretrained(path)

        return self.once("float", make)

    def float_onnx(self) -> Path:
        """The float32 model from PyTorch's own exporter, with dynamic batch and length."""
        return self.once("float.onnx", lambda path: _export(load_model(self.model)[0], path))

    def packed(self, bits: float, clipping: str = "minmax") -> Path:
        """Our packed folder at `bits` on average, not coded: the others store whole bits, too."""

        def make(path: Path) -> None:
            model, processor = load_model(self.model)
            quantize_at(model, bits, clipping)
            save_packed(path, model, processor, coding="none")

        return self.once(f"packed_{bits:g}_{clipping}", make)


def _export(model: Any, path: Path) -> None:
    import logging
    import warnings

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's messages about its internals
        torch.onnx.export(
            model,
            (torch.randn(1, 16_000),),
            path,
            dynamo=True,
            external_data=False,
            input_names=["input_values"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("samples")},),
            opset_version=_OPSET,
            verbose=False,
        )
