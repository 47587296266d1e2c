"""Attributes that are computed once, as Python has them from 3.12 on.

Before, functools' own hold a lock while they compute: in a process that another thread forks in that moment, it stays
locked for ever. Without a lock two threads may both compute; one of the two equal results is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801, as it is called in functools
    """What a method returns, kept in the object's `__dict__`, where it is found first from then on."""

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
