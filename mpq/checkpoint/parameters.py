"""A model's tensors under their plain names, whether or not quantizers are attached.

`state_dict()` would do for a plain model, but names an attached weight `x.parametrizations.weight.original` and lists
the quantizer's own parameters; a file is written in plain names only.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpq.quant.quantizer import WeightQuantizer


def stored_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return every parameter and persistent buffer by plain name, and the ties.

    A quantized weight is the float weight under its quantizer. A parameter that several modules share is listed once,
    under its first name in the module order; the ties map each other name to that one.
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in _named_tensors(model):
        if name in tensors or name in tied:
            continue
        source = first.setdefault(id(tensor), name)
        if source == name:
            tensors[name] = tensor
        else:
            tied[name] = source
    return tensors, tied


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, shared ones once and quantizers' own left out.

    For the figures of a float model count before attaching: attaching folds a weight norm, whose gains (128 numbers in
    wav2vec2 and HuBERT) then no longer exist.
    """
    return sum(tensor.numel() for tensor in stored_tensors(model)[0].values() if isinstance(tensor, nn.Parameter))


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers with their names, in hexadecimal."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(stored_tensors(model)[0].items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def put_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make `tensor` the parameter or buffer `name` of a plain model; a parameter is passed on as the object it is."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers:
        module._buffers[leaf] = tensor
    else:
        module._parameters[leaf] = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        if "parametrizations" in prefix.split("."):
            continue  # reached through its module, below
        dot = f"{prefix}." if prefix else ""
        for name, tensor in module._parameters.items():
            if tensor is not None:
                yield dot + name, tensor
        for name, tensor in module._buffers.items():
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield dot + name, tensor
        if parametrize.is_parametrized(module):
            yield from _parametrized(dot, module)


def _parametrized(dot: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(module.parametrizations, nn.ModuleDict)
    for name, chain in module.parametrizations.items():
        if isinstance(chain[0], WeightQuantizer):  # type: ignore[index]
            yield dot + name, chain.original  # type: ignore[misc]
        else:
            # Another parametrization (weight norm) holds several tensors, each a parameter of its own.
            yield from ((f"{dot}parametrizations.{name}.{key}", value) for key, value in chain.named_parameters())
