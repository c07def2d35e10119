"""The models that are measured: the shipped ones, and those of true dimensions with random weights.

Time, memory and file size depend on the shapes alone, so random weights will do; what they do to the logits is shown
for the shipped models, which are trained.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mpq import conf
from mpq.models import ctc
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import attach, find_sites
from mpq.search.allocate import allocate

CANDIDATES = (2, 4, 8)


def load_model(name: str) -> tuple[Any, Any]:
    """Return the model of `conf/model/<name>.yaml` and its processor: trained where it is shipped, else random weights.

    Raises:
        UserError: there is no such model.
    """
    settings = conf.required("model", name)["model"]
    if (conf.REPOSITORY / settings["path"]).is_dir():
        return ctc.load(str(conf.REPOSITORY / settings["path"]))
    return ctc.from_scratch(settings["architecture"], seed=0)


def quantize_at(model: nn.Module, bits: float, clipping: Any = "minmax") -> dict[str, WeightQuantizer]:
    """Attach quantizers to every weight of `model`: the encoder's at `bits` on average, all others at 8.

    A whole number among the candidates is uniform; another average is a mixture of 2, 4 and 8 bits drawn at random
    under that budget. `minmax` scales are quick to make, and speed does not depend on them.
    """
    sites = find_sites(model)
    searched = [site for site in sites if site.searched]
    uniform = bits in CANDIDATES
    quantizers = attach(model, sites, (int(bits),) if uniform else CANDIDATES, 8, "per_channel", clipping=clipping)
    if not uniform:
        scores = np.random.default_rng(0).random((len(searched), len(CANDIDATES)))
        chosen = allocate(scores, np.array([site.numel for site in searched]), CANDIDATES, bits)
        for site, precision in zip(searched, chosen, strict=True):
            quantizers[site.name].freeze(int(precision))
    return quantizers


def noise(seconds: float, rate: int = 16_000) -> np.ndarray:
    """Return `seconds` of noise, float32 `[samples]`, zero mean and variance 1 as the models' input."""
    return np.random.default_rng(0).standard_normal(round(seconds * rate)).astype(np.float32)


def file_bytes(path: Path) -> int:
    """Return the bytes of a file, or of the weight files (no configuration, no vocabulary) in a folder."""
    weights = (".safetensors", ".onnx", ".data", ".bin", ".xml", ".pt")
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in weights]
    return sum(file.stat().st_size for file in files)
