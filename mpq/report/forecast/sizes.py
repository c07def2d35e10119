"""The size of every planned system of a model, from the shapes of its architecture: no weights, no training."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mpq import conf
from mpq.checkpoint.prediction import float_file_bytes, packed_file_bytes
from mpq.checkpoint.size import FLOAT_BITS, searched_average, size_of
from mpq.checkpoint.tensors import count_parameters
from mpq.models.ctc import from_scratch
from mpq.quant.activations import BITS as ACTIVATION_BITS
from mpq.quant.sites import Site, find_sites, fold_weight_norm
from mpq.record.result import Bits
from mpq.record.shapes import Shapes
from mpq.report.tables.planned import Row, planned
from mpq.search.allocate import allocate


def predict(model: str, table: str = "compression") -> Iterator[tuple[str, Shapes]]:
    """Yield run name and size of every system that `table` plans for `model` (a name of `conf/model/`).

    A mixed system is taken to meet its target with the candidates of `conf/search/gumbel.yaml`; which site then has how
    many bits makes no difference to the size. Activations are float or dynamic, neither of which stores a tensor.
    """
    config, quantizer = conf.required("model", model)["model"], conf.read("quantizer", "lsq")
    with torch.device("meta"):
        network: Any = from_scratch(config["architecture"], seed=0)[0]
    parameters, whole = count_parameters(network), float_file_bytes(network)
    fold_weight_norm(network)
    sites = find_sites(network, config["searched"])
    for row in {row.exp: row for row in planned(table, model)}.values():
        if row.recipe == "full_precision":
            bits, on_disk, activations = dict.fromkeys((site.name for site in sites), FLOAT_BITS), whole, FLOAT_BITS
        else:
            bits, dynamic = _assignment(row, sites, quantizer["fixed_bits"]), "a8_dynamic" in row.exp
            on_disk = packed_file_bytes(network, sites, bits, quantizer["granularity"] == "per_channel", dynamic)
            activations = ACTIVATION_BITS if dynamic else FLOAT_BITS
        target = None if row.recipe == "full_precision" else float(row.bits)
        average = searched_average(sites, bits) or 0.0
        yield row.exp, Shapes(Bits(target, average, float(activations)), size_of(parameters, sites, bits, on_disk))


def _assignment(row: Row, sites: Sequence[Site], fixed: int) -> dict[str, int]:
    """Bits of every site: one precision where the recipe is uniform, else a mix that spends the whole budget."""
    searched = [site for site in sites if site.searched]
    mixed = conf.read("search", "gumbel")["candidates"]
    candidates = [int(row.bits)] if float(row.bits).is_integer() and _uniform(row) else mixed
    sizes = np.array([site.numel for site in searched])
    chosen = allocate(np.zeros((len(searched), len(candidates))), sizes, candidates, row.bits)
    return {site.name: fixed for site in sites} | {
        site.name: int(bits) for site, bits in zip(searched, chosen, strict=True)
    }


def _uniform(row: Row) -> bool:
    return row.recipe in ("uniform", "ptq_rtn", "ptq_gptq")
