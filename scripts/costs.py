"""Project what the paper's rows would cost on a GPU, from counted operations: nothing is measured, nothing downloaded.

usage: python scripts/costs.py [model=wav2vec2_base,hubert_large] [peak=312] [utilisation=0.15,0.5] [gpus=8] [price=]
                               [format=terminal]

  model        files of conf/model, without .yaml
  peak         TFLOP/s of one GPU at the precision trained in, by its data sheet. Of an A100: 312 with
               trainer.precision=bf16-mixed, 19.5 with the default 32-true; of an H100 SXM: 989 and 67
  utilisation  the lowest and the highest share of the peak that training reaches: an assumption of yours
  gpus         side by side, a row each
  price        of one hour of one GPU, in any currency
  format       terminal, markdown, latex (booktabs) or csv

example: python scripts/costs.py model=hubert_large gpus=4 price=2
"""

import sys

from mpq.cli import guarded, key_values
from mpq.errors import UserError

DEFAULTS = {
    "model": "wav2vec2_base,hubert_large", "peak": "312", "utilisation": "0.15,0.5", "gpus": "8", "price": "",
    "format": "terminal",
}  # fmt: skip


@guarded
def main(words: list[str]) -> None:
    """Count and print the table."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    chosen = key_values(words, DEFAULTS)
    from mpq.report.forecast.costs import Assumptions, projection_sheet  # here: torch takes seconds
    from mpq.report.tables.show import printer

    try:
        low, high = map(float, chosen["utilisation"].split(","))
        price = float(chosen["price"]) if chosen["price"] else None
        assumptions = Assumptions(float(chosen["peak"]) * 1e12, (low, high), int(chosen["gpus"]), price)
    except ValueError as error:
        raise UserError(f"peak, gpus and price are numbers, utilisation two of them: {error}") from None
    show = printer(chosen["format"])
    show([projection_sheet(chosen["model"].split(","), assumptions)])


if __name__ == "__main__":
    main(sys.argv[1:])
