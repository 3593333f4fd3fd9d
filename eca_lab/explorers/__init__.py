"""Explorers: pictures to touch, drawn in the page. Each is two files, <name>.py and <name>.js.

Python owns the state and the numbers, the page draws. The explorers of the kernel size and of a
study need no torch: others import it when they are made.
"""

from eca_lab.explorers.channel_weights import ChannelWeightExplorer
from eca_lab.explorers.kernel_size import KernelSizeExplorer
from eca_lab.explorers.reduction import ReductionExplorer
from eca_lab.explorers.study import StudyExplorer

__all__ = ["ChannelWeightExplorer", "KernelSizeExplorer", "ReductionExplorer", "StudyExplorer"]
