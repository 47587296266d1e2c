"""Suggestions for names that are not found."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def near(name: str, names: Sequence[str]) -> str:
    """Return a hint for a message, empty if no name is near."""
    found = difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""
