"""Draw the pictures of finished runs from their records: WER against size, bits, probabilities, time.

usage: python scripts/figures.py [scale=tiny] [root=experiments] [output=experiments/figures]

  scale   tiny, mini or paper
  root    a folder of records, <root>/<run>/seed<k>/
  output  the folder for the pictures, PNG and SVG; the same records give the same bytes
"""

import sys

from mpq.arguments import key_values
from mpq.errors import UserError

DEFAULTS = {"scale": "tiny", "root": "experiments", "output": "experiments/figures"}


def main(words: list[str]) -> None:
    """Draw all and name the files."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    choices = key_values(words, DEFAULTS)
    from mpq.report.figures.gallery import (
        draw_all,  # here, since matplotlib takes seconds that --help need not wait for
    )

    for path in draw_all(choices["scale"], choices["root"], choices["output"]):
        print(path)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
