"""Arrays by their names in a file that holds several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .names import near


def chosen(path: Path, member: str | None, names: Sequence[str]) -> str:
    """Return the name that is meant, the only one if none is given; ValueError if there is no such array."""
    if member is not None:
        wanted = member.strip("/")
        if wanted in names:
            return wanted
        raise ValueError(f"{path} has no array {member!r}{near(wanted, names)}; it has: {', '.join(names) or 'none'}")
    if len(names) == 1:
        return names[0]
    raise ValueError(f"{path} has {len(names)} arrays, name one of them: {path}:NAME; it has: {', '.join(names)}")
