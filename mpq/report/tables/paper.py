"""The figures of the paper that stand beside ours: those of its abstract, and no others.

Source: arXiv 2501.03643, abstract. Its lossless factors, "up to 1.7x and 1.9x over the respective uniform-precision
and two-stage mixed-precision quantized baselines", are read as 1.7 over uniform and 1.9 over two-stage precision;
compression time is down by up to 1.9 for wav2vec2-base and 1.5 for HuBERT-large.
"""

_RATIO = {("hubert_large", "one_stage", 3.5): 8.6}
_LOSSLESS_FACTOR = {"uniform": 1.7, "two-stage": 1.9}
_TIME_FACTOR = {"wav2vec2_base": 1.9, "hubert_large": 1.5}

CLAIMS = ("up to 1.7", "up to 1.9", "up to 1.9 (wav2vec2), 1.5 (HuBERT)", "lower", "8.6 (HuBERT-large)", "lossless")
"""The abstract's claims, as the columns of `mpq.report.tables.claims` from the first factor on."""


def ratio(model: str, recipe: str, bits: float | None) -> float | None:
    """The lossless compression ratio of one system; None where the abstract gives none."""
    return _RATIO.get((model, recipe, bits or 32))


def lossless_factor(model: str, baseline: str) -> str | None:
    """One-stage's lossless ratio over that of `baseline` (uniform, two-stage), at best; None for another model."""
    return f"up to {_LOSSLESS_FACTOR[baseline]}" if model in _TIME_FACTOR else None


def time_factor(model: str) -> str | None:
    """Compression time of two stages over that of one, at best; None for another model."""
    return f"up to {_TIME_FACTOR[model]}" if model in _TIME_FACTOR else None
