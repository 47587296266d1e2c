"""Arrays in .npy files, memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt


def open_array(path: Path, member: str | None) -> npt.NDArray[Any]:
    """Map the array of a file into memory."""
    try:
        with path.open("rb") as file:
            shape, _, _ = header(file)
        # An array without elements cannot be mapped.
        return np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise ValueError(f"{path} is no readable .npy file: {' '.join(str(error).split())}") from error


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the shape, whether the order is Fortran's, and the dtype; any exception if there is no good header."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if min(shape, default=1) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype
