"""Device arrays of any library, as addresses, shapes and strides; nothing is copied, and nobody is waited for.

torch tensors are read through their own attributes (their `__cuda_array_interface__` refuses those that require grad,
and bfloat16); CuPy's and Numba's arrays through `__cuda_array_interface__`, whose version 3 names a stream; what has
DLPack alone (JAX) through that.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..arrays import broadcastable, no_number
from ..chunks import BFLOAT16
from . import devices

CODES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "l"}
CODES |= {"u1": "B", "u2": "H", "u4": "I", "u8": "L"}
ITEMSIZE = {"e": 2, "E": 2, "f": 4, "d": 8, "?": 1, "b": 1, "h": 2, "i": 4, "l": 8, "B": 1, "H": 2, "I": 4, "L": 8}
TORCH = {"float16": "e", "bfloat16": "E", "float32": "f", "float64": "d", "bool": "?", "int8": "b", "int16": "h"}
TORCH |= {"int32": "i", "int64": "l", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "L"}
DTYPES = {code: name for name, code in TORCH.items()}


class View(NamedTuple):
    """An array on a device: its lowest address, and the place of the first element from there, in elements."""

    address: int
    code: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    first: int
    device: int
    stream: int | None  # on which it is being computed; None if it is there for all of them
    owner: Any  # keeps the memory

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """How many elements the memory from the lowest address to the highest has room for."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * abs(stride) for n, stride in zip(self.shape, self.strides, strict=True))

    def reshape(self, shape: tuple[int, ...]) -> View:
        """Return the view with dimensions of 1 appended."""
        return self._replace(shape=shape, strides=self.strides + (0,) * (len(shape) - len(self.strides)))

    def spread(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the strides with which the view has the given shape: 0 where it repeats."""
        return tuple(0 if a != b else s for a, b, s in zip(self.shape, shape, self.strides, strict=True))


def view(name: str, value: Any) -> View:
    """Return a device array as a view; TypeError for a dtype that is no real number."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_torch(name, value, torch)
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None and (interface["version"] > 2 or not hasattr(value, "__dlpack__")):
        return _of_interface(name, value, interface)
    return _of_dlpack(name, value)


def _of_torch(name: str, tensor: Any, torch: Any) -> View:
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {tensor.layout}")
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    code = _codes_of_torch(torch).get(tensor.dtype)
    if code is None:
        raise no_number(name, tensor.dtype)
    device = tensor.device.index
    stream = torch.cuda.current_stream(device).cuda_stream
    return View(tensor.data_ptr(), code, tuple(tensor.shape), tensor.stride(), 0, device, stream, tensor)


def empty_like(name: str, value: Any) -> Any:
    """Return a float64 array of another's shape, on its device, not filled: of torch, CuPy or else Numba."""
    torch, cupy = (sys.modules.get(library) for library in ("torch", "cupy"))
    if torch is not None and isinstance(value, torch.Tensor):
        return value.new_empty(value.shape, dtype=torch.float64)
    array = view(name, value)
    with devices.of(array.device).context:
        if cupy is not None and isinstance(value, cupy.ndarray):
            return cupy.empty(array.shape)
        return devices.driver.new_array(array.shape)


@cache
def _codes_of_torch(torch: Any) -> dict[Any, str]:
    """Return the codes by torch's own dtypes."""
    return {getattr(torch, name): code for name, code in TORCH.items() if hasattr(torch, name)}


def _of_interface(name: str, value: Any, interface: dict[str, Any]) -> View:
    typestr, shape = interface["typestr"], tuple(interface["shape"])
    code = CODES.get(typestr[1:])
    if typestr[1:] == "V2" and str(getattr(value, "dtype", "")) == "bfloat16":
        code = "E"
    if code is None or typestr[0] == ">":
        raise no_number(name, typestr)
    if interface.get("mask") is not None:
        raise TypeError(f"{name} has a mask of its own on the device; pass it as mask=")
    size, byte_strides = ITEMSIZE[code], interface.get("strides")
    strides = _contiguous(shape) if byte_strides is None else tuple(s // size for s in byte_strides)
    address, stream = interface["data"][0], interface.get("stream")
    if math.prod(shape) and (address % size or any(s % size for s in byte_strides or ())):
        raise ValueError(f"{name} must be aligned: its elements do not lie at multiples of {size} bytes")
    device = devices.driver.device_of(address) if math.prod(shape) else devices.driver.current()
    return _lowest(View(address, code, shape, strides, 0, device, stream, value))


def _lowest(array: View) -> View:
    """Return the view with its lowest address, at which it does not begin where strides are negative."""
    back = sum(-s * (n - 1) for n, s in zip(array.shape, array.strides, strict=True) if s < 0 and n > 0)
    return array._replace(address=array.address - back * ITEMSIZE[array.code], first=back) if back else array


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


# ------------------------------------------------------------------------------------------------ DLPack


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


DLPACK_CODES = {(0, b): c for b, c in ((8, "b"), (16, "h"), (32, "i"), (64, "l"))}
DLPACK_CODES |= {(1, b): c for b, c in ((8, "B"), (16, "H"), (32, "I"), (64, "L"))}
DLPACK_CODES |= {(2, b): c for b, c in ((16, "e"), (32, "f"), (64, "d"))} | {(4, 16): "E", (6, 8): "?"}
LEGACY_STREAM = 1  # DLPack's number for it


def _of_dlpack(name: str, value: Any) -> View:
    # The producer makes its stream and the legacy one agree; the capsule keeps the memory until the kernel is done.
    capsule = value.__dlpack__(stream=LEGACY_STREAM)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    code = DLPACK_CODES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if code is None:
        raise no_number(name, f"{tensor.bits} bits of DLPack's kind {tensor.code}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _contiguous(shape)
    address = (tensor.data or 0) + tensor.byte_offset
    return _lowest(View(address, code, shape, strides, 0, tensor.device_id, LEGACY_STREAM, Borrowed(capsule)))


class Borrowed(NamedTuple):
    """An owner of memory, which is freed when it is gone, whether or not the device still reads it."""

    capsule: Any


# ------------------------------------------------------------------------------------------------ geometry


def broadcast(name: str, array: View, shape: tuple[int, ...]) -> View:
    """Return the view with as many dimensions as `shape`, each 1 or equal; ValueError, as `broadcastable` says."""
    fitted: Any = broadcastable(name, array, shape)  # type: ignore[arg-type]  # it uses only what a view has, too
    return fitted


def merged(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return the shape and strides of the same elements with as few axes as possible; their order may change."""
    axes = [k for k, n in enumerate(shape) if n != 1]
    axes.sort(key=lambda k: -abs(strides[0][k]))
    lengths: list[int] = []
    steps: list[tuple[int, ...]] = []
    for k in axes:
        step = tuple(s[k] for s in strides)
        if lengths and steps[-1] == tuple(s * shape[k] for s in step):
            lengths[-1] *= shape[k]
            steps[-1] = step
        else:
            lengths.append(shape[k])
            steps.append(step)
    if not lengths:
        lengths, steps = [1], [(1,) * len(strides)]
    return tuple(lengths), [tuple(step[i] for step in steps) for i in range(len(strides))]


def as_host(array: View) -> np.ndarray[Any, Any]:
    """Wait for all that is queued on the device, and return a copy on the host."""
    room = np.empty(array.extent, BFLOAT16 if array.code == "E" else array.code)
    with devices.of(array.device).context:
        devices.driver.fetch(array.address, room)
    strides = tuple(s * room.itemsize for s in array.strides)
    return np.lib.stride_tricks.as_strided(room[array.first :], array.shape, strides)
