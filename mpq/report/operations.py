"""How many operations an update takes, counted at the true dimensions without weights, and how many updates there are.

A forward pass is counted by PyTorch (`torch.utils.flop_counter`: matrix products, convolutions, attention) on the meta
device. A backward pass has two products for each of the forward pass, the gradients of inputs and of weights, and none
for the frozen convolutions on the audio. (PyTorch 2.13 counts too much for that of a grouped convolution.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from mpq import conf
from mpq.errors import UserError

_SECONDS = 16  # of an utterance; attention makes a longer one cost more a second, by 2 percent from 12 to 16 s


@dataclass(frozen=True)
class Count:
    """A model's parameters, and its FLOP for a second of audio: of a forward pass, and of an update.

    An update is the student's forward and backward pass and the teacher's forward pass.
    """

    parameters: int
    forward: float
    update: float


@cache
def count(model: str) -> Count:
    """Count the operations of a model of `conf/model/` at its true dimensions; raises UserError for an unknown one."""
    architecture = conf.model(model).get("architecture")
    if architecture is None:
        known = [name for name in conf.names("model") if "architecture" in conf.model(name)]
        raise UserError(f"model={model} has no architecture to count; choose among {', '.join(known)}")
    import torch

    from mpq.models.ctc import from_scratch

    with torch.device("meta"):
        network: Any = from_scratch(architecture, seed=0)[0].eval()
        audio = torch.empty(1, 16000 * _SECONDS)
        whole = _counted(lambda: network(audio))
        frozen = 0.0
        if not conf.read("trainer", "tiny")["train_feature_encoder"]:  # the paper's settings inherit it
            frozen = _counted(lambda: network.base_model.feature_extractor(audio))
    return Count(sum(parameter.numel() for parameter in network.parameters()), whole, 2 * whole + 2 * (whole - frozen))


def _counted(work: Callable[[], object]) -> float:
    """FLOP of `work` for a second of audio."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / _SECONDS


def updates_of(recipe: str) -> int:
    """The updates of all stages of a recipe at scale paper; none where it doesn't train."""
    settings = {"trainer": conf.read("trainer", "paper"), "stages": conf.read("recipe", recipe)["stages"]}
    stages: Any = OmegaConf.create(settings).stages
    return sum(stage.updates for stage in stages.values())
