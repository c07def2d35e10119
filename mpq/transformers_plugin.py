"""Make transformers' own `from_pretrained` load packed folders, without importing transformers.

transformers looks a folder's `quant_method` up in a registry of its own (`transformers.quantizers.auto`). Registering
there means importing it, seconds of work that `import mpq` must not cost. So where that module is not imported yet, it
registers us at the moment it is: every model class of transformers imports it before it can load anything.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

_MODULE = "transformers.quantizers.auto"


class _RegisterAfterImport(importlib.abc.MetaPathFinder):
    """Finds the one module as Python would, and has its loader register us when it is done."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the registry's module only."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == _MODULE else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            # It registers at its end. Where it is what brought us here, it is half imported and will do so later.
            import_module("mpq.checkpoint.hf")

        spec.loader.exec_module = execute_and_register
        return spec


def install() -> None:
    """Register the packed format with transformers, now if it is imported already, or else when it will be."""
    if _MODULE in sys.modules:
        import_module("mpq.checkpoint.hf").register()
    elif not any(isinstance(finder, _RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfterImport())
