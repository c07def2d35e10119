"""Draw the pictures of finished runs from their records: WER against size, bits, probabilities, time.

usage: python scripts/figures.py [scale=tiny] [root=experiments] [output=experiments/figures]

  scale   tiny, mini or paper: whose models the pictures show
  root    a folder of records, <root>/<name>/seed<k>/result.json
  output  the folder for the pictures, PNG and SVG; the same records give the same bytes

example: python scripts/figures.py scale=mini output=pictures
"""

import sys

from mpq.cli import guarded, key_values

DEFAULTS = {"scale": "tiny", "root": "experiments", "output": "experiments/figures"}


@guarded
def main(words: list[str]) -> None:
    """Draw all and name the files."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    choices = key_values(words, DEFAULTS)
    from mpq.report.figures import gallery  # here, since matplotlib takes seconds that --help need not wait for

    for path in gallery.draw_all(choices["scale"], choices["root"], choices["output"]):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
