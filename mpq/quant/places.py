"""Where a model keeps its tensors: ties and parametrizations, as `sites` needs to see them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpq.quant.quantizer import WeightQuantizer


@dataclass(frozen=True)
class Place:
    """One module's tensor, plain or parametrized; a tied tensor has several places."""

    path: str
    module: nn.Module
    tensor_name: str

    @property
    def name(self) -> str:
        """The tensor's name as a plain parameter."""
        return f"{self.path}.{self.tensor_name}" if self.path else self.tensor_name

    @property
    def parametrizations(self) -> parametrize.ParametrizationList | None:
        """What computes the tensor, or None for a plain parameter."""
        if not parametrize.is_parametrized(self.module, self.tensor_name):
            return None
        lists = cast(nn.ModuleDict, self.module.parametrizations)
        return cast(parametrize.ParametrizationList, lists[self.tensor_name])

    @property
    def quantizer(self) -> WeightQuantizer | None:
        """The quantizer attached here, or None."""
        first = None if self.parametrizations is None else self.parametrizations[0]
        return first if isinstance(first, WeightQuantizer) else None

    @property
    def value(self) -> Tensor:
        """What the module computes with: the fake-quantized weight if a quantizer is attached."""
        return getattr(self.module, self.tensor_name)

    @property
    def weight(self) -> Tensor:
        """The tensor before our quantizer but after any other parametrization."""
        return self.value if self.parametrizations is None or self.quantizer is None else self.parametrizations.original

    def add_quantizer(self, quantizer: WeightQuantizer) -> None:
        """Let the module compute with what `quantizer` makes of the tensor."""
        # unsafe=True only skips a trial call, which would fail for a mixture without lambdas.
        parametrize.register_parametrization(self.module, self.tensor_name, quantizer, unsafe=True)

    def remove_quantizer(self) -> None:
        """Remove the quantizer and put back the parameter object that it was attached to."""
        self._own_class()
        parametrize.remove_parametrizations(self.module, self.tensor_name, leave_parametrized=False)

    def fold(self) -> None:
        """Replace a parametrization by a plain parameter with its value."""
        assert self.parametrizations is not None
        trained = any(parameter.requires_grad for parameter in self.parametrizations.parameters())
        self._own_class()
        with torch.no_grad():
            parametrize.remove_parametrizations(self.module, self.tensor_name)
        # torch leaves a buffer where no gradient is recorded; a weight must stay a parameter.
        setattr(self.module, self.tensor_name, nn.Parameter(self.value.detach(), requires_grad=trained))

    def _own_class(self) -> None:
        """Give the module its own class.

        In torch 2.13 a deep copy shares the class made for its parametrized original, and removing a parametrization
        deletes the property from that class: folding the student would break the teacher.
        """
        shared = type(self.module)
        own = type(shared.__name__, shared.__bases__, dict(shared.__dict__))
        self.module.__class__ = own  # pyright: ignore[reportAttributeAccessIssue]


def tensor_places(model: nn.Module) -> Iterator[list[Place]]:
    """Yield, for every parameter of the model in the order of its modules, the places that share it."""
    shared: dict[int, list[Place]] = {}
    for path, module in model.named_modules():
        if "parametrizations" in path.split("."):
            continue  # the inside of a parametrized tensor
        for name, parameter in module.named_parameters(recurse=False):
            shared.setdefault(id(parameter), []).append(Place(path, module, name))
        for name in getattr(module, "parametrizations", {}):
            place = Place(path, module, name)
            key = place.parametrizations if place.quantizer is None else place.weight
            shared.setdefault(id(key), []).append(place)
    yield from shared.values()


def first_places(model: nn.Module) -> dict[str, Place]:
    """Return the first place of every parameter, by the parameter's name."""
    return {group[0].name: group[0] for group in tensor_places(model)}
