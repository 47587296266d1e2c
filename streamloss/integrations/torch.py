"""PyTorch: training losses with gradients, a metric for tensors of any device, and an exact all-reduce.

pip install 'streamloss[torch]'
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache, reduce
from typing import Any, Self, overload

try:
    import torch
except ImportError as error:
    raise ImportError("streamloss.integrations.torch needs PyTorch: pip install 'streamloss[torch]'") from error

import numpy as np

from .. import losses
from ..accumulator import Accumulator
from ..compat import torch as reference
from ..exact import COUNT, STDERR_WORDS, SUM_WORDS, TERMS, WEIGHTS
from ..losses import Formula, Loss
from ..mergeable import NanPolicy
from ..reduction import Reduction
from ._tensors import approximate, evaluate, joined
from ._torch import HALVES, NAMES, OPERATIONS, device_of, device_state, has_kernels, host, placed

# ------------------------------------------------------------------------------------------- the metric


class Metric:
    """An exact loss over all batches, for evaluation loops: the same bits for any batch size.

    Parameters
    ----------
    loss, reduction, nan
        As for `streamloss.Accumulator`, but the reduction is "mean" by default: weighted if there are weights.

    Notes
    -----
    Tensors in host memory go to the compiled kernels, and so do those on a CUDA device where numba-cuda is installed
    (`pip install 'streamloss[cuda13]'`). On other devices they are cut into the digits of the exact sum by int64
    operations; there the loss must be made of + - * / sqrt abs and comparisons, so that its bits are those of the
    kernels. The state stays on the device: an update never waits for it, `compute` does.

    Examples
    --------
    >>> import torch
    >>> from streamloss.integrations.torch import Metric
    >>> metric = Metric("squared_error")
    >>> for batch in ([1.0, 2.0], [4.0]):
    ...     _ = metric.update(torch.tensor(batch), torch.zeros(len(batch)))
    >>> metric.compute()
    7.0

    """

    def __init__(
        self,
        loss: str | Loss | Formula = "squared_error",
        *,
        reduction: str | Reduction = Reduction.MEAN,
        nan: NanPolicy = "propagate",
    ) -> None:
        self._accumulator = Accumulator(loss, reduction=reduction, nan=nan)
        self._on_devices: dict[torch.device, torch.Tensor] = {}

    def update(self, input: Any, target: Any, weight: Any = None, *, mask: Any = None) -> Self:
        """Add a batch.

        Parameters
        ----------
        input, target : Tensor
            Predictions and labels, of equal shapes and any real dtype, on one device.
        weight, mask : Tensor, optional
            A scalar, of the leading dimensions of input, or of its rank with every dimension 1 or equal; the mask is
            bool and keeps where it is True.

        Raises
        ------
        ValueError
            For shapes that do not fit; for NaN where the policy is "raise", which waits for a CUDA device, and which
            no device without kernels allows.
        TypeError
            For anything but real numbers, for tensors on several devices, and on a device without kernels for losses
            with log or exp.

        """
        device = device_of(input, target, weight, mask)
        with NAMES:
            if device is None:
                self._accumulator.update(host(target), host(input), host(weight), mask=host(mask))
                return self
            if has_kernels(device):
                target, input, weight, mask = (placed(value, device) for value in (target, input, weight, mask))
                self._accumulator.update(target, input, weight, mask=mask)
                return self
        accumulator = self._accumulator
        if accumulator.nan == "raise":
            raise ValueError(f"nan='raise' would have to wait for {device}: use 'omit' or 'propagate', or host memory")
        added = device_state(accumulator.loss, input, target, weight, mask, accumulator.nan == "omit", device)
        before = self._on_devices.get(device)
        self._on_devices[device] = joined(OPERATIONS, added, torch.zeros_like(added) if before is None else before)
        return self

    @property
    def accumulator(self) -> Accumulator:
        """A copy of all that was seen so far."""
        return self._fetched().copy()

    def _fetched(self) -> Accumulator:
        """Return the accumulator behind the metric, with what devices hold fetched into it."""
        for device, state in list(self._on_devices.items()):
            self._accumulator.merge(Accumulator.from_state(state.cpu().numpy(), self._accumulator.loss))
            del self._on_devices[device]  # after the merge: until then a failure leaves it here
        return self._accumulator

    def compute(self, reduction: str | Reduction | None = None) -> float:
        """Return the loss so far; see `streamloss.Accumulator.result`."""
        return self._fetched().result(reduction)

    def reset(self) -> Self:
        """Forget all that was seen."""
        self._on_devices.clear()
        self._accumulator.reset()
        return self

    def merge_state(self, metrics: Metric | Iterable[Metric]) -> Self:
        """Add what other metrics have seen; they keep it. ValueError for another loss, before anything is merged."""
        others = [metrics] if isinstance(metrics, Metric) else list(metrics)
        self._accumulator.merge(*(other._fetched() for other in others))
        return self

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the state as a tensor of bytes, `Accumulator.to_bytes`, for a checkpoint."""
        return {"accumulator": torch.frombuffer(bytearray(self._fetched().to_bytes()), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take the state from a checkpoint; ValueError if it is damaged, of another loss, or of something else."""
        if "accumulator" not in state:
            raise ValueError(f"the state must have the key 'accumulator', as from state_dict(), got {list(state)}")
        own = self._accumulator.loss
        data = state["accumulator"].cpu().numpy().tobytes()
        found = Accumulator.from_bytes(data, loss=None if own.is_builtin else own)
        if found.loss != own:
            raise ValueError(f"the checkpoint is of the loss {found.loss!r}, expected {own!r}")
        self.reset()
        self._accumulator.merge(found)

    def __repr__(self) -> str:
        return f"Metric({self._fetched()!r})"


# ------------------------------------------------------------------------------------------- ranks


@overload
def all_reduce(seen: Metric, group: Any = None) -> Metric: ...


@overload
def all_reduce(seen: Accumulator, group: Any = None) -> Accumulator: ...


def all_reduce(seen: Metric | Accumulator, group: Any = None) -> Metric | Accumulator:
    """Let every rank hold what all ranks have seen, by one integer all-reduce: afterwards all have the same bits.

    Parameters
    ----------
    seen : Metric or Accumulator
        Of this rank, changed in place, as by `torch.distributed.all_reduce`. To go on accumulating on this rank,
        reduce a copy, such as `metric.accumulator`. Ranks may have seen different numbers of batches, or none.
    group : ProcessGroup, optional
        gloo, NCCL or any backend that sums int64; by default, all ranks.

    Returns
    -------
    Accumulator
        The same one. Without a process group there is one rank, and nothing to do.

    Raises
    ------
    ValueError
        On every rank, if the ranks' losses differ, or if only some have accumulators with `stderr=True`.
    TypeError
        For a GroupedAccumulator, and anything else: on the rank that has it, while the others wait.

    """
    if not isinstance(seen, (Metric, Accumulator)):
        raise TypeError(f"seen must be a Metric or an Accumulator, got {type(seen).__name__}")
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return seen
    accumulator = seen._fetched() if isinstance(seen, Metric) else seen
    own = accumulator.state
    mark = int.from_bytes(hashlib.sha256(f"{accumulator.loss.identity} {own.size}".encode()).digest()[:3], "little")
    device = "cuda" if distributed.get_backend(group) == "nccl" else "cpu"
    padding = [0] * (STDERR_WORDS - own.size)  # tensors of different lengths would abort the process
    words = torch.tensor([mark, mark * mark, *own.tolist(), *padding], dtype=torch.int64).to(device)
    distributed.all_reduce(words, group=group)
    marks, squares, *total = words.tolist()
    # n * sum(mark**2) == sum(mark)**2 where all n marks are equal, and nowhere else (Cauchy and Schwarz).
    if distributed.get_world_size(group) * squares != marks * marks:
        here = f"{accumulator.loss!r}, stderr={accumulator.stderr}"
        raise ValueError(f"ranks have accumulators of different losses, or differ in stderr; here it is {here}")
    others = np.array(total[: own.size], np.int64) - own
    accumulator.merge(Accumulator.from_state(others, accumulator.loss))
    return seen


# ------------------------------------------------------------------------------------------- training losses


class _Value(torch.autograd.Function):
    """The reduced loss: forward is the exact value, backward the derivative of the loss, in float64, differentiable."""

    @staticmethod
    def forward(ctx: Any, input: Any, target: Any, weight: Any, loss: Loss, reduction: str) -> torch.Tensor:
        ctx.save_for_backward(input, target, weight)
        ctx.loss, ctx.reduction = loss, reduction
        ctx.by_count = weight is None or reference.is_huber(loss)
        if input.shape != target.shape:
            raise ValueError(f"input and target must have the same size, got {input.shape} and {target.shape}")
        if weight is not None and weight.shape != input.shape:
            raise ValueError("Weights and input must have the same size.")
        return _reduced(ctx, input, target, weight).to(_dtype(input, target, weight, loss))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        input, target, weight = ctx.saved_tensors
        label, prediction = target.to(torch.float64), input.to(torch.float64)
        scale = grads[0].to(torch.float64)
        weights: Any = 1.0 if weight is None else weight.to(torch.float64)
        if ctx.reduction == "mean":
            scale = scale / (input.numel() if ctx.by_count else weights.sum())
        by_input = by_target = by_weight = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            slope = scale * weights * _slope(ctx.loss, label, prediction)
            by_input = slope.to(input.dtype)
            by_target = (-slope).to(target.dtype) if ctx.needs_input_grad[1] else None
        if ctx.needs_input_grad[2]:
            each = evaluate(ctx.loss, torch, label, prediction, exact=False)
            if ctx.reduction == "mean" and not ctx.by_count:
                each = each - (weights * each).sum() / weights.sum()
            by_weight = (scale * each).to(weight.dtype)
        return by_input, by_target, by_weight, None, None


def _slope(loss: Loss, label: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """Return the derivatives of the elements; as in torch, that of the absolute error is 0 at NaN."""
    if loss == losses.absolute_error:
        return torch.sgn(prediction - label)
    return evaluate(losses.derivative(loss), torch, label, prediction, exact=False)


def _reduced(how: Any, input: Any, target: Any, weight: Any) -> torch.Tensor:
    if how.reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{how.reduction} is not a valid value for reduction")
    if how.reduction == "none":
        terms = evaluate(how.loss, torch, target.to(torch.float64), input.to(torch.float64), exact=False)
        return terms if weight is None else weight.to(torch.float64) * terms
    device = device_of(input, target, weight)
    if device is None:  # by the rules of the reference, for x / 0 too
        stream = reference.Stream(how.loss, how.reduction).update(host(input), host(target), host(weight))
        return torch.tensor(float(stream.result()), dtype=torch.float64)
    state = device_state(how.loss, input, target, weight, None, False, device)
    total, weights = (approximate(OPERATIONS, state[start : start + SUM_WORDS]) for start in (TERMS, WEIGHTS))
    if how.reduction == "sum":
        return total
    return total / (state[COUNT] if how.by_count else weights)


def _dtype(input: Any, target: Any, weight: Any, loss: Loss) -> torch.dtype:
    """Return the dtype that torch promotes to; for huber not with that of the target."""
    narrow = reference.is_huber(loss) and input.is_floating_point()
    tensors = [input, weight] if narrow else [input, target, weight]
    asked = [tensor.dtype for tensor in tensors if tensor is not None and tensor.is_floating_point()]
    return reduce(torch.promote_types, asked) if asked else torch.float32


@torch._disable_dynamo  # under torch.compile the graph breaks here; torch.compiler.disable would cost 2 s at import
def _value(input: Any, target: Any, weight: Any, loss: Loss, reduction: str) -> Any:
    for name, value in (("input", input), ("target", target), ("weight", weight)):
        if not isinstance(value, torch.Tensor) and not (value is None and name == "weight"):
            raise TypeError(f"{name} must be a Tensor, got {type(value).__name__}")
        if value is not None and value.is_complex():
            raise TypeError(f"{name} must be real numbers, got dtype {value.dtype}")
    return _Value.apply(*_autocast(input, target, weight), loss, reduction)


def _autocast(input: Any, target: Any, weight: Any) -> tuple[Any, ...]:
    """Widen halves to float32 where autocast is on, as it does for torch's own losses."""
    kind, tensors = input.device.type, (input, target, weight)
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return tensors
    return tuple(t.float() if isinstance(t, torch.Tensor) and t.dtype in HALVES else t for t in tensors)


@cache
def _huber(delta: float) -> Loss:
    return losses.huber(delta=delta)


_smooth_l1 = cache(reference.smooth_l1_of)


class MSELoss(torch.nn.MSELoss):
    """`torch.nn.MSELoss` with an exact value, and an optional weight.

    `forward(input, target, weight=None)`: the arguments, rules and gradients of `torch.nn.functional.mse_loss`, to
    input, target and weight, twice differentiable. The value is the exact quotient, rounded to float64 and to the dtype
    of the result; on a device it is read without waiting, to the last bits of float64. Sizes that differ are a
    ValueError.

    Examples
    --------
    >>> import torch
    >>> loss = MSELoss()
    >>> input = torch.tensor([[0.5, -1.0], [2.0, 0.0]], requires_grad=True)
    >>> output = loss(input, torch.zeros(2, 2))
    >>> output.backward()
    >>> output, input.grad
    (tensor(1.3125, grad_fn=<_ValueBackward>), tensor([[ 0.2500, -0.5000],
            [ 1.0000,  0.0000]]))

    """

    _loss: Loss = losses.squared_error

    def forward(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the reduced loss."""
        return _value(input, target, weight, self._loss, self.reduction)


class L1Loss(torch.nn.L1Loss):
    """`torch.nn.L1Loss` with an exact value, and an optional weight; see `MSELoss`."""

    _loss = losses.absolute_error
    forward = MSELoss.forward


class HuberLoss(torch.nn.HuberLoss):
    """`torch.nn.HuberLoss` with an exact value, and an optional weight; see `MSELoss`."""

    forward = MSELoss.forward

    @property
    def _loss(self) -> Loss:
        return _huber(self.delta)


class SmoothL1Loss(torch.nn.SmoothL1Loss):
    """`torch.nn.SmoothL1Loss` with an exact value, and an optional weight; see `MSELoss`."""

    forward = MSELoss.forward

    @property
    def _loss(self) -> Loss:
        return _smooth_l1(self.beta)
