"""The hardware of a stage: Lightning's settings in `trainer`, threads, and compilation."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from mpq.cores import usable_cores
from mpq.quant.rules import Compile
from mpq.train import processes
from mpq.train.rules import check_machine

_SMALL_MODEL = 5_000_000  # parameters; below this one thread trained 2 to 5 times faster than two


@dataclass(frozen=True)
class Machine:
    """What a stage runs on, in Lightning's terms; `threads` 0 means automatic.

    gradient_checkpointing: store only each layer's inputs and recompute the rest in the backward pass. compile: use
    torch.compile for the quantizers, see `mpq.quant.compiled.choose`.

    Raises: UserError for a value that can't be used.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int = 0
    gradient_checkpointing: bool = False
    compile: Compile = "auto"

    def __post_init__(self) -> None:
        check_machine(asdict(self))


def choose_threads(model: torch.nn.Module, threads: int = 0) -> None:
    """Set PyTorch's number of threads to `threads`; if 0, to one for small models and all cores for others."""
    small = sum(parameter.numel() for parameter in model.parameters()) < _SMALL_MODEL
    torch.set_num_threads(threads or (1 if small else usable_cores()))


def machine_of(trainer: Mapping[str, Any]) -> Machine:
    """Return the machine that the settings of `trainer` describe."""
    return Machine(**{field.name: trainer[field.name] for field in fields(Machine)})


def check(machine: Machine) -> None:
    """Check, before anything is written, that `machine` is available here.

    Raises: UserError if it isn't.
    """
    with processes.refused():
        lightning.Trainer(**placement(machine), logger=False, enable_checkpointing=False, enable_progress_bar=False)


def placement(machine: Machine, *plugins: Any) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that say where it runs."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if SLURMEnvironment.detect():
        plugins += (SLURMEnvironment(auto_requeue=False),)  # its handler may save mid-update
    strategy = machine.strategy
    if processes.count() > 1 and strategy in ("auto", "ddp"):
        strategy = "ddp_find_unused_parameters_true"  # scales of candidates not chosen, logits once frozen
    return {
        "accelerator": machine.accelerator,
        "devices": machine.devices,
        "num_nodes": machine.nodes,
        "strategy": strategy,
        "precision": machine.precision,
        "plugins": list(plugins),
    }
