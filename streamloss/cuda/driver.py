"""The CUDA driver, as far as it is needed: memory, copies, streams, events, launches.

Numba compiles the kernels; they are launched by the driver's own call, since Numba's would look at the type of every
argument again, which takes longer than the launch. `simulator.py` has the same names for the simulator.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any

import numpy as np
from cuda import bindings
from cuda.bindings import driver as cu
from cuda.pathfinder import load_nvidia_dynamic_lib
from numba import cuda

from . import compiling

# The default stream: it waits for the others and they wait for it, unless they say that they do not. Its number is
# CU_STREAM_LEGACY: to cuda-bindings, 0 may be told to mean one stream for each thread.
LEGACY = 1


def _checked(result: tuple[Any, ...]) -> Any:
    error, *values = result
    if error != cu.CUresult.CUDA_SUCCESS:
        _, name = cu.cuGetErrorName(error)
        _, text = cu.cuGetErrorString(error)
        forked = error == cu.CUresult.CUDA_ERROR_NOT_INITIALIZED
        hint = "; a process forked from one that uses CUDA cannot: start it by spawn" if forked else ""
        raise RuntimeError(f"CUDA: {bytes(name).decode()}: {bytes(text).decode()}{hint}")
    return values[0] if len(values) == 1 else values


def count() -> int:
    """The number of devices; RuntimeError without a driver, or with one that is older than what was installed."""
    _checked(cu.cuInit(0))
    version, wanted = int(_checked(cu.cuDriverGetVersion())), int(bindings.__version__.partition(".")[0])
    if version // 1000 < wanted:
        raise RuntimeError(
            f"the driver is of CUDA {version // 1000}.{version % 1000 // 10}, numba-cuda is installed for CUDA {wanted}"
        )
    return int(_checked(cu.cuDeviceGetCount()))


def check_compiler() -> None:
    """RuntimeError without the library that compiles kernels, which numba-cuda alone does not bring."""
    try:
        load_nvidia_dynamic_lib("nvvm")
    except RuntimeError:
        raise RuntimeError("the library nvvm, which compiles kernels, is missing") from None


def current() -> int:
    """The device that this thread uses, or the first."""
    error, device = cu.cuCtxGetDevice()
    return int(device) if error == cu.CUresult.CUDA_SUCCESS else 0


def device_of(address: int) -> int:
    """The device on which memory lies."""
    attribute = cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_checked(cu.cuPointerGetAttribute(attribute, address)))


class Context:
    """A device, made current for the body of a `with`: what CUDA's calls refer to."""

    def __init__(self, ordinal: int) -> None:
        device = _checked(cu.cuDeviceGet(ordinal))
        self._context = _checked(cu.cuDevicePrimaryCtxRetain(device))  # the one that torch, CuPy and Numba use, too
        attribute = cu.CUdevice_attribute
        major, minor, self.processors = (
            int(_checked(cu.cuDeviceGetAttribute(which, device)))
            for which in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            )
        )
        self.capability = major, minor

    def __enter__(self) -> Context:
        _checked(cu.cuCtxPushCurrent(self._context))
        return self

    def __exit__(self, *_: object) -> None:
        cu.cuCtxPopCurrent()


class Function:
    """A kernel on a device, and how many of its blocks run there at once."""

    def __init__(self, context: Context, source: Callable[..., None], signature: tuple[Any, ...], threads: int) -> None:
        library = compiling.library(source, signature, context.capability, threads)
        self._module = _checked(cu.cuModuleLoadData(compiling.machine_code(library, context.capability)))
        self._handle = _checked(cu.cuModuleGetFunction(self._module, library._entry_name.encode()))
        resident = int(_checked(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(self._handle, threads, 0)))
        self.blocks = resident * context.processors
        self._threads = threads
        self._pack = struct.Struct(compiling.layout(signature)).pack_into
        # The driver copies the arguments during the call, from where these pointers say.
        words = len(compiling.layout(signature))
        self._arguments: Any = np.zeros(words, np.int64)
        self._pointers = self._arguments.ctypes.data + 8 * np.arange(words, dtype=np.uint64)
        self._address = self._pointers.ctypes.data
        self._lock = threading.Lock()

    def launch(self, blocks: int, stream: int, words: Sequence[Any], queued: list[Any] | None = None) -> None:
        """Queue the kernel; `words` are its arguments as `compiling.layout` has them.

        `queued` gets one entry more in the same step, between whose parts no KeyboardInterrupt can come.
        """
        queued = [] if queued is None else queued
        with self._lock:
            self._pack(self._arguments, 0, *words)
            call = self._handle, blocks, 1, 1, self._threads, 1, 1, 0, stream, self._address, 0
            queued.extend(starmap(cu.cuLaunchKernel, (call,)))
            error = queued[-1]
        _checked(error)


def allocate(size: int) -> int:
    """The address of so many bytes of zeros; what is queued on the device is not waited for."""
    address = int(_checked(cu.cuMemAlloc(size)))
    clear([(address, size)])
    return address


def new_array(shape: tuple[int, ...]) -> Any:
    """An array of float64 on the current device, of Numba's kind, with nothing particular in it."""
    return cuda.device_array(shape, np.float64)


def clear(places: Sequence[tuple[int, int]]) -> None:
    """Zero so many bytes at each address, and wait for it; nothing that is queued may still use them."""
    stream = new_stream()
    for address, size in places:
        zero(address, size, stream)
    _checked(cu.cuStreamSynchronize(stream))
    _checked(cu.cuStreamDestroy(stream))


def wait() -> None:
    """Wait for all that is queued on the device."""
    _checked(cu.cuCtxSynchronize())


def borrow(size: int, stream: int) -> int:
    """The address of so many bytes, for what is queued on a stream from now on."""
    return int(_checked(cu.cuMemAllocAsync(max(size, 1), stream)))


def give_back(address: int, stream: int) -> None:
    """Give back what `borrow` gave, when all that is queued on the stream is done; the host does not wait."""
    _checked(cu.cuMemFreeAsync(address, stream))


def zero(address: int, size: int, stream: int) -> None:
    """Queue to set bytes to zero."""
    _checked(cu.cuMemsetD8Async(address, 0, size, stream))


def fetch(address: int, array: np.ndarray[Any, Any]) -> None:
    """Copy from the device, when all that is queued there is done."""
    wait()
    _checked(cu.cuMemcpyDtoH(array.ctypes.data, address, array.nbytes))


def pinned(size: int) -> np.ndarray[Any, Any]:
    """Bytes of host memory that the device can read while the host does something else; never given back."""
    address = int(_checked(cu.cuMemHostAlloc(size, 0)))
    buffer: Any = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(buffer, np.uint8)


def send(address: int, array: np.ndarray[Any, Any], stream: int) -> None:
    """Queue a copy to the device; from memory that is not pinned, the driver may wait for what was queued before."""
    _checked(cu.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, stream))


def receive(array: np.ndarray[Any, Any], address: int, stream: int) -> None:
    """Queue a copy from the device to pinned memory."""
    _checked(cu.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, stream))


def new_stream() -> int:
    """A stream of our own, which waits for no other."""
    return int(_checked(cu.cuStreamCreate(int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))))


def check_not_captured(stream: int) -> None:
    """RuntimeError while a stream is captured in a graph: its replays would add without an accumulator's knowledge."""
    if _checked(cu.cuStreamIsCapturing(stream)) != cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE:
        raise RuntimeError("an update cannot be captured in a CUDA graph: call it after the replay instead")


class Event:
    """A place in a stream."""

    def __init__(self) -> None:
        self._handle = _checked(cu.cuEventCreate(int(cu.CUevent_flags.CU_EVENT_DISABLE_TIMING)))

    def record(self, stream: int) -> None:
        """Move to the end of what is queued on a stream."""
        _checked(cu.cuEventRecord(self._handle, stream))

    def hold(self, stream: int) -> None:
        """Let a stream wait for this place; the host does not."""
        _checked(cu.cuStreamWaitEvent(stream, self._handle, 0))

    def is_done(self) -> bool:
        """Whether the device has come past this place."""
        return cu.cuEventQuery(self._handle)[0] == cu.CUresult.CUDA_SUCCESS

    def wait(self) -> None:
        """Wait on the host until it has."""
        _checked(cu.cuEventSynchronize(self._handle))

    def __del__(self) -> None:
        if cu is not None:  # as it is when the interpreter ends
            cu.cuEventDestroy(self._handle)
