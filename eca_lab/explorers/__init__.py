"""Explorers: pictures to touch, drawn in the page. Each is two files, <name>.py and <name>.js.

Python owns the state and the numbers, the page draws. The explorers of the kernel size and of a
study need no torch: others import it when they are made.
"""

from importlib import import_module

_MODULES = {
    "ChannelWeightExplorer": "channel_weights",
    "KernelSizeExplorer": "kernel_size",
    "ReductionExplorer": "reduction",
    "StudyExplorer": "study",
}
__all__ = list(_MODULES)


def __getattr__(name):
    # When it is asked for: SciPy, which one of them needs, takes longer to import than all others.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
