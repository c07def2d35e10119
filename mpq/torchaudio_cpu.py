"""Make torchaudio importable beside a CPU-only build of PyTorch.

torchaudio's wheel on PyPI is a CUDA build. Beside a PyTorch without CUDA its extension fails to load
(`libc10_cuda.so: cannot open shared object file`), and with it fails `import torchaudio` and every speech model of
transformers, which imports torchaudio where it is installed. What we use of torchaudio (resampling, dataset download)
is plain Python, so on such a machine its module `torchaudio._extension` is replaced by one that says that the
extension is not there. On a CUDA build nothing is touched.

The replacement waits in `sys.meta_path` until torchaudio is first imported: `import mpq` itself imports no torch.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_MODULE = "torchaudio._extension"


class _MissingExtension(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `torchaudio._extension` on a CPU-only build of PyTorch, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the one module, and only where PyTorch has no CUDA."""
        if fullname != _MODULE:
            return None
        import torch

        if torch.version.cuda is not None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Fill in the names that torchaudio's own Python files import from its extension module."""

        def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
            def fail(*arguments: Any, **settings: Any) -> Any:
                raise RuntimeError(f"{function.__name__} needs torchaudio's extension, which needs a CUDA build")

            return fail

        module.__dict__.update(
            _IS_TORCHAUDIO_EXT_AVAILABLE=False,
            _IS_ALIGN_AVAILABLE=False,
            _check_cuda_version=lambda: None,
            fail_if_no_align=fail_if_no_align,
        )


def install() -> None:
    """Register the replacement once."""
    if not any(isinstance(finder, _MissingExtension) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MissingExtension())
