"""Project what the paper's rows would cost on a GPU, from counted operations; nothing is measured or downloaded.

Peak performance by data sheet: A100, 312 TFLOP/s with trainer.precision=bf16-mixed, 19.5 with the default 32-true;
H100 SXM, 989 and 67.

example: python scripts/costs.py model=hubert_large gpus=4 price=2
"""

from dataclasses import dataclass

from mpq.cli import command, option


@dataclass(frozen=True)
class Options:
    """Which models, and the assumptions."""

    model: tuple[str, ...] = option(("wav2vec2_base", "hubert_large"), "files of conf/model, without .yaml")
    peak: float = option(312.0, "peak TFLOP/s of one GPU at the training precision, by its data sheet")
    utilisation: tuple[float, float] = option(
        (0.15, 0.5), "the lowest and highest share of the peak that you assume training reaches"
    )
    gpus: int = option(8, "how many GPUs, each with one run at a time")
    price: float | None = option(None, "for one hour of one GPU, in any currency")
    format: str = option("terminal", "terminal, markdown, latex (booktabs) or csv")


@command(Options)
def main(chosen: Options) -> None:
    """Count and print the table."""
    from mpq.report.forecast.costs import Assumptions, projection_sheet  # here: torch takes seconds
    from mpq.report.tables.show import printer

    assumptions = Assumptions(chosen.peak * 1e12, chosen.utilisation, chosen.gpus, chosen.price)
    show = printer(chosen.format)
    show([projection_sheet(chosen.model, assumptions)])


if __name__ == "__main__":
    main()
