"""The size fields of a record, from the trained model and its folder."""

from pathlib import Path

from torch import nn

from mpq.checkpoint.size import measure_size
from mpq.quant.sites import find_sites, quantizers_of
from mpq.record.result import Bits, Size


def measure(model: nn.Module, searched: str, target: float, parameters: int, folder: Path) -> tuple[Bits, Size]:
    """Bits and size of `model`, as it was written to `folder`.

    `parameters`: of the float model, weight norms and all. A model without quantizers has 32 bits a weight.
    """
    quantizers = quantizers_of(model)
    sites = find_sites(model, searched)
    bits = {site.name: quantizers[site.name].bits if quantizers else 32 for site in sites}
    report = measure_size(parameters, sites, bits, folder)  # type: ignore[arg-type]  # every precision is decided by now
    assert report.average_bits is not None and report.file_bytes is not None and report.file_ratio is not None
    return (
        Bits(target=target if quantizers else None, average=report.average_bits),
        Size(report.parameters, report.ideal_bits, report.ideal_ratio, report.file_bytes, report.file_ratio),
    )
