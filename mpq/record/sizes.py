"""The size fields of a record, from the trained model and its folder."""

from pathlib import Path

from torch import nn

from mpq.checkpoint.size import FLOAT_BITS, measure_size
from mpq.errors import UserError
from mpq.quant.activations import BITS as ACTIVATION_BITS
from mpq.quant.activations import activation_quantizers_of
from mpq.quant.sites import find_sites, quantizers_of
from mpq.record.result import Bits, Size


def measure(model: nn.Module, searched: str, target: float, parameters: int, folder: Path) -> tuple[Bits, Size]:
    """Bits and size of `model`, as it was written to `folder`.

    `searched`: the glob of the layers whose bits are averaged. `parameters`: of the float model, weight norms and all.
    A model without quantizers has 32 bits a weight and no target.

    Raises: UserError where nothing is searched, a precision is not decided, or `folder` holds no model.
    """
    quantizers = quantizers_of(model)
    sites = find_sites(model, searched)
    bits = {site.name: FLOAT_BITS for site in sites}
    for name, quantizer in quantizers.items():
        if quantizer.bits is None:
            raise UserError(f"{name} has no precision yet, so there is no size to report")
        bits[name] = quantizer.bits
    activations = ACTIVATION_BITS if activation_quantizers_of(model) else FLOAT_BITS
    report = measure_size(parameters, sites, bits, folder)
    if report.average_bits is None or report.file_bytes is None or report.file_ratio is None:
        raise UserError(f"model.searched={searched!r} names no layer, so there are no average bits to report")
    return (
        Bits(target if quantizers else None, report.average_bits, float(activations)),
        Size(report.parameters, report.ideal_bits, report.ideal_ratio, report.file_bytes, report.file_ratio),
    )
