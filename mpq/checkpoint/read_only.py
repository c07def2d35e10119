"""A tensor that refuses to be written to, for weights that are computed at each access.

Whatever is written to such a tensor would be lost without a word: the next access computes the old weight again. peft's
merge of an adapter, for one, adds to `layer.weight.data`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mpq.errors import UserError

REFUSED = (
    "a weight that is packed in memory can't be changed: load the model without keep_packed=True, or call "
    "model.dequantize() first"
)


class ReadOnly(Tensor):
    """A tensor, and each of its views, that raises UserError at every write to it.

    Reading is as for any tensor; what does not share its memory (a copy, a layer's output) is a plain tensor.
    """

    _is_hf_initialized = True  # else transformers would initialize it after loading, as any tensor without this mark

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` on plain tensors, unless it writes to one of these."""
        kwargs = kwargs or {}
        if _writes(func.__name__, args, kwargs):
            raise UserError(REFUSED)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            own = {one.untyped_storage().data_ptr() for one in args if isinstance(one, cls)}
            if isinstance(result, (tuple, list)):
                return type(result)(_marked(one, own) for one in result) if type(result) in (tuple, list) else result
            return _marked(result, own)


def _writes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function of that name, called so, would write to a read-only tensor.

    In place are add_, __iadd__, __setitem__ and the setter of .data, all of which have their target first; and out=.
    """
    out = kwargs.get("out")
    if any(isinstance(one, ReadOnly) for one in (out if isinstance(out, (tuple, list)) else (out,))):
        return True
    special = name.startswith("__")
    in_place = name in ("__set__", "__setitem__") or name in _AUGMENTED if special else name.endswith("_")
    target = args[0] if args else None
    return in_place and any(isinstance(one, ReadOnly) for one in (target if isinstance(target, list) else (target,)))


_AUGMENTED = {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")}


def _marked(value: Any, own: set[int]) -> Any:
    shares = isinstance(value, Tensor) and value.untyped_storage().data_ptr() in own
    return value.as_subclass(ReadOnly) if shares else value
