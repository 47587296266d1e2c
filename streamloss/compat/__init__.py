"""The losses of TensorFlow 1, Keras and PyTorch under their own names and rules, on arrays, exact and streaming.

Change one import, and keep your numbers; no framework is imported. Each module is named after the one that it replaces.
`docs/compat.md` shows how to change over, and where results differ on purpose.
"""

from . import keras, tensorflow_v1, torch

__all__ = ["keras", "tensorflow_v1", "torch"]
