"""Write a compressed model as ONNX, one file for CTC and a folder for Whisper, with every weight at its own precision.

ONNX stores weights in 2, 4 or 8 bits, so 3-bit weights take 4 bits and 5- to 7-bit weights take 8. If your own program
runs a file of layout speed on x86 without VNNI, it must set ONNX Runtime's session option
session.x64quantprecision=1; mpq does so itself. With compress=true it must restore the files with zstd -d.

example: python scripts/export.py model=experiments/local/tiny_wav2vec2_3p5bit/seed0/model layout=memory
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpq.cli import command, option, required
from mpq.errors import UserError


@dataclass(frozen=True)
class Options:
    """Which model, and the output."""

    model: Path = required("a packed folder: the model/ of a run, or one that mpq.save_packed wrote")
    layout: Literal["speed", "memory"] = option(
        "speed", "speed: 8-bit integer arithmetic; memory: weights stay packed in memory, float32 arithmetic"
    )
    compress: bool = option(False, "compress each ONNX file as a whole with Zstandard, as NAME.onnx.zst")
    output: Path | None = option(
        None,
        "the file, <model>/onnx/model_<layout>.onnx; for a Whisper a folder, <model>/onnx/<layout> (compressed: "
        "<layout>_zst)",
    )
    overwrite: bool = option(False, "replace what an earlier export wrote")


@command(Options)
def main(chosen: Options) -> None:
    """Write the file and print its size."""
    from mpq.deploy.onnx_export import default_output, export  # here: takes seconds that --help need not wait for

    output = chosen.output or default_output(chosen.model, chosen.layout, chosen.compress)
    earlier = (output.is_file() and ".onnx" in output.name) or any(output.glob("*.onnx*"))  # `export` refuses others
    if earlier and not chosen.overwrite:
        raise UserError(f"{output} exists: overwrite=true replaces it, output=PATH keeps both")
    path = export(chosen.model, output, chosen.layout, chosen.compress)
    size = sum(file.stat().st_size for file in (sorted(path.glob("*.onnx*")) or [path]))
    print(f"{path}  {size:,} bytes, layout {chosen.layout}")


if __name__ == "__main__":
    main()
