"""Tensors of PyTorch: read where they lie, or cut into digits on devices that the kernels do not know."""

from __future__ import annotations

import numbers
from functools import cache
from typing import Any, cast

import torch

from .. import cuda
from ..arrays import broadcastable, no_mask
from ..chunks import PIECE
from ..exact import STATE_WORDS
from ..losses import Loss
from ._names import Named
from ._tensors import Operations, chunk_state


def _scatter(amounts: torch.Tensor, indices: torch.Tensor, length: int) -> torch.Tensor:
    return torch.zeros(length, dtype=torch.int64, device=amounts.device).index_add_(0, indices, amounts)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device)


OPERATIONS = Operations(
    xp=torch,
    float64=lambda tensor: tensor.to(torch.float64),
    int64=lambda tensor: tensor.to(torch.int64),
    bits=lambda tensor: tensor.view(torch.int64),
    scatter=_scatter,
    flat=lambda tensor: tensor.reshape(-1),
    constant=lambda values, tensor: _constant(values, tensor.device),
)


HALVES = (torch.bfloat16, torch.float16)


def host(value: Any) -> Any:
    """Return a tensor in host memory as the NumPy array that shares it, and anything else as it is.

    Halves of a small batch are widened here, which takes less time than in pieces; a large one is not copied whole.
    """
    if not isinstance(value, torch.Tensor) or not value.is_cpu:
        return value
    if value.dtype in HALVES:
        return value.detach().resolve_neg().float().numpy() if value.numel() <= PIECE else value
    return value.detach().resolve_neg().numpy()


def has_kernels(device: torch.device) -> bool:
    """Whether accumulators can add tensors of that device: a CUDA device, where numba-cuda is installed."""
    return device.type == "cuda" and cuda.is_there()


def placed(value: Any, device: torch.device) -> Any:
    """Move an argument to that device, for an accumulator to take; None, numbers and tensors stay as they are."""
    return value if value is None or isinstance(value, numbers.Real) else there(value, device)


def there(value: Any, device: torch.device) -> torch.Tensor:
    """Return a tensor as it is, and anything else as a tensor on that device."""
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value, device=device)


def device_of(*values: Any) -> torch.device | None:
    """Return the device that all tensors lie on: None for host memory, TypeError for a mixture."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if all(tensor.is_cpu for tensor in tensors):
        return None
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        raise TypeError(f"all tensors must lie on one device, got {', '.join(sorted(map(str, devices)))}")
    return devices.pop()


NAMES = Named(labels="target", predictions="input", weights="weight")


@torch.no_grad()
def device_state(
    loss: Loss, input: Any, target: Any, weight: Any, mask: Any, omit: bool, device: torch.device
) -> torch.Tensor:
    """Return the state of a chunk on a device, to be added there; nothing waits for the device."""
    input, target = there(input, device), there(target, device)
    if has_kernels(device):
        return _state_by_kernels(loss, input, target, placed(weight, device), placed(mask, device), omit)
    return _state_by_operations(loss, input, target, weight, mask, omit, device)


def _state_by_kernels(
    loss: Loss, input: torch.Tensor, target: torch.Tensor, weight: Any, mask: Any, omit: bool
) -> torch.Tensor:
    kernels = cuda.backend()
    with NAMES:
        operands = kernels.checked(target, input, weight, mask, None)
        states = input.new_zeros((kernels.SLOTS, STATE_WORDS), dtype=torch.int64)
        kernels.add_to(states.data_ptr(), loss, operands, omit, STATE_WORDS)
    return states.sum(0)


def _state_by_operations(
    loss: Loss, input: torch.Tensor, target: torch.Tensor, weight: Any, mask: Any, omit: bool, device: torch.device
) -> torch.Tensor:
    mask = None if mask is None else torch.as_tensor(mask, device=device)
    if input.shape != target.shape:
        raise ValueError(f"input and target must have the same shape, got {tuple(input.shape)}, {tuple(target.shape)}")
    if input.is_complex() or target.is_complex():
        raise TypeError("input and target must be real numbers, got complex ones")
    if weight is not None and not isinstance(weight, torch.Tensor):
        weight = torch.full_like(input, weight, dtype=torch.float64)  # a number: made there, not copied
    if mask is not None and mask.dtype is not torch.bool:
        raise no_mask(mask.dtype)
    weight, mask = (
        None if value is None else cast(Any, broadcastable(name, value, tuple(input.shape))).expand(input.shape)
        for name, value in (("weight", weight), ("mask", mask))
    )
    return cast(torch.Tensor, chunk_state(OPERATIONS, loss, target, input, weight, mask, omit))
