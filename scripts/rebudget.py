"""Pack a finished run's model at another budget, without training: the precisions come from what its search learned.

usage: python scripts/rebudget.py run=FOLDER target_bits=BITS [evaluate=true] [output=FOLDER] [overwrite=false]

  run          a finished run, <root>/<exp>/seed<k>, whose search.json and model are there
  target_bits  the new average over the searched weights
  evaluate     true: transcribe the run's evaluation sets and leave a record <root>/<model>_rebudget_<bits>bit/seed<k>;
               false: only pack, in seconds
  output       where the packed model goes (with evaluate=true: a further copy)
  overwrite    replace such a record that was made from another run

Then "pass 2" polishes it: python scripts/run.py model=MODEL recipe=pass2 target_bits=BITS \\
    recipe.stages.pass2.start_from=<root>/<model>_rebudget_<bits>bit/seed<k>/model
"""

import sys
from pathlib import Path

from mpq.arguments import key_values
from mpq.errors import UserError
from mpq.script import guarded

DEFAULTS = {"run": "", "target_bits": "", "evaluate": "true", "output": "", "overwrite": "false"}


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
    for key in ("evaluate", "overwrite"):
        if chosen[key] not in ("true", "false"):
            raise UserError(f"{key}={chosen[key]} must be true or false")
    from mpq.deploy.rebudget import rebudget  # here, since --help need not wait for it
    from mpq.report.quantized import summary

    output = Path(chosen["output"]) if chosen["output"] else None
    overwrite = chosen["overwrite"] == "true"
    print(summary(rebudget(Path(chosen["run"]), target, output, chosen["evaluate"] == "true", overwrite=overwrite)))


if __name__ == "__main__":
    main(sys.argv[1:])
