"""What a measured search works with: the model before quantization, training audio, and any site at any precision."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpq.data.batching import by_length
from mpq.data.dataset import Batch, SpeechDataset, loader
from mpq.data.folder import tell_left_out
from mpq.errors import UserError
from mpq.models.speech import SpeechModel
from mpq.progress import track
from mpq.quant.fake_quantize import fake_quantize
from mpq.quant.quantizer import LSQ, QuantizerSettings, WeightQuantizer
from mpq.quant.sites import Site, check_finite

_Item = TypeVar("_Item")


@dataclass
class Calibration:
    """A speech model in eval mode and `batches` on its device; counts the audio of its forward passes.

    `settings`: of the quantizers that the model will get.
    """

    speech: SpeechModel
    batches: Sequence[Batch]
    settings: QuantizerSettings = LSQ
    audio_seconds: float = field(default=0.0, init=False)
    quantizers: dict[str, WeightQuantizer] = field(default_factory=dict, init=False)  # of all sites quantized so far
    _fronts: dict[int, Any] = field(default_factory=dict, init=False, repr=False)  # outputs of the front, by batch

    @property
    def model(self) -> nn.Module:
        """The model itself."""
        return self.speech.model

    def logits(self, batch: Batch, changed: Sequence[Site] | None = None) -> Tensor:
        """Return the model's output before softmax `[batch, positions, vocabulary]`.

        `changed`: the only sites that have not their own weights now. Unless one of them is in the model's front, the
        outputs of the front are those of the first call for this batch (`SpeechModel.front`). None: all is computed.
        """
        self.audio_seconds += batch.seconds
        front = self.speech.front if changed is not None else None
        if front is not None:
            weights = {id(weight) for weight in front.parameters()}
            if any(id(self.weight(site)) in weights for site in changed or ()):
                front = None
        with _once(front, self._fronts, id(batch)):
            return self.speech.logits(batch.inputs, batch.lengths, batch.labels)

    def positions(self, batch: Batch) -> Tensor:
        """Return the number of positions (frames or tokens) `[batch]` without padding."""
        return self.speech.positions(batch.lengths, batch.label_counts)

    def gradient(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradient of the mean loss over all batches with respect to each of `weights`."""
        units = [int(self.speech.loss_units(self.positions(batch))) for batch in self.batches]
        gradient = [torch.zeros_like(weight) for weight in weights]
        with torch.enable_grad():
            for batch, count in zip(self.batches, units, strict=True):
                loss = self.speech.loss(self.logits(batch), self.positions(batch), batch.labels)
                parts = torch.autograd.grad(loss * (count / sum(units)), weights)
                for sum_, part in zip(gradient, parts, strict=True):
                    sum_ += part
        return gradient

    def weight(self, site: Site) -> nn.Parameter:
        """Return the plain parameter of `site`."""
        return self.model.get_parameter(site.name)

    @torch.no_grad()
    def quantized(self, site: Site, candidates: Sequence[int]) -> list[Tensor]:
        """Return the weight of `site` quantized at each of `candidates` (bits), before any training.

        Raises:
            UserError: the weight is not finite.
        """
        weight = self.weight(site)
        check_finite(site.name, weight)
        quantizer = WeightQuantizer(weight, candidates, self.settings)
        self.quantizers[site.name] = quantizer
        return [fake_quantize(weight, quantizer.scale(bits), quantizer.grid(bits)) for bits in candidates]

    @contextmanager
    def replaced(self, weights: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
        """Run the block with `values` in place of `weights`, which are restored bit for bit."""
        originals = [weight.detach().clone() for weight in weights]
        _write(weights, values)
        try:
            yield
        finally:
            _write(weights, originals)

    @torch.no_grad()
    def observe(self, modules: Sequence[nn.Module], see: Callable[[int, Tensor], None], title: str = "") -> None:
        """Run the model on all batches; `see(k, rows)` gets the inputs `[N, in]` at each call of `modules[k]`.

        The modules are linear layers or pointwise convolutions (`mpq.quant.sites.is_linear`). Padding is left out where
        the kind of model tells it (`SpeechModel.real_rows`). With a `title` the progress is shown.
        """
        positions = torch.zeros(0)

        def hook(number: int, module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0].mT if isinstance(module, nn.Conv1d) else args[0]
            real = self.speech.real_rows(tuple(inputs.shape[:-1]), positions)
            see(number, (inputs if real is None else inputs[real]).flatten(0, -2))

        handles = [m.register_forward_pre_hook(partial(hook, number)) for number, m in enumerate(modules)]
        try:
            with parametrize.cached():  # the quantized weights stay the same from batch to batch
                for batch in self.track(self.batches, title, "batches") if title else self.batches:
                    positions = self.positions(batch)
                    self.logits(batch)
        finally:
            for handle in handles:
                handle.remove()

    def track(self, items: Sequence[_Item], title: str, unit: str) -> Iterable[_Item]:
        """Iterate over `items`, showing the progress on the first process."""
        return track(items, title, unit, shown=getattr(rank_zero_only, "rank", 0) == 0)


def draw_batches(
    dataset: SpeechDataset, utterances: int, audio_seconds: float, seed: int, device: torch.device
) -> list[Batch]:
    """Return `utterances` of the dataset (or all, if it has fewer), drawn by `seed`, in batches on `device`.

    `audio_seconds`: the maximum padded audio per batch.

    It tells which of them can't be read.

    Raises:
        UserError: none of them can be read.
    """
    everything = dataset.utterances
    chosen = np.random.default_rng(seed).permutation(len(everything))[:utterances]
    groups = by_length([everything[k].seconds for k in chosen], audio_seconds)
    batches = [batch.to(device) for batch in loader(dataset, [[int(chosen[k]) for k in group] for group in groups], 0)]
    readable, broken = [b for b in batches if b.ids], [message for b in batches for message in b.skipped]
    if not readable:
        raise UserError(f"none of the {len(broken)} recordings to calibrate with can be read; the first: {broken[0]}")
    tell_left_out(broken)
    return readable


@contextmanager
def _once(module: nn.Module | None, outputs: dict[int, Any], key: int) -> Iterator[None]:
    """Let `module` return `outputs[key]` in the block, where it is computed first if it is missing."""
    if module is None:
        yield
        return
    forward = module.forward

    def remembered(*args: Any, **kwargs: Any) -> Any:
        if key not in outputs:
            outputs[key] = forward(*args, **kwargs)
        return outputs[key]

    module.forward = remembered
    try:
        yield
    finally:
        module.forward = forward


@torch.no_grad()
def _write(weights: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
