"""Project what the paper's rows would cost on a GPU, from counted operations: nothing is measured, nothing downloaded.

Peaks by the data sheet: of an A100, 312 TFLOP/s with trainer.precision=bf16-mixed, 19.5 with the default 32-true; of an
H100 SXM, 989 and 67.

example: python scripts/costs.py model=hubert_large gpus=4 price=2
"""

from dataclasses import dataclass

from mpq.cli import command, option


@dataclass(frozen=True)
class Options:
    """Of which models, and what is assumed."""

    model: tuple[str, ...] = option(("wav2vec2_base", "hubert_large"), "files of conf/model, without .yaml")
    peak: float = option(312.0, "TFLOP/s of one GPU at the precision trained in, by its data sheet")
    utilisation: tuple[float, float] = option(
        (0.15, 0.5), "the lowest and the highest share of the peak that training reaches: an assumption of yours"
    )
    gpus: int = option(8, "side by side, a row each")
    price: float | None = option(None, "of one hour of one GPU, in any currency")
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
