"""Code the weights of a packed folder, or undo it: the same weights, bit for bit, in a smaller file or a plainer one.

coding=zstd writes version 2 of the format, coding=none version 1, which older versions of mpq read too.

example: python scripts/pack.py model=experiments/local/tiny_wav2vec2_3p5bit/seed0/model output=plain coding=none
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpq.cli import command, option, required


@dataclass(frozen=True)
class Options:
    """Which model, and the output."""

    model: Path = required("a packed folder: the model/ of a run, or one that mpq.save_packed wrote")
    output: Path = required("the folder to write")
    coding: Literal["zstd", "none"] = option("zstd", "zstd: coded where that makes a weight smaller; none: packed only")
    overwrite: bool = option(False, "replace a packed folder with all that is in it")


@command(Options)
def main(chosen: Options) -> None:
    """Write the folder and print both sizes."""
    from mpq.compress.convert import convert  # here, since it takes seconds that --help need not wait for

    before, after = convert(chosen.model, chosen.output, chosen.coding, chosen.overwrite)
    print(f"{chosen.output}  {after:,} bytes; {chosen.model} has {before:,}")


if __name__ == "__main__":
    main()
