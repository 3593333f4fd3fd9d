"""The explorer of the kernel size in Python; what its page draws is in test_browser.py."""

import pytest

from eca_lab.attention.kernel_size import NETWORKS, adaptive_kernel_size, released_kernel_sizes
from eca_lab.explorers import KernelSizeExplorer


def test_state_and_what_it_says():
    explorer = KernelSizeExplorer(8, 0.7, b=-2.5, ties="down", network="mobilenet_v2")
    call = "channels=8, gamma=0.7, b=-2.5, ties='down', network='mobilenet_v2'"
    assert repr(explorer) == f"KernelSizeExplorer({call})"
    assert repr(KernelSizeExplorer(gamma=2.0)) == "KernelSizeExplorer(channels=256, gamma=2, b=1)"
    assert explorer.kernel_size == adaptive_kernel_size(8, gamma=0.7, b=-2.5, ties="down")
    with pytest.raises(AttributeError):
        explorer.kernel_size = 3


def test_what_the_page_is_told():
    explorer = KernelSizeExplorer()
    assert [explorer.given["networks"][name]["released"] for name in NETWORKS] == [
        released_kernel_sizes(name) for name in NETWORKS
    ]
    assert {2**n for n in range(14)} <= set(explorer.CHANNEL_STOPS)
    # 2.3, and no 2.3000000000000003, which is no tie where 2.3 would be one
    assert [round(10 * gamma) / 10 for gamma in explorer.GAMMA_STOPS] == [*explorer.GAMMA_STOPS]


def test_the_figure_draws_the_state():
    explorer = KernelSizeExplorer(300, 1.5, b=0, ties="down")
    (ax,) = explorer._figure().axes
    stairs, chosen, formula, released = (line.get_xydata().tolist() for line in ax.lines)
    assert stairs == [
        [C, adaptive_kernel_size(C, gamma=1.5, b=0, ties="down")] for C in range(1, 8193)
    ]
    assert chosen == [[300, explorer.kernel_size]]
    widths = (256, 512, 1024, 2048)
    assert formula == [[C, adaptive_kernel_size(C, gamma=1.5, b=0, ties="down")] for C in widths]
    assert released == [[256, 3], [512, 5], [1024, 5], [2048, 7]]
    assert ax.get_title("right") == f"C = 300, k = {explorer.kernel_size}"
