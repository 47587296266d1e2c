"""The losses of TensorFlow 1, Keras and PyTorch under their own names and rules, on arrays, exact and streaming.

A program changes an import and keeps its numbers; no framework is imported. Each module is named after the one that it
stands for, `docs/compat.md` shows how to change over, and where results differ on purpose.
"""

from . import keras, tensorflow_v1, torch

__all__ = ["keras", "tensorflow_v1", "torch"]
