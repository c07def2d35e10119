"""Pack a finished run's model at other budgets; the precisions come from what its search learned.

example: python scripts/rebudget.py run=experiments/local/tiny_wav2vec2_3p5bit/seed0 target_bits=3

A run of recipe=one_stage_every_rate or one_stage_shared has the weights of every budget. Several budgets end with a
table and a picture of error rate against size, without an update or (updates=0,60) with a few more at each:
python scripts/rebudget.py run=experiments/local/tiny_wav2vec2_one_stage_every_rate_4p5bit/seed0 \\
    target_bits=2.4,3,3.5,4,4.5,6

To fine-tune another run's model, run "pass 2": python scripts/run.py model=MODEL recipe=pass2 target_bits=BITS \\
    recipe.stages.pass2.start_from=<root>/<model>_rebudget_<bits>bit/seed<k>/model
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option, others, required
from mpq.errors import UserError


@dataclass(frozen=True)
class Options:
    """Which run, at which budgets."""

    run: tuple[Path, ...] = required(
        "a finished run's folder with search.json and model/, <root>/<name>/seed<k>; or several seeds, for one table"
    )
    target_bits: tuple[float, ...] = required(
        "the new average bits of the searched weights, one or several; of learned steps as coded in the file"
    )
    updates: tuple[int, ...] = option((0,), "of such a run: further updates at each budget, one number or several")
    evaluate: bool = option(
        True,
        "transcribe the run's evaluation sets and write a record, <root>/<model>_rebudget_<bits>bit/seed<k>; false: "
        "only pack",
    )
    calibrate: bool = option(
        True,
        "GPTQ on some of the run's training audio; false: round to nearest, without audio; such a run needs neither",
    )
    output: Path | None = option(
        None,
        "the packed model's folder, of one budget; default: quantized/<name> (with evaluate=true an extra copy, only "
        "if given)",
    )
    overwrite: bool = option(False, "replace an existing record that was made from another run, and the output")
    cache: str = option(".cache", "the folder of the embedded corpus")
    word: tuple[str, ...] = others("other settings of scripts/run.py: root=FOLDER, data.on_bad_audio=skip")


@command(Options)
def main(chosen: Options) -> None:
    """Pack, then print a summary, or a table of several budgets."""
    from mpq.settings import changes_of  # here, since --help need not wait for it

    changes = changes_of(chosen.word) | {"cache": chosen.cache, "overwrite": chosen.overwrite}
    if len(chosen.run) * len(chosen.target_bits) * len(chosen.updates) > 1:
        from mpq.compress.curve import curve, report

        if chosen.output is not None:
            raise UserError(f"output={chosen.output} takes one model: give one run, target_bits and updates")
        options = (chosen.target_bits, chosen.updates, chosen.evaluate, chosen.calibrate)
        print(report(*curve(chosen.run, *options, **changes)))
        return
    from mpq.compress.output import summary
    from mpq.compress.rebudget import rebudget

    (run,), (target,), (updates,) = chosen.run, chosen.target_bits, chosen.updates
    print(summary(rebudget(run, target, chosen.output, chosen.evaluate, chosen.calibrate, updates, **changes)))


if __name__ == "__main__":
    main()
