"""Objects that live inside a framework: metrics, losses, callbacks. Each module imports the one it is named after.

Import the module that you need, `from streamloss.integrations import torch`; `docs/integrations.md` shows them all.
"""
