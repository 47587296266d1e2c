"""What the rest of the package uses of the CUDA backend; `streamloss.cuda.backend()` imports and returns it."""

from .elements import SLOTS
from .groups import added as added_by_groups
from .groups import on_host
from .staged import add_staged, alone_staged
from .updates import Partials, add_to, alone, checked, find_nan
from .views import empty_like

__all__ = [
    "SLOTS",
    "Partials",
    "add_staged",
    "add_to",
    "added_by_groups",
    "alone",
    "alone_staged",
    "checked",
    "empty_like",
    "find_nan",
    "on_host",
]
