"""Write a compressed model as one ONNX file, with every weight at its own precision.

ONNX stores weights in 2, 4 or 8 bits, so 3-bit weights take 4 bits and 5- to 7-bit weights take 8. If your own program
runs a file of layout speed on x86 without VNNI, it must set ONNX Runtime's session option
session.x64quantprecision=1; mpq does so itself.

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
    output: Path | None = option(None, "the file; default: <model>/onnx/model_<layout>.onnx")
    overwrite: bool = option(False, "replace a file that exists")


@command(Options)
def main(chosen: Options) -> None:
    """Write the file and print its size."""
    from mpq.deploy.onnx_export import export  # here, since it takes seconds that --help need not wait for

    output = chosen.output or chosen.model / "onnx" / f"model_{chosen.layout}.onnx"
    if output.is_file() and not chosen.overwrite:
        raise UserError(f"{output} exists: overwrite=true replaces it, output=FILE keeps both")
    path = export(chosen.model, output, chosen.layout)
    print(f"{path}  {path.stat().st_size:,} bytes, layout {chosen.layout}")


if __name__ == "__main__":
    main()
