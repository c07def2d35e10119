"""Draw the figures of finished runs from their records: WER against size, bits, probabilities, time.

The same records give the same bytes.

example: python scripts/figures.py scale=tiny output=pictures
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option
from mpq.files import check_folder


@dataclass(frozen=True)
class Options:
    """Which records, and the output."""

    scale: str = option("tiny", "real, tiny or paper: the scale whose models are shown")
    root: Path = option(Path("experiments"), "a folder of records, <root>/<name>/seed<k>/result.json")
    output: Path = option(Path("experiments/figures"), "the folder for the figures, PNG and SVG")


@command(Options)
def main(chosen: Options) -> None:
    """Draw all figures and print the paths of the files."""
    check_folder(chosen.output)
    from mpq.report.figures import gallery  # here, since matplotlib takes seconds that --help need not wait for

    for path in gallery.draw_all(chosen.scale, chosen.root, chosen.output):
        print(path)


if __name__ == "__main__":
    main()
