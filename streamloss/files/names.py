"""Suggestions for names that are not found."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def near(name: str, names: Sequence[str]) -> str:
    """Return a hint for a message, empty if no name is near."""
    folded = {each.casefold(): each for each in names}
    found = [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=3)]
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""
