"""How cost grows with the number of sites, parameters and utterances; the aim is near-linear growth."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpq.bench.options import Growth as Options

_SITE_PARAMETERS = 768 * 768  # per site of wav2vec2-base
_CANDIDATES = (2, 4, 8)
_VOCABULARY, _WORDS = 2_000, 20  # of the synthetic utterances
_ERROR_RATES = (0.03, 0.01, 0.01)  # substitutions, deletions, insertions


def _sizes(sites: int) -> np.ndarray:
    """Parameters of each site, as irregular as pruned layers would be."""
    return np.random.default_rng(0).integers(_SITE_PARAMETERS // 4, 4 * _SITE_PARAMETERS, sites)


def search_step(sites: int) -> Callable[[], object]:
    """One update of the Gumbel search: noise, budget, lambdas, and the gradient of the logits."""
    from mpq.quant.sites import Site
    from mpq.search.gumbel import GumbelSearch

    search = GumbelSearch(_CANDIDATES)
    search.bind([Site(f"site{k}", (int(n),), int(n), True) for k, n in enumerate(_sizes(sites))], 3.5, seed=0)

    def step() -> None:
        lambdas = search.start_step(0, 100)
        assert lambdas is not None
        lambdas.square().sum().backward()

    return step


def allocation(sites: int) -> Callable[[], object]:
    """The knapsack over scores like those of a search."""
    from mpq.search.allocate import allocate

    scores = np.log(np.random.default_rng(1).dirichlet(np.ones(len(_CANDIDATES)), sites))
    return lambda: allocate(scores, _sizes(sites), _CANDIDATES, 3.5)


def tied_allocation(sites: int) -> Callable[[], object]:
    """The knapsack over scores proportional to the sizes, its hardest case: every bit has almost the same value."""
    from mpq.search.allocate import allocate

    worth = np.log(np.array(_CANDIDATES)) * (1 + 1e-3 * np.random.default_rng(1).random((sites, 1)))
    return lambda: allocate(_sizes(sites)[:, None] * worth, _sizes(sites), _CANDIDATES, 3.5)


def _weights(parameters: int) -> list[Any]:
    """Matrices of 1024 x 1024 with `parameters` in total: larger models have more weights, not larger ones."""
    import torch

    return [torch.randn(1024, 1024).mul_(0.02) for _ in range(max(1, parameters // 2**20))]


def _passes(parameters: int, candidates: tuple[int, ...]) -> Callable[[], object]:
    """Forward and backward pass through the quantizers of the weights, one after the other."""
    import torch

    from mpq.quant.quantizer import QuantizerSettings, WeightQuantizer

    weights = [weight.requires_grad_() for weight in _weights(parameters)]
    quantizers = [WeightQuantizer(weight, candidates, QuantizerSettings(clipping="minmax")) for weight in weights]
    for quantizer in quantizers:
        quantizer.lambdas = torch.tensor([0.2, 0.5, 0.3], requires_grad=True) if len(candidates) > 1 else None

    def pass_all() -> None:
        for quantizer, weight in zip(quantizers, weights, strict=True):
            quantizer(weight).sum().backward()

    return pass_all


def fake_quantization(parameters: int) -> Callable[[], object]:
    """Forward and backward pass through 4-bit weight quantizers."""
    return _passes(parameters, (4,))


def mixture(parameters: int) -> Callable[[], object]:
    """Forward and backward pass through mixtures of weight precisions."""
    return _passes(parameters, _CANDIDATES)


def starting_scale(parameters: int) -> Callable[[], object]:
    """Initial 4-bit scales with the least squared error, one per channel."""
    from mpq.quant.grid import grid
    from mpq.quant.scales import initial_scale

    weights = _weights(parameters)
    return lambda: [initial_scale(weight, grid(4), "per_channel") for weight in weights]


def packing(parameters: int) -> Callable[[], object]:
    """Codes to bytes."""
    from mpq.checkpoint.packing import pack

    codes = np.random.default_rng(0).integers(-8, 8, parameters).astype(np.int8)
    return lambda: pack(codes, 4)


def unpacking(parameters: int) -> Callable[[], object]:
    """Bytes to codes."""
    from mpq.checkpoint.packing import pack, unpack

    packed = pack(np.random.default_rng(0).integers(-8, 8, parameters).astype(np.int8), 4)
    return lambda: unpack(packed, 4, parameters)


def texts(utterances: int, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return synthetic references and hypotheses with some errors, by utterance."""
    words = [f"w{k}" for k in range(_VOCABULARY)]
    said = np.random.default_rng(0).integers(_VOCABULARY, size=(utterances, _WORDS))
    draws = np.random.default_rng(seed).random((utterances, _WORDS))
    substituted, deleted, inserted = np.cumsum(_ERROR_RATES)
    references, hypotheses = {}, {}
    for k, (row, draw) in enumerate(zip(said.tolist(), draws.tolist(), strict=True)):
        references[str(k)] = " ".join(words[word] for word in row)
        recognised = []
        for word, chance in zip(row, draw, strict=True):
            if not substituted <= chance < deleted:
                recognised.append(words[word if chance >= substituted else word - 1])
            if deleted <= chance < inserted:
                recognised.append(words[word - 2])
        hypotheses[str(k)] = " ".join(recognised)
    return references, hypotheses


def mapsswe(utterances: int) -> Callable[[], object]:
    """MAPSSWE of two systems with 5 percent errors each and 20 words per utterance, alignment included."""
    from mpq.evaluate.mapsswe import mapsswe as test

    references, first = texts(utterances, 1)
    second = texts(utterances, 2)[1]
    return lambda: test(references, first, second)


def interval(utterances: int) -> Callable[[], object]:
    """The interval of a difference over 250 speakers and three seeds."""
    from mpq.evaluate.pooled import pooled

    generator = np.random.default_rng(0)
    difference, words = generator.integers(-3, 4, (3, utterances)), generator.integers(1, 60, utterances)
    speakers = [str(k % 250) for k in range(utterances)]
    return lambda: pooled(difference, words, speakers).interval


_TICK = 1e-6  # seconds: the resolution of the processor clock
BY_SITES = {
    "search step": search_step,
    "allocation": allocation,
    "allocation, scores like sizes": tied_allocation,
}
BY_PARAMETERS = {
    "fake quantization, 4 bits": fake_quantization,
    "mixture of 2, 4, 8 bits": mixture,
    "starting scales, 4 bits": starting_scale,
    "packing, 4 bits": packing,
    "unpacking, 4 bits": unpacking,
}
BY_UTTERANCES = {
    "MAPSSWE": mapsswe,
    "interval of 250 speakers, three seeds": interval,
}


def run(options: Options) -> list[dict[str, Any]]:
    """Return one row per cost and size: processor-seconds on one thread, the median of the repeats.

    `exponent` is the slope from the previous size to this one on logarithmic axes: 1 is linear.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(_rows(options))
    finally:
        torch.set_num_threads(threads)


def _rows(options: Options) -> Iterator[dict[str, Any]]:
    groups = (
        ("sites", options.sites, BY_SITES),
        ("parameters", options.parameters, BY_PARAMETERS),
        ("utterances", options.utterances, BY_UTTERANCES),
    )
    for unit, sizes, group in groups:
        for name, prepare in group.items():
            before = None
            for size in sizes:
                seconds = _seconds(prepare(size), options.repeats)
                row = {"system": name, "size": f"{size:,} {unit}", "processor_seconds": seconds}
                if before:
                    row["exponent"] = float(np.log(seconds / before[1]) / np.log(size / before[0]))
                before = (size, seconds)
                yield row


def _seconds(call: Callable[[], object], repeats: int) -> float:
    measured = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        measured.append(time.process_time() - start)
    return max(float(np.median(measured)), _TICK)
