"""Attributes that are computed once: `functools.cached_property` as Python has it from 3.12 on.

Before 3.12 it holds a lock while it computes. If another thread forks the process at that moment, the lock stays locked
in the child for ever. Without a lock two threads may both compute; one of the two equal results is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801, named as in functools
    """A property that keeps its method's result in the object's `__dict__`, where Python finds it from then on."""

    def __init__(self, method: Callable[[Any], T]) -> None:
        self._method, self.__doc__ = method, method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> cached_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return instance.__dict__.setdefault(self._name, self._method(instance))
