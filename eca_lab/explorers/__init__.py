"""Panels: sliders, a read-out and a picture. Numbers come from the other modules.

A panel's state is a set of plain attributes that can be read and set; its sliders and boxes only
show that state. The panel of the kernel size needs no torch: others import it when they are made.
"""

from eca_lab.explorers.channel_weights import ChannelWeightExplorer
from eca_lab.explorers.kernel_size import NETWORK_NAMES, KernelSizeExplorer
from eca_lab.explorers.reduction import ReductionExplorer
from eca_lab.explorers.study import StudyExplorer

__all__ = [
    "NETWORK_NAMES",
    "ChannelWeightExplorer",
    "KernelSizeExplorer",
    "ReductionExplorer",
    "StudyExplorer",
]
