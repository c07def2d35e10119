"""Training checkpoints without pickle.

Lightning's own checkpoints are pickles, and loading a pickle can run code. Here the tensors of a checkpoint go to a
safetensors file and everything else (counters, learning rates, callback states) to JSON in that file's metadata.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import CheckpointIO
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpq.errors import UserError
from mpq.files import replacing

_TENSOR, _PAIRS, _TUPLE = "__tensor__", "__pairs__", "__tuple__"


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON data; its tensors are copied to `tensors`, since safetensors accepts no aliases."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):  # as pairs: the optimizer's state has integer keys, which JSON objects can't have
        return {_PAIRS: [[_key(key), _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint can't hold a {type(value).__name__}")


def _key(key: Any) -> Any:
    if isinstance(key, (int, str)):
        return key
    raise TypeError(f"a checkpoint can't hold a dictionary with the key {key!r}")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_decode(item, tensors) for item in value[_TUPLE])
    return {key: _decode(item, tensors) for key, item in value[_PAIRS]}


def _checksum(structure: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of the whole content: safetensors detects a truncated file, but not a wrong byte."""
    value = zlib.crc32(structure.encode())
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


class SafetensorsCheckpointIO(CheckpointIO):
    """Lightning's checkpoint reader and writer over one safetensors file, written whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`.

        Raises: TypeError if it contains anything but tensors, containers, numbers and text; UserError if the file can't
        be written.
        """
        tensors: dict[str, Tensor] = {}
        structure = json.dumps(_encode(checkpoint, tensors))
        metadata = {"structure": structure, "crc32": _checksum(structure, tensors)}
        try:
            with replacing(Path(path)) as temporary:
                save_file(tensors, temporary, metadata)
        except OSError as error:
            raise UserError(f"the training checkpoint {path} can't be written: {error.strerror}") from None

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read what `save_checkpoint` wrote, to the CPU.

        Raises: UserError if the file is damaged.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata()
            if metadata["crc32"] != _checksum(metadata["structure"], tensors):
                raise ValueError("its checksum differs")
            return _decode(json.loads(metadata["structure"]), tensors)
        except Exception as error:  # whatever error a damaged file causes, the user needs the same advice
            raise UserError(f"the training checkpoint {path} is damaged ({error}); delete it to start again") from None

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file."""
        Path(path).unlink(missing_ok=True)


def end_epoch(checkpoint: dict[str, Any]) -> None:
    """Set Lightning's counters to the state between two epochs.

    It saves at an epoch's end before it counts that epoch as completed. Without this, a resumed run would take one more
    batch of the old epoch, and every later update would differ from the uninterrupted run's.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    for progress in (epochs["total"], epochs["current"], batches["total"]):
        progress.update(dict.fromkeys(progress, progress["ready"]))
    batches["current"].update(dict.fromkeys(batches["current"], 0))
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
