"""Build the W&B workspace of a project whose runs are on W&B's server; needs a login.

usage: python scripts/dashboard.py project=mpq [entity=NAME] [view=ADDRESS]

  project  the name that the runs were logged to (logger.project)
  entity   a user or team of W&B (default: the login's own)
  view     the address that an earlier call printed, to bring that view up to date (default: a new one)
"""

import sys

from mpq.cli import guarded, key_values


@guarded
def main(words: list[str]) -> None:
    """Read the words `key=value`, build the view and print its address."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    chosen = key_values(words, {"project": "mpq", "entity": "", "view": ""})
    from mpq.tracking.workspace import build  # here, since wandb takes a second that --help need not wait for

    print(build(chosen["project"], chosen["entity"] or None, chosen["view"] or None))


if __name__ == "__main__":
    main(sys.argv[1:])
