"""Mixed precision quantization of speech foundation models (arXiv 2501.03643).

Importing this package is cheap: it imports neither torch nor transformers. The names below are imported on first
use. Once it is imported, transformers' `from_pretrained` loads packed folders.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpq import import_hooks

if TYPE_CHECKING:
    from mpq.checkpoint.hf import MpqConfig
    from mpq.checkpoint.packed import load_packed, save_packed
    from mpq.errors import UserError
    from mpq.quant.api import quantize
    from mpq.quant.sites import detach

_HOMES = {
    "MpqConfig": "mpq.checkpoint.hf",
    "UserError": "mpq.errors",
    "detach": "mpq.quant.sites",
    "load_packed": "mpq.checkpoint.packed",
    "quantize": "mpq.quant.api",
    "save_packed": "mpq.checkpoint.packed",
}
__all__ = ["MpqConfig", "UserError", "detach", "load_packed", "quantize", "save_packed"]

import_hooks.import_torchaudio_without_cuda()
import_hooks.register_with_transformers()
import_hooks.drop_missing_backend()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
