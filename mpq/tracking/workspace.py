"""The W&B workspace of a project: first charts of the results in the tables, then the course of the training.

W&B's default view shows one chart per key, in alphabetical order. This view is built with W&B's library
`wandb-workspaces` from the keys that the project's runs have.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from mpq.errors import UserError
from mpq.tracking.logger import UPDATE, has_login

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section

NAME = "Mixed precision quantization"
_RUNS = 100  # the most runs whose keys are read
_SECONDS = 10


def build(project: str, entity: str | None = None, address: str | None = None) -> str:
    """Create the view `NAME` in the project of `entity` (default: that of the login) and return its address.

    With the `address` of an existing view, that view is updated.

    Raises: UserError if there is no login, the library is missing, W&B can't be reached or does not know the address,
    or the project has no runs.
    """
    if not has_login():
        raise UserError(
            "the dashboard is on W&B's server and needs a login: run `wandb login`; without an account "
            "`python scripts/report.py root=experiments` writes the same content as HTML pages"
        )
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise UserError("the dashboard needs the package wandb-workspaces: pip install -e '.[dashboard]'") from None
    entity, keys = _keys(project, entity)
    try:
        view = ws.Workspace.from_url(address) if address else ws.Workspace(entity=entity, project=project, name=NAME)
        view.sections = sections(keys)
        view.runset_settings.groupby = [ws.Metric("Group")]  # the seeds of a system together
        view.save()
        return view.url
    except Exception as error:  # many types without a documented base class
        raise UserError(f"W&B rejected the view of {entity}/{project}: {_reason(error)}") from error


def sections(keys: Iterable[str]) -> "list[Section]":
    """The sections of the view for runs with these summary keys (mpq/tracking/content.py)."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    known = sorted(set(keys))
    sets = [key.removeprefix("wer/") for key in known if key.startswith("wer/")]
    characters = [key for key in known if key.startswith("cer/")]
    losses = [key for key in known if key.startswith("train/")]
    stages = [key for key in known if key.startswith("time/stage/")]
    searches = [key for key in known if key.startswith("search/")]
    parts: list[tuple[str, Sequence[Any]]] = [
        ("Tables", [wr.WeavePanelSummaryTable(table_name="result/row")]),
        (
            "Word error rate",
            [
                *(_scatter(f"WER % against packed ratio, {name}", "size/packed_ratio", f"wer/{name}") for name in sets),
                *(
                    wr.BarPlot(title=f"Upper bound of the WER increase, {name}", metrics=[key])
                    for name in sets
                    if (key := f"significance/{name}/largest_increase") in known
                ),
            ],
        ),
        (
            "Character error rate",
            [
                _scatter(f"CER % against packed ratio, {key.removeprefix('cer/')}", "size/packed_ratio", key)
                for key in characters
            ],
        ),
        ("Training", [wr.LinePlot(title=key, x=UPDATE, y=[key]) for key in losses]),
        (
            "Precisions",
            [
                wr.LinePlot(title="Expected average bits and the budget", x=UPDATE, y=["bits/average", "bits/budget"]),
                *(wr.WeavePanelSummaryTable(table_name=key) for key in searches),
                *(wr.MediaBrowser(media_keys=[key]) for key in known if key.startswith("pictures/")),
            ],
        ),
        (
            "Compression time",
            [wr.BarPlot(title="Total seconds", metrics=["time/seconds"])]
            + [wr.BarPlot(title=f"Seconds of {key.removeprefix('time/stage/')}", metrics=[key]) for key in stages],
        ),
    ]
    return [ws.Section(name=name, panels=list(panels), is_open=True) for name, panels in parts if panels]


def _scatter(title: str, x: str, y: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.ScatterPlot(title=title, x=wr.SummaryMetric(x), y=wr.SummaryMetric(y))


def _keys(project: str, entity: str | None) -> tuple[str, set[str]]:
    """The entity, and the summary keys of its project's runs."""
    import wandb

    try:
        api = wandb.Api(timeout=_SECONDS)
        entity = entity or api.default_entity
        keys = {key for run in islice(api.runs(f"{entity}/{project}"), _RUNS) for key in run.summary.keys()}  # noqa: SIM118
    except Exception as error:
        raise UserError(f"W&B returned no runs of {entity or 'you'}/{project}: {_reason(error)}") from error
    if not keys:
        raise UserError(
            f"{entity}/{project} has no finished runs: upload offline runs with `wandb sync "
            "experiments/*/seed*/wandb/offline-run-*`, or choose another project=NAME entity=NAME"
        )
    return str(entity), keys


def _reason(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())
