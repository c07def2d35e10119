"""Measure speed, memory and growth, compare them with other libraries, and write a record.

usage: python scripts/bench.py BENCH [key=value ...]

  inference  running a model: PyTorch, ONNX Runtime, OpenVINO, mpq
  whisper    the same for a Whisper, with WER: PyTorch, ONNX Runtime, CTranslate2, OpenVINO, whisper.cpp, mpq
  peers      packing a model: torchao, optimum-quanto, NNCF, mpq; file sizes and logit errors
  train      a training step: full precision, quantization-aware, the supernet, and the same in other libraries
  kernels    the quantizers alone, plain and compiled, against copying the weight: how close to memory bandwidth
  growth     cost against the number of sites, parameters and utterances

`python scripts/bench.py BENCH --help` lists the options of one. To install the peers: pip install -e '.[bench]'.

example: python scripts/bench.py inference model=wav2vec2_base seconds=5
"""

import importlib
import sys
from collections.abc import Sequence

from mpq import cli
from mpq.bench.options import BENCHES
from mpq.errors import UserError
from mpq.files import check_folder


@cli.guarded
def main(words: Sequence[str]) -> None:
    """Run the bench named by one of the words, with the other words as its options."""
    name = next((word for word in words if word in BENCHES), "")
    if not name and (not words or cli.asks_for_help(words)):
        return print(__doc__)
    if not name:
        raise UserError(f"there is no bench {words[0]!r}; choose one of {', '.join(BENCHES)}")
    if cli.asks_for_help(words):
        return print(cli.help_text(BENCHES[name], BENCHES[name].__doc__, f"python scripts/bench.py {name}"))
    chosen = cli.read(BENCHES[name], [word for word in words if word != name])
    check_folder(chosen.output)
    from mpq.bench import record  # here, since benches import what --help need not wait for

    rows = importlib.import_module(f"mpq.bench.{name}").run(chosen)
    path = record.write(name, chosen, rows, record.name(name, chosen))
    print(record.section(path.stem, record.read(path)), f"\nrecord  {path}\npage    {path.parent / 'README.md'}")


if __name__ == "__main__":
    main(sys.argv[1:])
