"""Pack a finished run's model at another budget, without training; the precisions come from what its search learned.

example: python scripts/rebudget.py run=experiments/local/tiny_wav2vec2_3p5bit/seed0 target_bits=3

To fine-tune it, run "pass 2": python scripts/run.py model=MODEL recipe=pass2 target_bits=BITS \\
    recipe.stages.pass2.start_from=<root>/<model>_rebudget_<bits>bit/seed<k>/model
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option, others, required


@dataclass(frozen=True)
class Options:
    """Which run, at which budget."""

    run: Path = required("a finished run's folder with search.json and model/, <root>/<name>/seed<k>")
    target_bits: float = required("the new average bits of the searched weights")
    evaluate: bool = option(
        True,
        "transcribe the run's evaluation sets and write a record, <root>/<model>_rebudget_<bits>bit/seed<k>; false: "
        "only pack",
    )
    calibrate: bool = option(True, "GPTQ on some of the run's training audio; false: round to nearest, without audio")
    output: Path | None = option(
        None,
        "the packed model's folder; default: quantized/<name> (with evaluate=true an extra copy, only if given)",
    )
    overwrite: bool = option(False, "replace an existing record that was made from another run, and the output")
    cache: str = option(".cache", "the folder of the embedded corpus")
    word: tuple[str, ...] = others("other settings of scripts/run.py: root=FOLDER, data.on_bad_audio=skip")


@command(Options)
def main(chosen: Options) -> None:
    """Pack, then print a summary."""
    from mpq.compress.output import summary
    from mpq.compress.rebudget import rebudget  # here, since --help need not wait for it
    from mpq.settings import changes_of

    changes = changes_of(chosen.word) | {"cache": chosen.cache, "overwrite": chosen.overwrite}
    print(
        summary(rebudget(chosen.run, chosen.target_bits, chosen.output, chosen.evaluate, chosen.calibrate, **changes))
    )


if __name__ == "__main__":
    main()
