"""Names that may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def near(name: str, names: Sequence[str]) -> str:
    """A hint for a message, empty if nothing is near."""
    found = difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""
