"""Measure speed, memory and growth beside the peers, and leave a record.

usage: python scripts/bench.py WHAT [key=value ...]

  inference  running a model: PyTorch, ONNX Runtime, OpenVINO, ours
  peers      packing a model: torchao, optimum-quanto, NNCF, ours; file sizes and logit errors
  train      a training step: full precision, quantization-aware, the supernet, and peers doing the same
  kernels    the quantizers alone, plain and compiled, beside a copy of the weight: how far from memory's limit
  growth     cost against the number of sites, parameters and utterances

`python scripts/bench.py WHAT --help` shows the arguments of one. Peers come with pip install -e '.[bench]'.

example: python scripts/bench.py inference model=wav2vec2_base seconds=5
"""

import importlib
import sys

from mpq.cli import guarded
from mpq.errors import UserError

BENCHES = ("inference", "peers", "train", "kernels", "growth")


@guarded
def main(words: list[str]) -> None:
    """Run the bench that the first word names, with the others as its options."""
    if not words or words[0] in ("-h", "--help"):
        return print(__doc__)
    if words[0] not in BENCHES:
        raise UserError(f"there is no bench {words[0]!r}; choose one of {', '.join(BENCHES)}")
    from mpq import cli
    from mpq.bench import record  # here, since benches import what --help need not wait for

    bench = importlib.import_module(f"mpq.bench.{words[0]}")
    if {"-h", "--help"} & set(words):
        return print(cli.describe_options(bench.Options))
    chosen = cli.read_options(bench.Options, words[1:])
    rows = bench.run(chosen)
    path = record.write(words[0], chosen, rows, record.name(words[0], chosen))
    print(record.section(path.stem, record.read(path)), f"\nrecord  {path}\npage    {path.parent / 'README.md'}")


if __name__ == "__main__":
    main(sys.argv[1:])
