"""Before the updates of a stage: sensitivities measured where its search asks for them, quantizers on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mpq.data.dataset import SpeechDataset
from mpq.errors import UserError
from mpq.models.ctc import to_accelerator
from mpq.quant.activation_scales import Activations
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import Site, attach, fold_weight_norm, quantizers_of
from mpq.record.ledger import Stage
from mpq.record.search import describe, write_search
from mpq.search.assignment import from_json, to_json
from mpq.search.base import PrecisionSearch
from mpq.search.calibration import Calibration, draw_batches
from mpq.search.fixed import FixedSearch
from mpq.search.measured import MeasuredSearch
from mpq.train import processes
from mpq.train.precisions import Precisions

BITS = "bits.json"
SEARCH = "search.json"


def quantized(
    name: str,
    student: nn.Module,
    sites: Sequence[Site],
    search: PrecisionSearch,
    quantizer: Mapping[str, Any],
    activations: Activations | None,
    hear: Callable[[int | None], Calibration],
    entry: Stage,
    folder: Path,
    save_ledger: Callable[[], None],
) -> Precisions:
    """Put quantizers on the `sites` of `student`, unless it has them; return the precisions of those searched.

    What a measured search finds is written to `folder`, or read where an earlier process has written it.

    Raises: UserError where the student's precisions are decided and the `search` would decide them anew.
    """
    attached, made = quantizers_of(student), {}
    _check_start(name, search, attached)
    saved = folder / BITS
    if isinstance(search, MeasuredSearch) and processes.rank() == 0 and not saved.is_file():
        heard = hear(search.utterances)
        search.measure(heard)
        made = heard.quantizers
        write_search(folder / SEARCH, [describe(name, search, ())])
        to_json(search.assignment(), saved)
        entry.audio_seconds = heard.audio_seconds
        save_ledger()
    if activations is not None and not attached:
        entry.audio_seconds += activations.attach(student, sites, hear)
    bits = search.site_candidates()
    if isinstance(search, MeasuredSearch):
        bits = processes.from_first(lambda: from_json(saved))
    return Precisions(search, attached or attach(student, sites, bits, **quantizer, made=made))


def calibration(
    student: nn.Module,
    dataset: SpeechDataset,
    audio_seconds: float,
    seed: int,
    accelerator: str,
    attention_mask: bool,
    quantizer: Mapping[str, Any],
    utterances: int | None,
) -> Calibration:
    """The student, on its device, with `utterances` of the training set to hear (None: it hears nothing)."""
    to_accelerator(student, accelerator)
    fold_weight_norm(student)
    device = next(student.parameters()).device
    batches = [] if utterances is None else draw_batches(dataset, utterances, audio_seconds, seed, device)
    settings = {key: value for key, value in quantizer.items() if key != "fixed_bits"}
    return Calibration(student.eval(), batches, attention_mask, **settings)


def _check_start(name: str, search: PrecisionSearch, attached: Mapping[str, WeightQuantizer]) -> None:
    """Refuse to search on a model whose precisions an earlier stage has decided."""
    if not attached:
        return
    given = search.assignment() if isinstance(search, FixedSearch) else {}
    if any(given.get(site.name) != attached[site.name].bits for site in search.sites):
        raise UserError(
            f"recipe.stages.{name} starts from the previous stage, whose precisions stand: it must take "
            "search=fixed with assignment=previous, or start_from=teacher"
        )
