"""Errors that speak of arguments by the names that a framework gives them."""

from __future__ import annotations

import re


class Named:
    """A context that renames arguments in error messages: an error about `labels` becomes one about `target`."""

    def __init__(self, **names: str) -> None:
        self._names = names
        self._pattern = re.compile(rf"\b({'|'.join(names)})\b")

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, TypeError)):
            error.args = (self._pattern.sub(lambda match: self._names[match[0]], str(error)),)
