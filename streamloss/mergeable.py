"""The base of all accumulators: settings, the algebra that follows from merging, and files."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

from . import stored
from .cpu.updates import check_formula
from .losses import USER_FUNCTION, Formula, Loss, as_loss
from .reduction import Reduction, as_reduction

NanPolicy: TypeAlias = Literal["propagate", "omit", "raise"]


class Mergeable(ABC):
    """The settings of an accumulator, and the methods that need nothing else."""

    __slots__ = ("__weakref__", "_lock", "_loss", "_nan", "_reduction", "_stderr")

    _kind: ClassVar[type[Any]]  # the class whose objects, those of its subclasses included, can be added

    def __init_subclass__(cls) -> None:
        if Mergeable in cls.__bases__:
            cls._kind = cls

    def __init__(
        self,
        loss: str | Loss | Formula = "squared_error",
        *,
        reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
        nan: NanPolicy = "propagate",
        stderr: bool = False,
    ) -> None:
        if nan not in get_args(NanPolicy):
            raise ValueError(f"nan must be one of {', '.join(get_args(NanPolicy))}, got {nan!r}")
        self._loss = as_loss(loss)
        self._reduction = as_reduction(reduction)
        self._nan = nan
        self._stderr = bool(stderr)
        self._lock = threading.Lock()
        if not self._loss.is_ours:
            check_formula(self._loss)

    @property
    def loss(self) -> Loss:
        """The loss, with its parameters."""
        return self._loss

    @property
    def reduction(self) -> Reduction:
        """The reduction that `result()` uses by default."""
        return self._reduction

    @property
    def nan(self) -> NanPolicy:
        """The policy for elements with NaN."""
        return self._nan

    @property
    def stderr(self) -> bool:
        """Whether the sums that `standard_error()` needs are kept."""
        return self._stderr

    @abstractmethod
    def merge(self, *others: Self) -> Self:
        """Add what other accumulators have seen."""

    @abstractmethod
    def copy(self) -> Self:
        """Return an independent accumulator that has seen the same."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the accumulator in a binary format of our own."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes, *, loss: Loss | Formula | None = None) -> Self:
        """Read what `to_bytes` wrote."""

    def __add__(self, other: object) -> Self:
        """Return a new accumulator that has seen what both have: commutative and associative, to the bit."""
        if not isinstance(other, self._kind):
            return NotImplemented
        return self.copy().merge(other)

    def __radd__(self, other: object) -> Self:
        """Make sum(accumulators) work, which starts from 0."""
        if isinstance(other, int) and other == 0:
            return self.copy()
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # accumulators change

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_bytes()` to a file: whole, or not at all."""
        stored.write(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, loss: Loss | Formula | None = None) -> Self:
        """Read what `save` wrote; the arguments and errors of `from_bytes`, and OSError."""
        try:
            return cls.from_bytes(stored.read(Path(path)), loss=loss)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None

    def _chosen(self, reduction: str | Reduction | None) -> Reduction:
        return self._reduction if reduction is None else as_reduction(reduction)

    @property
    def _shown(self) -> Reduction:
        """The reduction that `repr` shows: without one, the sum."""
        return Reduction.SUM if self._reduction is Reduction.NONE else self._reduction

    def _check_addable(self, other: Mergeable) -> None:
        if self._loss != other._loss:
            raise ValueError(f"the losses differ: {self._loss!r} here, {other._loss!r} there")
        if self._stderr != other._stderr:
            raise ValueError(f"stderr differs: {self._stderr} here, {other._stderr} there")

    def _check_stderr(self) -> None:
        if not self._stderr:
            raise ValueError("standard_error() needs sums that are kept with stderr=True only")

    def _check_others(self, others: tuple[object, ...]) -> None:
        for other in others:
            if not isinstance(other, self._kind):
                raise TypeError(f"others must be {self._kind.__name__}s, got {type(other).__name__}")
            self._check_addable(other)

    def _settings(self) -> dict[str, str]:
        """Return the settings that files keep; `stderr` shows in the length of the state."""
        return {"loss": self._loss.spec, "reduction": str(self._reduction), "nan": self._nan}


def loss_of(settings: dict[str, Any], loss: Loss | Formula | None) -> Loss:
    """Return the loss that a file was written for; a user's own function is passed as `loss`."""
    spec = settings["loss"]
    if loss is None and spec.startswith(USER_FUNCTION):
        raise ValueError(f"the data is of a {spec}: pass that function as loss=")
    made = as_loss(spec if loss is None else loss)
    # Older files do not say the parameters of users' functions.
    if spec != made.spec and (made.is_builtin or spec != USER_FUNCTION + made.name):
        raise ValueError(f"the data is of the loss {spec!r}, got loss={made!r}")
    return made
