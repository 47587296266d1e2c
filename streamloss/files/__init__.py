"""Scoring files of any size: one module per kind of file, and `score`, which chooses among them."""

from .scoring import score

__all__ = ["score"]
