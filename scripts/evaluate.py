"""Word error rate of an exported ONNX file, against the run that its model came from.

usage: python scripts/evaluate.py file=FILE.onnx run=FOLDER [sets=test-clean,test-other] [cache=.cache]

  file   what scripts/export.py wrote
  run    the run's folder, <root>/<name>/seed<k>
  sets   evaluation sets of that run, with commas; default: all
  cache  the folder of the embedded corpus

example: python scripts/evaluate.py run=experiments/local/tiny_wav2vec2_3p5bit/seed0 \\
             file=experiments/local/tiny_wav2vec2_3p5bit/seed0/model/onnx/model_speed.onnx
"""

import sys
from pathlib import Path

from mpq.cli import guarded, key_values
from mpq.errors import UserError

DEFAULTS = {"file": "", "run": "", "sets": "", "cache": ".cache"}


@guarded
def main(words: list[str]) -> None:
    """Read the words `key=value`, transcribe, and print a line for each set."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    choices = key_values(words, DEFAULTS)
    if not choices["file"] or not choices["run"]:
        raise UserError("file=FILE.onnx and run=FOLDER must be given; --help says more")
    from mpq.deploy.compare import compare_with_run  # here, since it takes a second that --help need not wait for
    from mpq.evaluate.significance import in_words

    sets = [name for name in choices["sets"].split(",") if name]
    for result in compare_with_run(Path(choices["file"]), Path(choices["run"]), choices["cache"], sets):
        verdict = result.verdict
        low, high = verdict.interval
        print(
            f"{result.name}: WER {result.run:.2f} % -> {result.file:.2f} % ({verdict.difference:+.2f}, 95 % interval "
            f"{low:+.2f} to {high:+.2f}, MAPSSWE {in_words(verdict.p)}); {result.changed} of {result.utterances} "
            "utterances changed"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
