import base64
import io
import itertools
import re
import subprocess
import sys

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from eca_lab.explorers import KernelSizeExplorer
from eca_lab.explorers import kernel_size as explorers
from eca_lab.kernel_size import (
    NETWORKS,
    adaptive_kernel_size,
    released_kernel_sizes,
    stage_channels,
)

STATES = [
    {"channels": 128, "gamma": 2, "b": 1, "ties": "down", "network": "resnet18"},
    {"channels": 7, "gamma": 0.5, "b": 4, "ties": "up", "network": "mobilenet_v2"},
    {"channels": 1, "gamma": 0.7, "b": -4, "ties": "up", "network": "resnet34"},
    {"channels": 2048, "gamma": 1, "b": 0.5, "ties": "down", "network": "resnet152"},
    {"channels": 256, "gamma": 2, "b": 1, "ties": "up", "network": "resnet50"},
]


def widgets(panel):
    """All widgets of a panel, depth first."""
    for child in getattr(panel, "children", ()):
        yield child
        yield from widgets(child)


def control(panel, kind, name):
    """The one widget of a kind whose description, or tooltip, begins with a name."""
    (found,) = (
        widget
        for widget in widgets(panel)
        if isinstance(widget, kind)
        and (widget.description or widget.tooltip or "").startswith(name)
    )
    return found


def slider(panel, name):
    return control(panel, (ipywidgets.IntSlider, ipywidgets.FloatSlider), name)


def box(panel, name):
    return control(panel, (ipywidgets.IntText, ipywidgets.FloatText), name)


def status(panel):
    return text(next(w for w in widgets(panel) if isinstance(w, ipywidgets.HTML)).value)


def readout(panel):
    *_, last = (w for w in widgets(panel) if isinstance(w, ipywidgets.HTML))
    return text(last.value)


def text(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.replace("<sub>", ""))).strip()


def image(panel):
    return next(w for w in widgets(panel) if isinstance(w, ipywidgets.Image))


def state(panel):
    return {name: getattr(panel, name) for name in STATES[0]}


@pytest.fixture(scope="module")
def drawn():
    """A panel that draws."""
    return KernelSizeExplorer()


@pytest.fixture
def drawings(monkeypatch):
    """What panels would draw, instead of drawing it: for tests that look at no pixels."""
    numbers = []
    monkeypatch.setattr(
        explorers.KernelSizePicture, "png", lambda self, **drawn: numbers.append(drawn) or b""
    )
    return numbers


@pytest.fixture
def panel(drawings):
    """A panel that does not draw."""
    return KernelSizeExplorer()


def test_slider_of_channels_stops_at_sixteenths_of_an_octave():
    stops = KernelSizeExplorer.CHANNEL_STOPS
    assert stops[0] == 1
    assert stops[-1] == KernelSizeExplorer.MAX_CHANNELS == 8192
    assert {2**n for n in range(14)} <= set(stops)
    assert all(b == a + 1 or b / a < 2 ** (2 / 16) for a, b in itertools.pairwise(stops))


def test_every_position_of_the_channels_slider(panel):
    moved = slider(panel, "channels")
    assert (moved.min, moved.max, moved.step) == (0, len(panel.CHANNEL_STOPS) - 1, 1)
    for position, channels in enumerate(panel.CHANNEL_STOPS):
        moved.value = position
        assert panel.channels == box(panel, "channels").value == channels
        assert panel.kernel_size == adaptive_kernel_size(channels)
        assert f"log2 {channels} + 1) / 2" in readout(panel)
        assert f"k = {panel.kernel_size} " in readout(panel)


@pytest.mark.parametrize("ties", ["up", "down"])
def test_every_position_of_gamma_and_b(panel, ties):
    panel.channels = 128
    control(panel, ipywidgets.Dropdown, "ties").value = ties
    for tenths in range(5, 41):
        # What a slider's steps of 0.1 add up to, such as 2.3000000000000003.
        slider(panel, "slope").value = 0.5 + 0.1 * (tenths - 5)
        assert panel.gamma == box(panel, "slope").value == tenths / 10
        for halves in range(-8, 9):
            slider(panel, "offset").value = halves / 2
            assert panel.b == box(panel, "offset").value == halves / 2
            assert panel.kernel_size == adaptive_kernel_size(128, tenths / 10, halves / 2, ties)
            assert f"k = {panel.kernel_size} " in readout(panel)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network(panel, network):
    control(panel, ipywidgets.Dropdown, "network").value = network
    assert panel.network == network
    formula = map(adaptive_kernel_size, stage_channels(network))
    rows = (stage_channels(network), formula, released_kernel_sizes(network))
    for row in rows:
        assert " ".join(map(str, row)) in readout(panel).replace("≠ ", "")
    differing = readout(panel).count("≠")
    expected = zip(map(adaptive_kernel_size, stage_channels(network)), rows[2], strict=True)
    assert differing == sum(formula != released for formula, released in expected)


def test_boxes_take_what_the_sliders_skip(panel):
    assert 127 not in panel.CHANNEL_STOPS
    box(panel, "channels").value = 127
    assert panel.channels == 127
    assert panel.kernel_size == 3
    nearest = slider(panel, "channels").value
    assert panel.CHANNEL_STOPS[nearest] == 128
    slider(panel, "channels").value = nearest + 1
    assert panel.channels == box(panel, "channels").value == panel.CHANNEL_STOPS[nearest + 1]

    box(panel, "slope").value = 1.25
    assert panel.gamma == slider(panel, "slope").value == 1.25
    box(panel, "offset").value = 0.3
    assert panel.b == slider(panel, "offset").value == 0.3


@pytest.mark.parametrize(
    "act",
    [
        lambda panel: setattr(panel, "channels", 127),
        lambda panel: setattr(slider(panel, "channels"), "value", 100),
        lambda panel: setattr(box(panel, "channels"), "value", 127),
        lambda panel: setattr(slider(panel, "slope"), "value", 3.0),
        lambda panel: setattr(box(panel, "offset"), "value", -1.5),
        lambda panel: control(panel, ipywidgets.Button, "C = 2048").click(),
    ],
)
def test_one_action_draws_once(panel, drawings, act):
    assert len(drawings) == 1
    act(panel)
    assert len(drawings) == 2


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("channels", 0, ValueError),
        ("channels", -3, ValueError),
        ("channels", 8193, ValueError),
        ("channels", 64.0, TypeError),
        ("channels", True, TypeError),
        ("channels", "64", TypeError),
        ("gamma", 0, ValueError),
        ("gamma", 0.4, ValueError),
        ("gamma", 4.1, ValueError),
        ("gamma", float("nan"), ValueError),
        ("gamma", "2", TypeError),
        ("b", 5, ValueError),
        ("b", float("-inf"), ValueError),
        ("b", None, TypeError),
        ("ties", "even", ValueError),
        ("network", "vgg16", ValueError),
    ],
)
def test_invalid_attributes_raise_and_change_nothing(panel, name, value, error):
    before = state(panel)
    with pytest.raises(error, match=f"{name}="):
        setattr(panel, name, value)
    with pytest.raises(error, match=f"{name}="):
        KernelSizeExplorer(**{name: value})
    assert state(panel) == before


def test_kernel_size_is_read_only(panel):
    with pytest.raises(AttributeError):
        panel.kernel_size = 3


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("channels", 0, "channels=0: accepted is a positive integer"),
        ("channels", 10_000, "channels=10000: accepted here are 1 to 8192"),
        ("slope", -1.0, "gamma=-1.0: accepted is a finite number"),
        ("slope", 9.0, "gamma=9.0: accepted here are 0.5 to 4"),
        ("offset", 4.5, "b=4.5: accepted here are -4 to 4"),
    ],
)
def test_an_invalid_number_in_a_box_is_answered_in_the_status_line(panel, name, typed, message):
    before = state(panel)
    assert status(panel) == ""
    box(panel, name).value = typed
    assert message in status(panel)
    assert "Still showing C = 256, γ = 2, b = 1" in status(panel)
    assert state(panel) == before
    control(panel, ipywidgets.Button, "Reset").click()
    assert status(panel) == ""
    assert box(panel, "channels").value == 256
    assert (box(panel, "slope").value, box(panel, "offset").value) == (2, 1)


def test_presets_and_reset(panel):
    panel.channels, panel.ties, panel.network = 300, "down", "resnet18"
    for name, preset in panel.PRESETS.items():
        control(panel, ipywidgets.Button, name).click()
        assert state(panel).items() >= preset.items()
    control(panel, ipywidgets.Button, "Reset").click()
    assert state(panel) == state(KernelSizeExplorer())

    other = KernelSizeExplorer(channels=24, gamma=1.5, network="mobilenet_v2")
    first = state(other)
    control(other, ipywidgets.Button, "k > C").click()
    assert other.kernel_size > other.channels
    control(other, ipywidgets.Button, "Reset").click()
    assert state(other) == first


def test_a_preset_keeps_the_tie_rule(panel):
    panel.ties = "down"
    control(panel, ipywidgets.Button, "C = 128").click()
    assert (panel.ties, panel.kernel_size) == ("down", 3)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"channels": 256}, ["(log2 256 + 1) / 2 = (8 + 1) / 2 = 4.5", "integer to 4.5: k = 5 "]),
        ({"channels": 127}, ["(log2 127 + 1) / 2 ≈ (6.989 + 1) / 2 ≈ 3.994", "k = 3 "]),
        ({"channels": 128}, ["tie : 4 is midway between 3 and 5; ties go up: k = 5 "]),
        ({"channels": 128, "ties": "down"}, ["midway between 3 and 5; ties go down: k = 3 "]),
        ({"channels": 2048}, ["tie : 6 is midway between 5 and 7; ties go up: k = 7 "]),
        ({"channels": 2, "b": -4}, ["(log2 2 − 4) / 2 = (1 − 4) / 2 = -1.5", "to 1.5: k = 1 "]),
        ({"channels": 1, "b": -4}, ["= -2 ", "tie : 2 is midway between 1 and 3"]),
        ({"channels": 4, "b": -2}, ["tie : 0 is midway between -1 and 1; and a kernel size is"]),
        ({"channels": 512, "gamma": 3}, ["= (9 + 1) / 3 ≈ 3.333"]),
        ({"channels": 4, "gamma": 0.5}, ["Cannot be built : k = 7 is larger than C = 4"]),
        ({"channels": 256}, ["Every C from 128 to 2,047 shares k = 5."]),
        ({"channels": 256, "ties": "down"}, ["Every C from 129 to 2,048 shares k = 5."]),
        ({"channels": 8192}, ["Every C from 2,048 to 32,767 shares k = 7."]),
        ({"channels": 256}, ["ECA 5; SE with r = 16, 2C²/r = 8,192."]),
        ({"channels": 127}, ["2C²/r ≈ 2,016.125."]),
    ],
)
def test_readout(panel, settings, shown):
    for name, value in settings.items():
        setattr(panel, name, value)
    for words in shown:
        assert words in readout(panel)
    assert ("Cannot be built" in readout(panel)) == (panel.kernel_size > panel.channels)


def test_readout_is_themed_and_has_no_headings(panel):
    *_, html = (w.value for w in widgets(panel) if isinstance(w, ipywidgets.HTML))
    assert "var(--jp-ui-font-color1)" in html
    assert not re.search(r"<h\d", html)


@pytest.mark.parametrize("ties", ["up", "down"])
@pytest.mark.parametrize(
    ("gamma", "b"), [(2, 1), (0.5, 4), (0.5, -4), (1.1, -2.5), (4, 4), (4, -4)]
)
def test_steps_are_those_of_adaptive_kernel_size(drawings, gamma, b, ties):
    panel = KernelSizeExplorer(1, gamma, b, ties)
    expected = [adaptive_kernel_size(C, gamma, b, ties) for C in range(1, 8193)]
    starts, sizes = drawings[-1]["steps"]
    assert starts[-1] > 8192
    stepwise = [sizes[i] for i in np.searchsorted(starts, range(1, 8193), side="right") - 1]
    assert stepwise == expected

    for channels in (1, 2, 9, 31, 64, 128, 1000, 8192):
        panel.channels = channels
        first, last = drawings[-1]["interval"]
        assert first <= channels <= last
        k = adaptive_kernel_size(channels, gamma, b, ties)
        assert all(adaptive_kernel_size(C, gamma, b, ties) == k for C in (first, last))
        assert adaptive_kernel_size(last + 1, gamma, b, ties) != k
        assert first == 1 or adaptive_kernel_size(first - 1, gamma, b, ties) != k


@pytest.mark.parametrize(("channels", "k"), [(1, 1), (3, 1), (4, 7), (31, 3), (32, 5), (8192, 7)])
def test_band_is_the_matrix_of_the_convolution(channels, k):
    side = min(channels, 32)
    weights = np.random.default_rng(0).normal(size=k)
    y = np.random.default_rng(1).normal(size=side)
    matrix = np.concatenate([[0], weights])[explorers._band(side, k)]
    padded = np.pad(y, k // 2)
    assert np.allclose(matrix @ y, np.lib.stride_tricks.sliding_window_view(padded, k) @ weights)


@pytest.mark.parametrize("settings", STATES)
def test_the_picture_is_drawn_from_the_state(drawings, settings):
    panel = KernelSizeExplorer(**settings)
    (numbers,) = drawings
    mapping = (panel.gamma, panel.b, panel.ties)
    assert numbers["point"] == (panel.channels, panel.kernel_size)
    assert numbers["parameters"] == (panel.kernel_size, panel.channels**2 / 8)
    assert numbers["band"].shape == (min(panel.channels, 32),) * 2
    widths, formula, released = numbers["stages"]
    assert widths == stage_channels(panel.network)
    assert formula == [adaptive_kernel_size(width, *mapping) for width in widths]
    assert released == released_kernel_sizes(panel.network)
    assert f"k by Eq. 12 {' '.join(map(str, formula))} k released" in readout(panel)


@pytest.mark.parametrize("settings", [{}, *STATES])
def test_state_line_gives_an_equal_panel(panel, settings):
    for name, value in settings.items():
        setattr(panel, name, value)
    line = re.search(r"This state: (KernelSizeExplorer\(.*\))", readout(panel))[1]
    assert line == repr(panel)
    assert state(eval(line)) == state(panel)


def test_state_line_is_short_where_nothing_is_unusual(panel):
    assert repr(panel) == "KernelSizeExplorer(channels=256, gamma=2, b=1)"
    panel.gamma, panel.channels = np.float64(2.5), np.int64(64)
    assert repr(panel) == "KernelSizeExplorer(channels=64, gamma=2.5, b=1)"


def test_picture_changes_with_every_attribute(drawn):
    control(drawn, ipywidgets.Button, "Reset").click()
    seen = {image(drawn).value}
    for name, value in STATES[0].items():
        setattr(drawn, name, value)
        seen.add(image(drawn).value)
    for png in seen:
        with Image.open(io.BytesIO(png)) as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (720, 560), "P")
    # gamma and b are in STATES[0] what they were before.
    assert len(seen) == 1 + 3


def test_a_moved_picture_equals_a_new_one(drawn):
    for settings in STATES:
        for name, value in settings.items():
            setattr(drawn, name, value)
        assert image(drawn).value == image(KernelSizeExplorer(**settings)).value


@pytest.mark.parametrize("gamma", KernelSizeExplorer.GAMMA_LIMITS)
@pytest.mark.parametrize("b", KernelSizeExplorer.B_LIMITS)
def test_the_corners_of_the_state_can_be_drawn(drawn, gamma, b):
    drawn.gamma, drawn.b = gamma, b
    for channels in (1, 8192):
        before = image(drawn).value
        drawn.channels = channels
        assert image(drawn).value != before


def test_mimebundle_shows_the_picture_to_readers_without_a_kernel():
    panel = KernelSizeExplorer(channels=64)
    bundle = panel._repr_mimebundle_(include=None, exclude=None)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id
    assert bundle["text/plain"] == "KernelSizeExplorer(channels=64, gamma=2, b=1): k = 3"
    assert base64.b64decode(bundle["image/png"]) == image(panel).value


def test_controls_have_visible_labels(panel):
    kinds = (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.Dropdown, ipywidgets.Button)
    labels = [w.description for w in widgets(panel) if isinstance(w, kinds)]
    assert len(labels) == 3 + 2 + len(panel.PRESETS) + 1
    assert all(labels)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import eca_lab.kernel_size", {"torch", "matplotlib", "ipywidgets", "numpy"}),
        (
            "from eca_lab.explorers import KernelSizeExplorer; KernelSizeExplorer().channels = 64",
            {"torch", "matplotlib.pyplot"},
        ),
    ],
)
def test_light_imports(statement, absent):
    code = f"{statement}; import sys; print(*sorted({absent} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
