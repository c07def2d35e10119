"""How the training loss of one run fell: its mean between two snapshots, the stages one after the other."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mpq.record.search import StageSearch


def recorded(stages: Sequence[StageSearch]) -> bool:
    """Whether there is a curve to draw: a stage with two snapshots of the loss."""
    return any(len(_losses(stage)) > 1 for stage in stages)


def draw(title: str, stages: Sequence[StageSearch]) -> Figure:
    """Draw a curve a stage over the updates of the whole run."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    before = 0
    for stage in stages:
        losses = _losses(stage)
        if losses:
            updates, values = zip(*losses, strict=True)
            axes.plot([before + update for update in updates], values, label=stage.name, linewidth=1.4)
            before += updates[-1]
    axes.set_xlabel("update")
    axes.set_ylabel("training loss")
    axes.legend()
    figure.suptitle(f"{title}: training loss")
    return figure


def _losses(stage: StageSearch) -> list[tuple[int, float]]:
    return [(shot.update, shot.loss) for shot in stage.trajectory if shot.loss is not None]
