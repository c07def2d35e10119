"""The model folder that a run leaves: packed where there are quantizers, plain float32 where there are none."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from mpq.checkpoint.format import CONFIG_FILE
from mpq.checkpoint.packed import load_packed, save_packed
from mpq.errors import UserError
from mpq.models import ctc
from mpq.quant.sites import quantizers_of
from mpq.record.atomic import replacing


def save(folder: Path, model: nn.Module, processor: Any) -> None:
    """Write `model` and `processor` to `folder`, whole or not at all."""
    if quantizers_of(model):
        save_packed(folder, model, processor)  # type: ignore[arg-type]  # every model here is transformers'
        return
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)  # type: ignore[operator]
        processor.save_pretrained(temporary)


def load(folder: Path) -> tuple[nn.Module, Any]:
    """Read back what `save` wrote, into plain float32 layers.

    Raises: UserError where the folder is missing or damaged.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a model's folder: {CONFIG_FILE} can't be read ({error})") from None
    return load_packed(folder) if "quantization_config" in config else ctc.load(str(folder))
