"""Where the tests add: on the CPU; on a CUDA device; or, with NUMBA_ENABLE_CUDASIM=1, on Numba's CUDA simulator.

The simulator is Python, so the same tests draw smaller data and fewer examples there; its blocks are smaller, too, so
that such data still spans several.
"""

import numpy as np
from hypothesis import settings
from numba.core import config

from streamloss import operands

SIMULATED = bool(config.ENABLE_CUDASIM)
BLOCK = 96 if SIMULATED else operands.BLOCK  # 96 elements: all blocks of a simulated launch, once or more


def examples(count):
    """Settings for that many examples, or the few that the simulator has time for."""
    return settings(max_examples=max(2, count // 8) if SIMULATED else count, deadline=None)


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


def _memory(address, size):
    import ctypes

    return (ctypes.c_char * size).from_address(address)
