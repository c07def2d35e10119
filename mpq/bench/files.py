"""The files that the systems load, each made once, when it is first asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mpq.bench.models import load_model, quantize_at
from mpq.checkpoint.packed import save_packed

_OPSET = 20


class Files:
    """The files of one model in one folder."""

    def __init__(self, model: str, folder: Path) -> None:
        torch.set_num_threads(1)  # making files is many small steps, which a busy second core would only hold up
        self.model = model
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the path `name` in the folder, which `make` writes where it is not there yet."""
        path = self.folder / name
        if not path.exists():
            make(path)
        return path

    def float_folder(self) -> Path:
        """The float32 model as transformers saves it."""

        def make(path: Path) -> None:
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()
            model, processor = load_model(self.model)
            model.save_pretrained(path)
            processor.save_pretrained(path)

        return self.once("float", make)

    def float_onnx(self) -> Path:
        """The float32 model by PyTorch's own exporter, batch and length free."""
        return self.once("float.onnx", lambda path: _export(load_model(self.model)[0], path))

    def packed(self, bits: float, clipping: str = "minmax") -> Path:
        """Our packed folder at `bits` on average."""

        def make(path: Path) -> None:
            model, processor = load_model(self.model)
            quantize_at(model, bits, clipping)
            save_packed(path, model, processor)

        return self.once(f"packed_{bits:g}_{clipping}", make)


def _export(model: Any, path: Path) -> None:
    import logging
    import warnings

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notes on its own insides
        torch.onnx.export(
            model,
            (torch.randn(1, 16_000),),
            path,
            dynamo=True,
            external_data=False,
            input_names=["input_values"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("samples")},),
            opset_version=_OPSET,
            verbose=False,
        )
