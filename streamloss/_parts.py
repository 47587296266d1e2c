"""Helpers as parts of kernels: they become machine code in whatever calls them, and nowhere else.

Numba optimises every function and makes machine code of it before another one may call it, and does both again in the
caller, which it is linked into. For functions that Python never calls, once is enough: the first result from an empty
cache folder takes two thirds of the time.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

NO_MACHINE_CODE = SimpleNamespace(set_env=lambda name, env: None)


class Optimised(JITCodeLibrary):
    """The code of a helper, ready to be linked, in LLVM's representation alone."""

    def _finalize_final_module(self) -> None:
        for function in self.get_defined_functions():
            if function.linkage.name == "external":
                function.linkage = "linkonce_odr"  # as Numba does for what it links: it may be there twice
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Where Python could call it: nowhere."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """Where the objects that code refers to are written; helpers refer to none."""
        return NO_MACHINE_CODE


class Raw(Optimised):
    """The same as it was written: all of it is optimised in the kernel."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


class RawParts(Compiler):
    """Compiles helpers into `Raw` code."""

    def __init__(self, typing: Any, target: Any, library: Any, *further: Any) -> None:
        super().__init__(typing, target, Raw(target.codegen(), "part"), *further)


class OptimisedParts(Compiler):
    """Compiles helpers into `Optimised` code."""

    def __init__(self, typing: Any, target: Any, library: Any, *further: Any) -> None:
        super().__init__(typing, target, Optimised(target.codegen(), "part"), *further)
