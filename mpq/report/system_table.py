"""A table of systems, one of the three of the paper: every row that is planned, whether it was run or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpq.errors import UserError
from mpq.report.parts import Block, Part
from mpq.report.system import System
from mpq.report.system_caption import system_caption
from mpq.report.systems import load_systems, models_of, sets_of
from mpq.report.table import Sheet, parts_of

_OF_SYSTEMS = {"systems", "compressed", "compressed_per_set", "missing", "time_factors"}  # the rest needs all of them


@dataclass(frozen=True)
class SystemTable:
    """A table to make: each of its parts once for each model of a scale."""

    name: str
    title: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> "SystemTable":
        """Make it from the plain values of `conf/table/<name>.yaml`; raises UserError for a missing or unknown key."""
        try:
            return cls(name, values["title"], parts_of(values), tuple(values.get("notes", ())))
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the table {name} needs title, systems and parts of title, rows and columns: {error}"
            ) from error

    def build(self, scale: str, root: Path | str, claims: bool = False) -> Sheet:
        """Read the records below `root` of every model of `scale`.

        `claims` cuts the parts that list systems down to those that carry the paper's claims; what is worked out of all
        systems, such as a method's largest lossless ratio, stays as it is.

        Raises: UserError for an unknown scale, one without models, or a record that can't be read.
        """
        systems = {model: load_systems(self.name, model, root) for model in models_of(scale)}
        blocks = [block for model, found in systems.items() for block in self._blocks(model, found, claims)]
        every = [system for found in systems.values() for system in found]
        judged = any("verdict" in column for part in self.parts for column in part.columns)
        notes = (*self.notes, *system_caption(every, scale, judged))
        return Sheet(f"{self.title} (scale {scale})", tuple(blocks), notes)

    def _blocks(self, model: str, systems: Sequence[System], claims: bool) -> list[Block]:
        recorded = dict.fromkeys(name for system in systems for run in system.runs for name in run.wer)
        kept = carrying_claims(systems) if claims else systems
        blocks = [
            part.build(kept if part.rows in _OF_SYSTEMS else systems, list(recorded) or sets_of(model), model)
            for part in self.parts
        ]
        return [block for block in blocks if len(block.frame)]


def carrying_claims(systems: Sequence[System]) -> list[System]:
    """32 bits, and the systems with the most seeds: conf/table/compression.yaml gives them to the paper's claims."""
    most = max((len(system.seeds) for system in systems), default=0)
    return [system for system in systems if system.recipe == "full_precision" or len(system.seeds) == most]
