"""Build the W&B workspace of a project whose runs are on W&B's server; needs a login.

example: python scripts/dashboard.py project=mpq
"""

from dataclasses import dataclass

from mpq.cli import command, option


@dataclass(frozen=True)
class Options:
    """Of which project."""

    project: str = option("mpq", "the name that the runs were logged to (logger.project)")
    entity: str | None = option(None, "a user or team of W&B; default: the login's own")
    view: str | None = option(None, "the address that an earlier call printed, to update that view; default: a new one")


@command(Options)
def main(chosen: Options) -> None:
    """Build the view and print its address."""
    from mpq.tracking.workspace import build  # here, since wandb takes a second that --help need not wait for

    print(build(chosen.project, chosen.entity, chosen.view))


if __name__ == "__main__":
    main()
