"""The explorer of the kernel size in Python; what its page draws is in test_browser.py."""

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from eca_lab import figures
from eca_lab.explorers import KernelSizeExplorer
from eca_lab.explorers.kernel_size_picture import kernel_size_figure
from eca_lab.kernel_size import NETWORKS, adaptive_kernel_size, released_kernel_sizes

WRONG = {
    "channels": (0, 8193, 64.0, True, "64"),
    "gamma": (0, 0.4, 4.1, float("nan"), "2", True),
    "b": (5, float("-inf"), None),
    "ties": ("even",),
    "network": ("vgg16", 0),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_raises_and_changes_nothing(name):
    panel = KernelSizeExplorer(64, 3, -1, "down", "resnet18")
    before = panel._state()
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=f"{name}=.*: accepted"):
            setattr(panel, name, value)
        with pytest.raises(ValueError, match=f"{name}=.*: accepted"):
            KernelSizeExplorer(**{name: value})
        # Nothing either of what was to change along with it.
        together = {"channels": 32, "b": 2, name: value}
        with pytest.raises(ValueError, match="accepted"):
            panel.set_state(together)
        assert panel._state() == before


def test_changes_of_one_action_arrive_as_one():
    panel, seen = KernelSizeExplorer(), []
    panel.observe(lambda _: seen.append(repr(panel)), ["channels", "gamma", "network"])
    panel.set_state({"channels": 4, "gamma": 0.5, "network": "resnet18"})  # what the page sends
    expected = "KernelSizeExplorer(channels=4, gamma=0.5, b=1, network='resnet18')"
    assert seen == [expected] * 3
    panel.gamma = 0.5
    assert len(seen) == 3


def test_repr_is_a_call_that_gives_an_equal_explorer():
    for arguments in ((256,), (128, 2.0, 1.0), (np.int64(8), 0.7, -2.5, "down", "mobilenet_v2")):
        panel = KernelSizeExplorer(*arguments)
        assert eval(repr(panel))._state() == panel._state()
    assert repr(KernelSizeExplorer()) == "KernelSizeExplorer(channels=256, gamma=2, b=1)"
    assert "gamma=0.7, b=-2.5, ties='down', network='mobilenet_v2'" in repr(panel)
    assert panel.kernel_size == adaptive_kernel_size(8, 0.7, -2.5, "down")
    with pytest.raises(AttributeError):
        panel.kernel_size = 3


def test_what_the_page_is_told():
    panel = KernelSizeExplorer(channels=64)
    assert panel.given["initial"] == panel._state()
    assert [panel.given["networks"][name]["released"] for name in NETWORKS] == [
        released_kernel_sizes(name) for name in NETWORKS
    ]
    for preset in panel.PRESETS.values():
        panel.set_state(preset)
        assert panel._state().items() >= preset.items()
    assert {2**n for n in range(14)} <= set(panel.CHANNEL_STOPS)
    # 2.3, and no 2.3000000000000003, which is no tie where 2.3 would be one
    assert [round(10 * gamma) / 10 for gamma in panel.GAMMA_STOPS] == [*panel.GAMMA_STOPS]
    assert "import " not in panel._esm  # the page can fetch nothing
    assert "http" not in panel._esm.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in panel._esm


def test_readers_without_a_kernel_see_one_line_and_the_picture():
    panel = KernelSizeExplorer(channels=64)
    data, _ = panel._repr_mimebundle_(include=None, exclude=None)
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id
    assert data["text/plain"] == "KernelSizeExplorer(channels=64, gamma=2, b=1): k = 3"
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (720, 560))


def test_the_figure_draws_the_state():
    steps, band, parameters = kernel_size_figure(KernelSizeExplorer(300), 8192).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in steps.lines}
    assert lines["chosen C, its k"] == [[300, 5]]
    assert lines["stage: Eq. 12"] == [[256, 5], [512, 5], [1024, 5], [2048, 7]]
    assert lines["released"] == [[256, 3], [512, 5], [1024, 5], [2048, 7]]
    (span,) = (each for each in steps.patches if each.get_height() == 1)
    assert (span.get_x(), span.get_x() + span.get_width()) == (128, 2047)
    assert [bar.get_width() for bar in parameters.patches] == [2 * 300**2 / 16, 5]
    (matrix,) = (image.get_array() for image in band.images)
    colors, counts = np.unique(matrix.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colors) == 6
    assert sorted(counts) == [30, 30, 31, 31, 32, 32**2 - 154]

    steps, band, _ = kernel_size_figure(KernelSizeExplorer(4, 0.5, -1), 8192).axes
    title = steps.get_title("right")
    assert title == "C = 4, k = 3"
    assert band.images[0].get_array().shape == (4, 4, 3)
    steps = kernel_size_figure(KernelSizeExplorer(4, 0.5), 8192).axes[0]
    assert steps.get_title("right") == "C = 4, k = 7 > C: cannot be built"
    (title,) = (
        text
        for text in steps.get_children()
        if getattr(text, "get_text", str)() == steps.get_title("right")
    )
    assert same_color(title.get_color(), figures.VERMILLION)


def test_needs_no_torch():
    code = (
        "from eca_lab.explorers import KernelSizeExplorer; KernelSizeExplorer().channels = 64; "
        "import sys; print(*sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
