"""Pack a finished run's model at another budget, without training: the precisions come from what its search learned.

usage: python scripts/rebudget.py run=FOLDER target_bits=BITS [key=value ...]

  run          a finished run's folder, <root>/<name>/seed<k>, whose search.json and model are there
  target_bits  the new average over the searched weights
  evaluate     true (default): transcribe the run's evaluation sets and leave a record of its own,
               <root>/<model>_rebudget_<bits>bit/seed<k>; false: only pack
  calibrate    true (default): GPTQ on some of the run's training audio; false: round to nearest, hear nothing
  output       where the packed model goes, default: quantized/<name> (with evaluate=true: a further copy, if named)
  overwrite    true: replace such a record that was made from another run
  cache        the folder of the embedded corpus, default: .cache

example: python scripts/rebudget.py run=experiments/local/tiny_wav2vec2_3p5bit/seed0 target_bits=3

Then "pass 2" polishes it: python scripts/run.py model=MODEL recipe=pass2 target_bits=BITS \\
    recipe.stages.pass2.start_from=<root>/<model>_rebudget_<bits>bit/seed<k>/model
"""

import sys
from pathlib import Path

from mpq.cli import guarded, key_values
from mpq.errors import UserError

SWITCHES = {"evaluate": "true", "calibrate": "true", "overwrite": "false"}
DEFAULTS = {"run": "", "target_bits": "", "output": "", "cache": ".cache", **SWITCHES}


@guarded
def main(words: list[str]) -> None:
    """Read the words `key=value`, pack, say what came out."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    chosen = key_values(words, DEFAULTS)
    if not chosen["run"] or not chosen["target_bits"]:
        raise UserError("name the run and the budget: python scripts/rebudget.py run=FOLDER target_bits=3")
    try:
        target = float(chosen["target_bits"])
    except ValueError:
        raise UserError(f"target_bits={chosen['target_bits']} must be a number of bits, such as 3 or 2.5") from None
    switches = {key: chosen[key] == "true" for key in SWITCHES}
    if wrong := [key for key in switches if chosen[key] not in ("true", "false")]:
        raise UserError(f"{wrong[0]}={chosen[wrong[0]]} must be true or false")
    from mpq.compress.output import summary
    from mpq.compress.rebudget import rebudget  # here, since --help need not wait for it

    output = Path(chosen["output"]) if chosen["output"] else None
    print(summary(rebudget(Path(chosen["run"]), target, output, cache=chosen["cache"], **switches)))


if __name__ == "__main__":
    main(sys.argv[1:])
