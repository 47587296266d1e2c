"""The CUDA backend: the same state and the same bits as on the CPU, for arrays on a device, without waiting for it.

Nothing but this file is imported before the first device array arrives or `device="cuda"` is asked for.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import Any

INSTALL = (
    "install it with pip install 'streamloss[cuda13]' (or 'streamloss[cuda12]' for a driver of CUDA 12); it needs an"
    " NVIDIA GPU and its driver"
)
_ready = False


def check() -> None:
    """Make sure that there is a device; RuntimeError if not, with what to install."""
    global _ready
    if _ready:
        return
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") in ("", "0"):
        if importlib.util.find_spec("numba_cuda") is None:
            raise RuntimeError(f"no CUDA support: the package numba-cuda is missing; {INSTALL}")
        try:
            from . import driver

            found = driver.count()
            driver.check_compiler()
        except Exception as error:
            reason = " ".join(str(error).split())
            raise RuntimeError(f"no CUDA device that can be used: {reason}; {INSTALL}") from None
        if found == 0:
            raise RuntimeError(f"no CUDA device: the driver finds none; {INSTALL}")
    _ready = True


@cache
def is_there() -> bool:
    """Whether there is a device, and all that is needed to add on it."""
    try:
        check()
    except RuntimeError:
        return False
    return True


def ordinal(device: str) -> int:
    """The number of a device by its name, "cuda" or "cuda:1"; RuntimeError if it is not there."""
    check()
    from .devices import driver

    if device == "cuda":
        return int(driver.current())
    number = int(device.removeprefix("cuda:"))
    if number >= driver.count():
        raise RuntimeError(f"no CUDA device {number}: there are {driver.count()}")
    return number


@cache
def backend() -> Any:
    """Return the module `interface`, imported when it is needed; RuntimeError without a device."""
    check()
    from . import interface

    return interface
