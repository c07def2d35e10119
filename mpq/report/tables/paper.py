"""The numbers of the paper that the tables show beside ours; all are from its abstract.

Source: arXiv 2501.03643, abstract. Its lossless factors, "up to 1.7x and 1.9x over the respective uniform-precision
and two-stage mixed-precision quantized baselines", are read as 1.7 over uniform and 1.9 over two-stage precision.
Compression time is reduced by a factor of up to 1.9 for wav2vec2-base and 1.5 for HuBERT-large.
"""

from mpq import conf
from mpq.report.tables.recipes import ONE_STAGE, TWO_STAGE, UNIFORM, method

TABLE = "compression"
"""The table of `conf/table/` with the systems of the claims; its `claims` and `claims_at` list their recipes."""
BITS = 3.5
"""The average bits of the paper's own lossless system, which is one-stage."""
_RATIO = {"hubert_large": 8.6}
_LOSSLESS_FACTOR = {UNIFORM: 1.7, TWO_STAGE: 1.9}
_TIME_FACTOR = {"wav2vec2_base": 1.9, "hubert_large": 1.5}

CLAIMS = ("up to 1.7", "up to 1.9", "up to 1.9 (wav2vec2), 1.5 (HuBERT)", "lower", "8.6 (HuBERT-large)", "lossless")
"""The abstract's claims, as the columns of `mpq.report.tables.claims` from the first factor on."""


def claimed(model: str) -> list[str]:
    """The recipes that the claims are about, one per method, for a model of `conf/model/`."""
    table = conf.read("table", TABLE)
    return table.get("claims_at", {}).get(conf.model(model).get("scale"), table["claims"])


def claimed_of(of: str, model: str) -> str:
    """The claimed recipe of the method `of`."""
    return next(recipe for recipe in claimed(model) if method(recipe) == of)


def is_own(model: str, recipe: str, bits: float | None, activations: str) -> bool:
    """Whether this is the counterpart of the paper's own lossless system."""
    return (recipe, bits, activations) == (claimed_of(ONE_STAGE, model), BITS, "")


def ratio(model: str) -> float | None:
    """The compression ratio of the paper's own lossless system; None if the abstract states none."""
    return _RATIO.get(model)


def lossless_factor(model: str, baseline: str) -> str | None:
    """One-stage's lossless ratio over that of the method `baseline`, at best; None for another model."""
    return f"up to {_LOSSLESS_FACTOR[baseline]}" if model in _TIME_FACTOR else None


def time_factor(model: str) -> str | None:
    """Compression time of two stages over that of one, at best; None for another model."""
    return f"up to {_TIME_FACTOR[model]}" if model in _TIME_FACTOR else None
