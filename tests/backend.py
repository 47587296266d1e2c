"""Where the tests add: on the CPU; on a CUDA device; or, with NUMBA_ENABLE_CUDASIM=1, on Numba's CUDA simulator.

The simulator is Python, so the same tests draw smaller data and fewer examples there; its blocks are smaller, too, so
that such data still spans several.
"""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import settings
from numba.core import config

from streamloss import Accumulator, GroupedAccumulator
from streamloss.cpu import operands

SIMULATED = bool(config.ENABLE_CUDASIM)
BLOCK = 96 if SIMULATED else operands.BLOCK  # 96 elements: all blocks of a simulated launch, once or more


def examples(count):
    """Settings for that many examples, or the few that the simulator has time for."""
    return settings(max_examples=max(4, count // 4) if SIMULATED else count)


class DeviceArray:
    """An array as another library would hand it over: host memory in the simulator, a device's otherwise."""

    def __init__(self, array, stream=1):
        self.shape, self.dtype, self._stream = array.shape, array.dtype, stream
        if SIMULATED:
            self._array, self._interface = array, array.__array_interface__
        else:
            from numba import cuda

            self._array = array
            low, high = np.lib.array_utils.byte_bounds(array) if array.size else (0, 0)
            everything = np.ndarray((high - low,), np.uint8, buffer=_memory(low, high - low)) if high > low else None
            self._copy = cuda.to_device(everything) if everything is not None else None
            start = array.__array_interface__["data"][0] - low
            base = self._copy.__cuda_array_interface__["data"][0] + start if self._copy is not None else 0
            self._interface = {**array.__array_interface__, "data": (base, not array.flags.writeable)}
            self._low, self._size = low, high - low

    @property
    def __cuda_array_interface__(self):
        kept = {name: self._interface[name] for name in ("shape", "typestr", "data", "strides")}
        return {**kept, "version": 3, "stream": self._stream}

    def host(self):
        """The array on the host again, with what was written to it."""
        if not SIMULATED and self._copy is not None:
            np.ndarray((self._size,), np.uint8, buffer=_memory(self._low, self._size))[:] = self._copy.copy_to_host()
        return self._array


@contextmanager
def adding_on(device):
    """Accumulators are made for this device unless told otherwise; groups know of none, and are given device arrays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Accumulator.__init__.__kwdefaults__, "device", device)
        patch.setattr(GroupedAccumulator, "_add", _ADD if device == "auto" else _add_device_arrays)
        yield


@contextmanager
def torch_may_not_wait():
    """What makes torch wait for the device is an error; it warns that this is a prototype."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


_ADD = GroupedAccumulator._add


def _add_device_arrays(self, loss, labels, predictions, weights, by, mask, out):
    """What is no array of numbers is refused, or read, as on the CPU."""
    chunk = [_moved(part) for part in (labels, predictions, weights, mask, out)]
    if any(type(part) is np.ndarray for part in chunk):
        return _ADD(self, loss, labels, predictions, weights, by, mask, out)
    labels, predictions, weights, mask, out = chunk
    _ADD(self, loss, labels, predictions, weights, by, mask, out)
    if out is not None:
        out.host()
    return self


def _moved(part):
    if not isinstance(part, (list, np.ndarray)):
        return part
    array = np.asarray(part)
    return DeviceArray(array) if array.dtype.kind in "biuf" and type(part) in (list, np.ndarray) else array


def _memory(address, size):
    import ctypes

    return (ctypes.c_char * size).from_address(address)
