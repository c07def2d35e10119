"""Measure the word error rate of exported ONNX files and compare it with the run that their model came from.

example: python scripts/evaluate.py run=experiments/local/tiny_wav2vec2_3p5bit/seed0 \\
             file=experiments/local/tiny_wav2vec2_3p5bit/seed0/model/onnx/model_speed.onnx
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option, required


@dataclass(frozen=True)
class Options:
    """Which file, against which run."""

    file: Path = required("what scripts/export.py wrote: an .onnx or .onnx.zst file, for a Whisper a folder")
    run: Path = required("the run's folder, <root>/<name>/seed<k>")
    sets: tuple[str, ...] = option((), "evaluation sets of that run, such as test-clean,test-other; default: all")
    cache: str = option(".cache", "the folder of the embedded corpus")


@command(Options)
def main(chosen: Options) -> None:
    """Transcribe, and print one line per set and the verdict over all."""
    from mpq.deploy.compare import compare_with_run, over_all  # here: it takes a second that --help need not wait for
    from mpq.evaluate.significance import in_brackets, in_words

    results = compare_with_run(chosen.file, chosen.run, chosen.cache, chosen.sets)
    for result in results:
        test = result.verdict
        print(
            f"{result.name}: WER {result.run:.2f} % -> {result.file:.2f} % ({test.difference:+z.2f}, "
            f"{in_brackets(test.interval)}, MAPSSWE {in_words(test.p)}); loops {result.run_loops} -> "
            f"{result.file_loops}; {result.changed} of {result.utterances} utterances changed"
        )
    if verdict := over_all(results):
        print(f"all sets: {verdict.sentence()}")


if __name__ == "__main__":
    main()
