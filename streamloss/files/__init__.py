"""Scoring files of any size: a reader for each kind, a pass over what it reads, and what is kept of it."""

from .history import History
from .scoring import Progress, score

__all__ = ["History", "Progress", "score"]
