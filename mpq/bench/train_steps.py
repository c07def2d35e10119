"""The training steps that are compared: the shared workload, and how each system modifies the linear layers."""

# The peers are an optional extra.
# pyright: reportMissingImports=false
import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.bench.models import CANDIDATES, load_model
from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models.loading import speech_model
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import attach, find_sites
from mpq.search.gumbel import GumbelSearch
from mpq.train.loss import Loss, Posteriors
from mpq.train.precisions import Precisions
from mpq.train.shared import Shared, SharedUpdate

_CHARACTERS = 10  # of each utterance's random transcript


def chosen_device(device: str) -> str:
    """Return cpu or cuda; auto is a GPU if there is one.

    Raises:
        UserError: the value is unknown, or a GPU is requested but there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not has_gpu):
        raise UserError(f"device={device} must be auto, cpu, or cuda where PyTorch finds a GPU")
    return ("cuda" if has_gpu else "cpu") if device == "auto" else device


class Workload:
    """A model in training, its batch, and the update around it."""

    def __init__(self, model: str, batch: int, seconds: float, device: str, bf16: bool) -> None:
        self.device, self.bf16 = torch.device(device), bf16
        self.speech = speech_model(*load_model(model))
        self.model = self.speech.model
        self.model.freeze_feature_encoder()
        self.model.to(self.device)
        samples = round(seconds * 16_000)
        generator = torch.Generator().manual_seed(0)
        inputs, labels = torch.randn(batch, samples, generator=generator), torch.randint(5, 30, (batch, _CHARACTERS))
        lengths = torch.full((batch,), samples)
        self.batch = Batch([str(k) for k in range(batch)], inputs, lengths, labels, batch * seconds, []).to(self.device)

    def sites(self) -> list[Any]:
        """The encoder's linear weights."""
        return [site for site in find_sites(self.model) if site.searched]

    def linears(self) -> dict[str, nn.Linear]:
        """The encoder's linear layers, by name."""
        names = [site.name.removesuffix(".weight") for site in self.sites()]
        return {name: self.model.get_submodule(name) for name in names}

    def replace_linears(self, make: Callable[[nn.Linear], nn.Module]) -> None:
        """Replace each of the encoder's linear layers with the result of `make`."""
        for name, linear in self.linears().items():
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, make(linear).to(self.device))

    def step(
        self,
        loss: Loss | None = None,
        search: nn.Module | None = None,
        start: Callable[[], None] = lambda: None,
        shared: SharedUpdate | None = None,
    ) -> Callable[..., None]:
        """Return the function that does one update on a batch (default: `self.batch`) and waits until it is done."""
        loss = loss or Loss(1.0, 0.0, 1.0, None)
        parameters = [p for m in (self.model, search) if m is not None for p in m.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)

        def update(batch: Batch = self.batch) -> None:
            start()
            autocast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
            with autocast:
                if shared is None:
                    value, _ = loss(self.speech, batch)
                else:
                    targets, _ = shared.add(batch, None, 0, Tensor.backward)
                    outputs = self.speech.logits(batch.inputs, batch.lengths, batch.labels)
                    value, _ = loss.of(self.speech, batch, outputs, targets)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return update


BITS = 4  # of the uniform systems
TARGET = 3.5  # average bits of the supernets
_STEPS = 1000  # of the search; only the first is run


def full_precision(work: Workload) -> Callable[..., None]:
    """Plain fine-tuning."""
    return work.step()


def uniform(work: Workload) -> Callable[..., None]:
    """Our uniform quantization-aware training: LSQ, one scale per channel."""
    attach(work.model, work.sites(), (BITS,), QuantizerSettings(clipping="minmax"))
    return work.step()


def supernet(
    work: Workload, everything: bool = False, kept: bool = False, networks: tuple[int | str, ...] = ()
) -> Callable[..., None]:
    """Our supernet of three candidates; with `everything` all weights are quantized and a teacher gives targets.

    `kept`: after the first update the targets are read from disk (`distill.keep`). networks: trained beside the mixture
    (`mpq.train.shared`).
    """
    teacher = work.speech.copy() if everything else None
    posteriors = Posteriors(_temporary_folder(), teacher) if teacher and kept else None
    sites = find_sites(work.model) if everything else work.sites()
    quantizers = attach(work.model, sites, CANDIDATES, QuantizerSettings(clipping="minmax"))
    search = GumbelSearch(CANDIDATES, freeze_at=1.0)
    search.bind(work.sites(), TARGET, seed=0)
    search.to(work.device)
    precisions = Precisions(search, quantizers)
    loss = Loss(1.0, 1.0, 1.0, teacher, posteriors) if teacher else None
    shared = SharedUpdate(Shared(networks), precisions, work.speech, loss) if networks and loss else None
    return work.step(loss, search, lambda: precisions.start_step(0, _STEPS), shared)


def _temporary_folder() -> Path:
    """A folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="mpq-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def torchao(work: Workload) -> Callable[..., None]:
    """torchao's quantization-aware training: weights at 4 bits, one scale per channel."""
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    names = set(work.linears())
    weights = IntxFakeQuantizeConfig(getattr(torch, f"int{BITS}"), granularity=PerAxis(0))
    quantize_(work.model, QATConfig(weight_config=weights, step="prepare"), lambda _, name: name in names)
    return work.step()


def brevitas(work: Workload) -> Callable[..., None]:
    """Brevitas' layers: weights at 4 bits, one scale per channel."""
    from brevitas.nn import QuantLinear
    from brevitas.quant import Int8WeightPerChannelFloat

    def make(linear: nn.Linear) -> nn.Module:
        settings = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": BITS}
        layer = QuantLinear(linear.in_features, linear.out_features, linear.bias is not None, **settings)
        layer.load_state_dict(linear.state_dict(), strict=False)
        return layer

    work.replace_linears(make)
    return work.step()


class _Branches(nn.Module):
    """The usual form of a supernet: one product per candidate, mixed outputs, plain differentiable code."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.logits = nn.Parameter(torch.zeros(len(CANDIDATES)))
        peak = linear.weight.detach().abs().amax(dim=1, keepdim=True)
        self.scales = nn.ParameterList([nn.Parameter(peak / 2 ** (bits - 1)) for bits in CANDIDATES])

    def forward(self, inputs: Tensor) -> Tensor:
        shares = F.gumbel_softmax(self.logits, tau=1.0)
        total = torch.zeros((), device=inputs.device)
        for bits, scale, share in zip(CANDIDATES, self.scales, shares, strict=True):
            total = total + share * F.linear(inputs, self._weight(bits, scale), self.linear.bias)
        return total

    def _weight(self, bits: int, scale: Tensor) -> Tensor:
        ratio = (self.linear.weight / scale).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return (ratio + (ratio.round() - ratio).detach()) * scale  # straight-through estimator


def multi_branch(work: Workload) -> Callable[..., None]:
    """The straightforward supernet of three candidates."""
    work.replace_linears(_Branches)
    return work.step()


SYSTEMS: Mapping[str, Callable[[Workload], Callable[..., None]]] = {
    "full_precision": full_precision,
    "uniform_4bit": uniform,
    "supernet": supernet,
    "one_stage_update": partial(supernet, everything=True),
    "one_stage_update_kept_targets": partial(supernet, everything=True, kept=True),
    "one_stage_shared_update": partial(supernet, everything=True, networks=CANDIDATES),
    "one_stage_shared_update_of_two": partial(supernet, everything=True, networks=(min(CANDIDATES),)),
    "multi_branch_supernet": multi_branch,
    "torchao_qat_4bit": torchao,
    "brevitas_4bit": brevitas,
}
