"""Write a compressed model as one ONNX file, every weight at its bits.

ONNX has weights of 2, 4 and 8 bits: 3 take 4 there, and 5 to 7 take 8. Programs of your own that run a file of layout
speed on x86 without VNNI must set ONNX Runtime's session option session.x64quantprecision=1; mpq does so itself.

example: python scripts/export.py model=experiments/local/tiny_wav2vec2_3p5bit/seed0/model layout=memory
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpq.cli import command, option, required


@dataclass(frozen=True)
class Options:
    """Of which model, and where it goes."""

    model: Path = required("a packed folder: the model/ of a run, or what mpq.save_packed wrote")
    layout: Literal["speed", "memory"] = option(
        "speed", "speed: 8-bit integer arithmetic; memory: weights stay packed in memory, float32 arithmetic"
    )
    output: Path | None = option(None, "the file; default: <model>/onnx/model_<layout>.onnx")


@command(Options)
def main(chosen: Options) -> None:
    """Write the file and print its size."""
    from mpq.deploy.onnx_export import export  # here, since it takes seconds that --help need not wait for

    output = chosen.output or chosen.model / "onnx" / f"model_{chosen.layout}.onnx"
    path = export(chosen.model, output, chosen.layout)
    print(f"{path}  {path.stat().st_size:,} bytes, layout {chosen.layout}")


if __name__ == "__main__":
    main()
