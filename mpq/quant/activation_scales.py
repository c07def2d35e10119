"""Which layers' inputs a stage quantizes, and with which static scales."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.quant.activations import GRID, attach_activations
from mpq.quant.calibration import Calibration
from mpq.quant.places import tensor_places
from mpq.quant.rules import ActivationKind, check_activations
from mpq.quant.scales import spanning_scale
from mpq.quant.sites import Site

_BINS = 2**14  # of the histogram of magnitudes that a percentile is read from
_TINY = torch.finfo(torch.float32).tiny

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Activations:
    """How a stage quantizes activations.

    `kind`: none, static or dynamic. For static: `percentile` of each layer's input magnitudes at which they are
    clipped (100 clips none), and the number of training `utterances` on which it is measured.

    Raises:
        UserError: a value that can't be used.
    """

    kind: ActivationKind = "none"
    percentile: float = 99.99
    utterances: int = 32

    def __post_init__(self) -> None:
        check_activations(self.kind, self.percentile, self.utterances)

    def attach(self, model: nn.Module, sites: Iterable[Site], calibrated: Callable[[int], Calibration]) -> float:
        """Quantize the inputs of every linear layer with a site's weight, in place; return the audio used, in seconds.

        `calibrated(utterances)` returns the calibration of this model that static scales need.
        """
        if self.kind == "none":
            return 0.0
        names = {site.name for site in sites}
        groups = [places for places in tensor_places(model) if places[0].name in names]
        layers = [place.path for places in groups for place in places if isinstance(place.module, nn.Linear)]
        if self.kind == "dynamic":
            attach_activations(model, dict.fromkeys(layers))
            return 0.0
        calibration = calibrated(self.utterances)
        attach_activations(model, static_scales(calibration, layers, self.percentile))
        return calibration.audio_seconds


@torch.no_grad()
def static_scales(calibration: Calibration, layers: Sequence[str], percentile: float) -> dict[str, Tensor]:
    """Return a scale `[1]` for the inputs of each of `layers` that is called.

    Takes one pass over the audio, or two where `percentile` is below 100. A warning lists the layers that are never
    called (WavLM's `q_proj`), which get no scale.

    Raises:
        UserError: an input is not finite.
    """
    modules = [calibration.model.get_submodule(name) for name in layers]
    peaks: dict[int, Tensor] = {}
    counts: dict[int, Tensor] = {}

    def see_peak(k: int, rows: Tensor) -> None:
        peak = rows.float().abs().max().reshape(1)
        peaks[k] = torch.maximum(peaks.get(k, peak), peak)

    def see_counts(k: int, rows: Tensor) -> None:
        bins = (rows.float().abs() / peaks[k].clamp_min(_TINY) * _BINS).long().clamp_max_(_BINS - 1)
        counts[k] = counts.get(k, 0) + bins.flatten().bincount(minlength=_BINS)

    calibration.observe(modules, see_peak, "Peaks of the inputs")
    if broken := [layers[k] for k, peak in peaks.items() if not peak.isfinite()]:
        raise UserError(f"the inputs of {broken[0]} on the calibration audio are not finite: check the model")
    if percentile < 100:
        calibration.observe(modules, see_counts, "Histograms of the inputs")
    for k, count in counts.items():
        below = int((count.cumsum(0) < count.sum() * (percentile / 100)).sum())
        peaks[k] = peaks[k] * ((below + 1) / _BINS)
    if silent := [name for k, name in enumerate(layers) if k not in peaks]:
        _log.warning("inputs stay float in %d layers that are never called: %s", len(silent), ", ".join(silent))
    return {layers[k]: spanning_scale(peak, GRID) for k, peak in sorted(peaks.items())}
