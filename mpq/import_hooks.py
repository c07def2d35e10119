"""What `import mpq` prepares for later imports, without importing torch or transformers: two hooks and a variable.

*torchaudio on a CPU-only build of PyTorch.* torchaudio's wheel on PyPI is a CUDA build. Without CUDA its extension
fails to load (`libc10_cuda.so: cannot open shared object file`), which breaks `import torchaudio` and with it every
speech model of transformers. What we use of torchaudio (resampling, dataset download) is plain Python, so on such a
machine its module `torchaudio._extension` is replaced by one that says that there is no extension. On a CUDA build
nothing changes.

*transformers' `from_pretrained`.* transformers looks up a folder's `quant_method` in its own registry
(`transformers.quantizers.auto`). Registering there would import it, which takes seconds. So we register at the moment
that module is first imported; every model class of transformers imports it before it can load anything.

*A notebook's MPLBACKEND.* A notebook passes its backend of matplotlib on to the programs that it starts. Where these
lack the backend's package, `import matplotlib` fails, and with it Lightning. We open no windows, so there we drop it.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_TORCHAUDIO = "torchaudio._extension"


class _MissingExtension(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `torchaudio._extension` on a CPU-only build of PyTorch, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the one module, and only where PyTorch has no CUDA."""
        if fullname != _TORCHAUDIO:
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


def import_torchaudio_without_cuda() -> None:
    """Register the replacement once."""
    if not any(isinstance(finder, _MissingExtension) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MissingExtension())


_REGISTRY = "transformers.quantizers.auto"


class _RegisterAfterImport(importlib.abc.MetaPathFinder):
    """Finds the one module as Python would, and has its loader register us when it is done."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the registry's module only."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == _REGISTRY else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            # It registers at its end. Where it is what brought us here, it is half imported and will do so later.
            import_module("mpq.checkpoint.hf")

        spec.loader.exec_module = execute_and_register
        return spec


def register_with_transformers() -> None:
    """Register the packed format with transformers, now if it is imported already, or else when it will be."""
    if _REGISTRY in sys.modules:
        import_module("mpq.checkpoint.hf").register()
    elif not any(isinstance(finder, _RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfterImport())


def drop_missing_backend() -> None:
    """Remove MPLBACKEND from the environment if it names a backend whose package is not installed here."""
    backend = os.environ.get("MPLBACKEND", "")
    module = "matplotlib_inline" if backend == "inline" else backend.partition("module://")[2]
    if module and find_spec(module.partition(".")[0]) is None:
        del os.environ["MPLBACKEND"]
