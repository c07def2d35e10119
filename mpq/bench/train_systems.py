"""The systems whose training steps are compared: what each puts onto the encoder's linear layers."""

# The peers are an optional extra.
# pyright: reportMissingImports=false
import atexit
import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.bench.models import CANDIDATES
from mpq.bench.workload import Workload
from mpq.quant.sites import attach, find_sites
from mpq.search.gumbel import GumbelSearch
from mpq.train.distillation import Loss
from mpq.train.posteriors import Posteriors
from mpq.train.precisions import Precisions

BITS = 4  # of the uniform systems
TARGET = 3.5  # average bits of the supernets
_STEPS = 1000  # of the search; only the first is run


def full_precision(work: Workload) -> Callable[..., None]:
    """Plain fine-tuning."""
    return work.step()


def uniform(work: Workload) -> Callable[..., None]:
    """Our uniform quantization-aware training: LSQ, a scale a channel."""
    attach(work.model, work.sites(), (BITS,), granularity="per_channel", clipping="minmax")
    return work.step()


def supernet(work: Workload, everything: bool = False, kept: bool = False) -> Callable[..., None]:
    """Our supernet of three candidates; with `everything` all weights are quantized, and a teacher gives targets.

    `kept`: after the first update they are read from disk (`distill.keep`).
    """
    teacher = copy.deepcopy(work.model).eval() if everything else None
    posteriors = Posteriors(_temporary_folder(), teacher, attention_mask=False) if teacher and kept else None
    sites = find_sites(work.model) if everything else work.sites()
    quantizers = attach(work.model, sites, CANDIDATES, granularity="per_channel", clipping="minmax")
    search = GumbelSearch(CANDIDATES, freeze_at=1.0)
    search.bind(work.sites(), TARGET, seed=0)
    search.to(work.device)
    precisions = Precisions(search, quantizers)
    loss = Loss(1.0, 1.0, 1.0, teacher, attention_mask=False, posteriors=posteriors) if teacher else None
    return work.step(loss, search, lambda: precisions.start_step(0, _STEPS))


def _temporary_folder() -> Path:
    """A folder that is gone when this process ends."""
    folder = tempfile.mkdtemp(prefix="mpq-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def torchao(work: Workload) -> Callable[..., None]:
    """torchao's quantization-aware training: weights at 4 bits, a scale a channel."""
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    names = set(work.linears())
    weights = IntxFakeQuantizeConfig(getattr(torch, f"int{BITS}"), granularity=PerAxis(0))
    quantize_(work.model, QATConfig(weight_config=weights, step="prepare"), lambda _, name: name in names)
    return work.step()


def brevitas(work: Workload) -> Callable[..., None]:
    """Brevitas' layers: weights at 4 bits, a scale a channel."""
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
    """A supernet as it is usually written: one product a candidate, the outputs mixed, plain differentiable code."""

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
        return (ratio + (ratio.round() - ratio).detach()) * scale  # straight through


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
    "multi_branch_supernet": multi_branch,
    "torchao_qat_4bit": torchao,
    "brevitas_4bit": brevitas,
}
