"""The size of every planned system of a model, from the tensor shapes of its architecture, without training."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mpq import conf
from mpq.checkpoint.prediction import float_file_bytes, packed_file_bytes
from mpq.checkpoint.size import searched_average, size_of
from mpq.checkpoint.tensors import count_parameters
from mpq.models.loading import from_scratch
from mpq.quant.activations import BITS as ACTIVATION_BITS
from mpq.quant.quantizer import FLOAT_BITS
from mpq.quant.sites import Site, find_sites, fold_weight_norm
from mpq.record.result import Bits
from mpq.record.shapes import Shapes
from mpq.report.tables.planned import planned
from mpq.report.tables.recipes import is_compressed
from mpq.search.allocate import allocate


def predict(model: str, table: str = "compression") -> Iterator[tuple[str, Shapes]]:
    """Yield run name and size of every system that `table` plans for `model` (a name of `conf/model/`).

    What is made for coded bits or a size is left out: it depends on the weights, not on their shapes alone.

    A mixed system is assumed to meet its target with the candidates of its recipe's search; how the bits are spread
    over the sites does not change the size. Activations are float or dynamic, neither of which stores a tensor.
    """
    config, quantizer = conf.required("model", model)["model"], conf.read("quantizer", "lsq")
    with torch.device("meta"):
        network: Any = from_scratch(config["architecture"], seed=0)[0]
    parameters, whole = count_parameters(network), float_file_bytes(network)
    fold_weight_norm(network)
    sites = find_sites(network, config["searched"])
    for row in {row.exp: row for row in planned(table, model)}.values():
        if not is_compressed(row.recipe):
            bits, on_disk, activations = dict.fromkeys((site.name for site in sites), FLOAT_BITS), whole, FLOAT_BITS
        elif row.packed_bits is None:
            continue
        else:
            dynamic = "a8_dynamic" in row.exp
            bits = _assignment(row.recipe, row.packed_bits, sites, quantizer["fixed_bits"])
            on_disk = packed_file_bytes(network, sites, bits, quantizer["granularity"] == "per_channel", dynamic)
            activations = ACTIVATION_BITS if dynamic else FLOAT_BITS
        target = None if row.packed_bits is None else float(row.packed_bits)
        average = searched_average(sites, bits) or 0.0
        yield row.exp, Shapes(Bits(target, average, float(activations)), size_of(parameters, sites, bits, on_disk))


def _assignment(recipe: str, average: float, sites: Sequence[Site], fixed: int) -> dict[str, int]:
    """Bits of every site: one precision if the recipe searches none, else a mix that spends the whole budget."""
    searched = [site for site in sites if site.searched]
    candidates = _candidates(recipe) or [int(average)]
    sizes = np.array([site.numel for site in searched])
    chosen = allocate(np.zeros((len(searched), len(candidates))), sizes, candidates, average)
    return {site.name: fixed for site in sites} | {
        site.name: int(bits) for site, bits in zip(searched, chosen, strict=True)
    }


def _candidates(recipe: str) -> Sequence[int] | None:
    """The candidates of the recipe's first search that has candidates; None if none has."""
    entries = [entry for entry in conf.read("recipe", recipe).get("defaults", ()) if isinstance(entry, dict)]
    taken = [conf.read("search", name) for entry in entries for group, name in entry.items() if "/search@" in group]
    own = [stage.get("search") or {} for stage in conf.recipe(recipe)["stages"].values()]
    return next((search["candidates"] for search in (*own, *taken) if "candidates" in search), None)
