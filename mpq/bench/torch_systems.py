"""Running a model in PyTorch: as it is, with its dynamic quantization, and our packed weights computed at each use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpq.bench.system import Logits, System


class TorchFloat(System):
    """transformers' model as it is."""

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.float_folder()

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        return _torch_logits(_torch_model(path), threads)


class TorchInt8(System):
    """PyTorch's dynamic quantization: linear layers with 8-bit weights, inputs to 8 bits as they come.

    It has no safe file format; what is loaded is the float32 folder, and quantized there.
    """

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.float_folder()

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        import warnings

        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao is to move to torchao
            model = torch.ao.quantization.quantize_dynamic(_torch_model(path), {torch.nn.Linear}, dtype=torch.qint8)
        return _torch_logits(model, threads)


@dataclass(frozen=True)
class TorchPacked(System):
    """Our packed folder, loaded by transformers, its weights packed in memory and computed at each use."""

    bits: float

    def make(self, files: Any) -> Path:
        """See `System`."""
        return files.packed(self.bits)

    def load(self, path: Path, threads: int) -> Logits:
        """See `System`."""
        from mpq.checkpoint.hf import MpqConfig

        return _torch_logits(_torch_model(path, quantization_config=MpqConfig(keep_packed=True)), threads)


def _torch_model(path: Path, **settings: Any) -> Any:
    from transformers import AutoModelForCTC
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCTC.from_pretrained(path, **settings).eval()


def _torch_logits(model: Any, threads: int) -> Logits:
    import torch

    def logits(audio: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return model(torch.from_numpy(audio)[None]).logits[0].numpy()

    return logits
