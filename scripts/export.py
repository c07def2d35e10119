"""Write a compressed model as one ONNX file, every weight at its bits.

ONNX has weights of 2, 4 and 8 bits: 3 take 4 there, and 5 to 7 take 8. Programs of your own that run a file of layout
speed on x86 without VNNI must set ONNX Runtime's session option session.x64quantprecision=1; mpq does so itself.

usage: python scripts/export.py model=FOLDER [layout=speed] [output=FILE]

  model   a packed folder: the model/ of a run, or what mpq.save_packed wrote
  layout  speed (8-bit integer arithmetic) or memory (weights stay packed in memory, float32 arithmetic)
  output  the file, default: <model>/onnx/model_<layout>.onnx

example: python scripts/export.py model=experiments/local/tiny_wav2vec2_3p5bit/seed0/model layout=memory
"""

import sys
from pathlib import Path

from mpq.cli import guarded, key_values
from mpq.errors import UserError

DEFAULTS = {"model": "", "layout": "speed", "output": ""}


@guarded
def main(words: list[str]) -> None:
    """Read the words `key=value`, write the file and tell its size."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    choices = key_values(words, DEFAULTS)
    if not choices["model"]:
        raise UserError("model=FOLDER must name a packed folder, such as experiments/local/<name>/seed0/model")
    from mpq.deploy.onnx_export import export  # here, since it takes seconds that --help need not wait for

    layout = choices["layout"]
    output = choices["output"] or Path(choices["model"]) / "onnx" / f"model_{layout}.onnx"
    path = export(choices["model"], output, layout)
    print(f"{path}  {path.stat().st_size:,} bytes, layout {layout}")


if __name__ == "__main__":
    main(sys.argv[1:])
