"""Measure the word error rate of an exported ONNX file and compare it with the run that its model came from.

example: python scripts/evaluate.py run=experiments/local/tiny_wav2vec2_3p5bit/seed0 \\
             file=experiments/local/tiny_wav2vec2_3p5bit/seed0/model/onnx/model_speed.onnx
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option, required


@dataclass(frozen=True)
class Options:
    """Which file, against which run."""

    file: Path = required("an .onnx file that scripts/export.py wrote")
    run: Path = required("the run's folder, <root>/<name>/seed<k>")
    sets: tuple[str, ...] = option((), "evaluation sets of that run, such as test-clean,test-other; default: all")
    cache: str = option(".cache", "the folder of the embedded corpus")


@command(Options)
def main(chosen: Options) -> None:
    """Transcribe, and print one line per set."""
    from mpq.deploy.compare import compare_with_run  # here, since it takes a second that --help need not wait for
    from mpq.evaluate.significance import in_brackets, in_words

    for result in compare_with_run(chosen.file, chosen.run, chosen.cache, chosen.sets):
        test = result.verdict
        print(
            f"{result.name}: WER {result.run:.2f} % -> {result.file:.2f} % ({test.difference:+z.2f}, "
            f"{in_brackets(test.interval)}, MAPSSWE {in_words(test.p)}); {result.changed} of {result.utterances} "
            "utterances changed"
        )


if __name__ == "__main__":
    main()
