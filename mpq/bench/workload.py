"""What every training step that is measured has in common: the model, the batch and the update around it."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from mpq.bench.models import load_model
from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.quant.sites import find_sites
from mpq.train.distillation import Loss

_CHARACTERS = 10  # of each utterance's made-up transcript


def chosen_device(device: str) -> str:
    """Return cpu or cuda; auto is a GPU where there is one.

    Raises:
        UserError: another word, or a GPU asked for where there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not has_gpu):
        raise UserError(f"device={device} must be auto, cpu, or cuda where PyTorch finds a GPU")
    return ("cuda" if has_gpu else "cpu") if device == "auto" else device


class Workload:
    """A model in training, its batch, and the update around it."""

    def __init__(self, model: str, batch: int, seconds: float, device: str, bf16: bool) -> None:
        self.device, self.bf16 = torch.device(device), bf16
        self.model, self.processor = load_model(model)
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
        """Put what `make` returns in the place of each of the encoder's linear layers."""
        for name, linear in self.linears().items():
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, make(linear).to(self.device))

    def step(
        self, loss: Loss | None = None, search: nn.Module | None = None, start: Callable[[], None] = lambda: None
    ) -> Callable[..., None]:
        """Return the function that does one update on a batch, by default its own, and waits until it is done."""
        loss = loss or Loss(1.0, 0.0, 1.0, None, attention_mask=False)
        parameters = [p for m in (self.model, search) if m is not None for p in m.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)

        def update(batch: Batch = self.batch) -> None:
            start()
            autocast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
            with autocast:
                value, _ = loss(self.model, batch)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return update
