"""Explorers: pictures to touch, drawn in the page. Each is two files, <name>.py and <name>.js.

Python owns the state and the numbers, the page draws. Each is imported when it is asked for: those
of the module, of the kernel size and of a study need no torch, and only that of a study needs
SciPy.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "ChannelWeightExplorer": "channel_weights",
    "KernelSizeExplorer": "kernel_size",
    "ModuleExplorer": "module",
    "ReductionExplorer": "reduction",
    "StudyExplorer": "study",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
