"""Build the W&B workspace of a project whose runs are on W&B's server (needs a login).

example: python scripts/dashboard.py project=mpq
"""

from dataclasses import dataclass

from mpq.cli import command, option


@dataclass(frozen=True)
class Options:
    """Which project."""

    project: str = option("mpq", "the name that the runs were logged to (logger.project)")
    entity: str | None = option(None, "a W&B user or team; default: that of the login")
    view: str | None = option(None, "the address of an existing view, to update it; default: a new view")


@command(Options)
def main(chosen: Options) -> None:
    """Build the view and print its address."""
    from mpq.tracking.workspace import build  # here, since wandb takes a second that --help need not wait for

    print(build(chosen.project, chosen.entity, chosen.view))


if __name__ == "__main__":
    main()
