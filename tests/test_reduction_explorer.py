"""`ReductionExplorer`; what all panels share is tested in test_explorers.py too."""

import base64
import io
import itertools
import re

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from test_explorers import box, control, image, readout, slider, status, widgets

from eca_lab.attention import CBAM, ECA, SE, SEGroup
from eca_lab.explorers import ReductionExplorer
from eca_lab.explorers import reduction as explorers

NAMES = ("channels", "reduction", "kernel_size", "groups", "seed", "weights")
DEFAULTS = {
    "channels": 64,
    "reduction": 16,
    "kernel_size": 3,
    "groups": 16,
    "seed": 0,
    "weights": "random",
}


def state(panel):
    return {name: getattr(panel, name) for name in NAMES}


def layers():
    torch.manual_seed(1)
    return {
        "layer1": {"se": SE(16, 4), "eca": ECA(16, 3), "y": torch.randn(16)},
        "layer3": {
            "se": SE(96, 8),
            "eca": ECA(96, 5, order="shuffled"),
            "se_gc": SEGroup(96, 12),
        },
    }


@pytest.fixture(scope="module")
def drawn():
    """A panel that draws."""
    return ReductionExplorer()


@pytest.fixture
def drawings(monkeypatch):
    """What panels would draw, instead of drawing it."""
    numbers = []
    monkeypatch.setattr(
        explorers.ReductionPicture, "png", lambda self, **drawn: numbers.append(drawn) or b""
    )
    return numbers


@pytest.fixture
def panel(drawings):
    """A panel that does not draw."""
    return ReductionExplorer()


def check(panel):
    """The numbers of a panel against what they must be for random weights."""
    C, r, k, g = panel.channels, panel.reduction, panel.kernel_size, panel.groups
    table = panel.measures
    assert table["spec"].tolist() == [f"se(r={r})", f"se_gc(groups={g})", f"eca(k={k})"]
    assert table["parameters"].tolist() == [2 * C * (C // r), C * C // g, k]
    assert table["multiply_adds"].tolist() == [2 * C * (C // r), C * C // g, k * C]
    assert table.loc["SE", "rank"] <= C // r
    assert table.loc["SE-GC", "bandwidth"] <= C // g - 1
    assert table.loc["ECA", "bandwidth"] == k // 2
    for words in (f"= {C // r} hidden", f"= {2 * C * (C // r):,} parameters", f"k // 2 = {k // 2}"):
        assert words in readout(panel)
    shown = " ".join(str(rank) for rank in table["rank"])
    assert f" rank {shown} " in readout(panel)


def test_every_position_of_every_slider(panel):
    for position, channels in enumerate(panel.CHANNEL_STOPS[:-1]):
        slider(panel, "channels").value = position
        assert panel.channels == box(panel, "channels").value == channels
        check(panel)
        for name, attribute, stops in (
            ("reduction", "reduction", [2**n for n in range(10) if 2**n <= channels]),
            ("kernel", "kernel_size", [k for k in range(1, 32, 2) if k <= channels]),
            ("groups", "groups", [g for g in range(1, channels + 1) if channels % g == 0]),
        ):
            moved = slider(panel, name)
            assert (moved.min, moved.max) == (0, len(stops) - 1)
            # There and back again, so that the first move is one too.
            for i in (*range(len(stops)), 0):
                moved.value = i
                assert getattr(panel, attribute) == box(panel, name).value == stops[i]
                assert status(panel) == ""
                if len(stops) < 8 or i % 5 == 0:
                    check(panel)


@pytest.mark.parametrize("channels", [8, 9, 60, 97, 500, 512])
def test_the_corners_of_the_state(panel, channels):
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    kernels = (1, channels - 1 + channels % 2)
    for r, k, g in itertools.product((1, channels), kernels, (divisors[0], divisors[-1])):
        panel.channels = channels
        panel.reduction, panel.kernel_size, panel.groups = r, k, g
        check(panel)


@pytest.mark.parametrize(("channels", "reduction"), [(8, 8), (512, 1)])
def test_the_corners_can_be_drawn(drawn, channels, reduction):
    drawn.channels = channels
    drawn.reduction = reduction
    with Image.open(io.BytesIO(image(drawn).value)) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (720, 560), "P")


def test_narrower_layers_lower_what_no_longer_fits(panel):
    panel.kernel_size, panel.groups = 31, 32
    panel.channels = 24
    assert (panel.reduction, panel.kernel_size, panel.groups) == (16, 23, 24)
    assert status(panel) == "Lowered to fit C = 24: kernel_size to 23, groups to 24"
    box(panel, "channels").value = 10
    assert (panel.reduction, panel.kernel_size, panel.groups) == (10, 9, 10)
    assert status(panel).startswith("Lowered to fit C = 10: reduction to 10")
    slider(panel, "channels").value = 3
    assert panel.channels == 64
    assert (panel.reduction, panel.kernel_size, panel.groups) == (10, 9, 8)
    assert status(panel) == "Lowered to fit C = 64: groups to 8"
    panel.kernel_size = 5
    assert status(panel) == ""


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("channels", 7, ValueError, "channels=7: accepted here are 8 to 512"),
        ("channels", 513, ValueError, "channels=513: accepted here are 8 to 512"),
        ("channels", 64.0, TypeError, r"channels=64\.0"),
        ("channels", "64", TypeError, "channels='64'"),
        ("reduction", 65, ValueError, "reduction=65: accepted are at most channels=64"),
        ("reduction", 0, ValueError, "reduction=0: accepted is a positive integer"),
        ("kernel_size", 4, ValueError, "kernel_size=4: accepted are odd integers"),
        ("kernel_size", 65, ValueError, "kernel_size=65: accepted are at most channels=64"),
        ("groups", 5, ValueError, "groups=5: accepted are divisors of channels=64"),
        ("groups", True, TypeError, "groups=True"),
        ("seed", -1, ValueError, "seed=-1: accepted are 0 to"),
        ("seed", 2**63, ValueError, "seed=9223372036854775808"),
        ("seed", 0.5, TypeError, r"seed=0\.5"),
        ("weights", "layer9", ValueError, "weights='layer9': accepted are 'random'"),
    ],
)
def test_invalid_attributes_raise_and_change_nothing(panel, name, value, error, message):
    with pytest.raises(error, match=message):
        setattr(panel, name, value)
    with pytest.raises(error, match=message):
        ReductionExplorer(**{name: value})
    assert state(panel) == DEFAULTS


def test_the_constructor_lowers_nothing(drawings):
    with pytest.raises(ValueError, match="reduction=16: accepted are at most channels=8"):
        ReductionExplorer(channels=8, reduction=16)


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("channels", 0, "channels=0: accepted is a positive integer"),
        ("channels", 1000, "channels=1000: accepted here are 8 to 512"),
        ("reduction", 100, "reduction=100: accepted are at most channels=64"),
        ("kernel", 2, "kernel_size=2: accepted are odd integers"),
        ("groups", 3, "groups=3: accepted are divisors of channels=64"),
        ("seed", -5, "seed=-5: accepted are 0 to"),
    ],
)
def test_an_invalid_number_in_a_box_is_answered_in_the_status_line(panel, name, typed, message):
    box(panel, name).value = typed
    assert message in status(panel)
    assert "Still showing C = 64, r = 16, k = 3, 16 groups, random weights" in status(panel)
    assert state(panel) == DEFAULTS
    control(panel, ipywidgets.Button, "Reset").click()
    assert status(panel) == ""
    assert box(panel, name).value != typed


def test_measures_are_read_only(panel):
    with pytest.raises(AttributeError):
        panel.measures = None


def test_presets_and_reset(panel):
    for name, preset in panel.PRESETS.items():
        control(panel, ipywidgets.Button, name).click()
        assert state(panel).items() >= preset.items()
        check(panel)
    control(panel, ipywidgets.Button, "Reset").click()
    assert state(panel) == DEFAULTS


def test_draw_again(panel, drawings):
    control(panel, ipywidgets.Button, "Draw again").click()
    assert panel.seed == box(panel, "seed").value == 1
    first, second = drawings
    for one, other in zip(first["matrices"], second["matrices"], strict=True):
        assert not np.array_equal(one, other)
    panel.seed = 0
    for one, other in zip(first["matrices"], drawings[-1]["matrices"], strict=True):
        assert np.array_equal(one, other)


def test_random_weights_leave_the_random_numbers_of_others_alone(drawings):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ReductionExplorer(seed=77)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "act",
    [
        lambda panel: setattr(panel, "channels", 8),
        lambda panel: setattr(slider(panel, "channels"), "value", 5),
        lambda panel: setattr(box(panel, "reduction"), "value", 7),
        lambda panel: control(panel, ipywidgets.Button, "ResNet-50").click(),
        lambda panel: control(panel, ipywidgets.Button, "Draw again").click(),
    ],
)
def test_one_action_draws_once(panel, drawings, act):
    assert len(drawings) == 1
    act(panel)
    assert len(drawings) == 2


def test_the_picture_is_drawn_from_the_state(panel, drawings):
    panel.channels = 32
    numbers = drawings[-1]
    for matrix, rank, spectrum in zip(
        numbers["matrices"], numbers["ranks"], numbers["spectra"], strict=True
    ):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert np.allclose(spectrum, values / values[0], atol=1e-5)
        assert rank == np.sum(values > 1e-5 * values[0])
    assert numbers["ranks"] == panel.measures["rank"].tolist()
    assert numbers["parameters"] == panel.measures["parameters"].tolist()


def test_trained_layers(drawings):
    trained = layers()
    panel = ReductionExplorer(trained=trained)
    assert state(panel) == DEFAULTS

    choice = control(panel, ipywidgets.Dropdown, "weights")
    choice.value = "layer1"
    assert state(panel) == {
        "channels": 16,
        "reduction": 4,
        "kernel_size": 3,
        "groups": 16,
        "seed": 0,
        "weights": "layer1",
    }
    se, _, eca = drawings[-1]["matrices"]
    module, y = trained["layer1"]["se"], trained["layer1"]["y"]
    w1, w2 = module.fc1.weight.detach(), module.fc2.weight.detach()
    expected = w2 @ torch.diag((w1 @ y > 0).float()) @ w1
    assert np.allclose(se, expected, atol=1e-6)
    assert np.allclose(eca, trained["layer1"]["eca"].interaction_matrix())

    # Random weights of the same sizes, to compare with.
    choice.value = "random"
    assert state(panel) == {**DEFAULTS, "channels": 16, "reduction": 4}
    assert not np.allclose(drawings[-1]["matrices"][2], eca)
    check(panel)

    panel.weights = "layer3"
    assert (panel.channels, panel.reduction) == (96, 8)
    assert (panel.kernel_size, panel.groups) == (5, 12)
    gc = trained["layer3"]["se_gc"].interaction_matrix()
    assert np.allclose(drawings[-1]["matrices"][1], gc)
    assert panel.measures.loc["ECA", "spec"] == "eca(k=5, order=shuffled)"

    # Another size is that of no trained layer.
    slider(panel, "kernel").value = 1
    assert (panel.kernel_size, panel.weights, choice.value) == (3, "random", "random")
    check(panel)


def test_without_trained_layers_there_is_nothing_to_choose(panel):
    assert not [w for w in widgets(panel) if isinstance(w, ipywidgets.Dropdown)]


def test_starting_with_a_trained_layer(drawings):
    panel = ReductionExplorer(weights="layer1", trained=layers())
    assert (panel.channels, panel.reduction, panel.kernel_size) == (16, 4, 3)
    panel.channels = 64
    assert panel.weights == "random"
    control(panel, ipywidgets.Button, "Reset").click()
    assert (panel.channels, panel.weights) == (16, "layer1")
    with pytest.raises(ValueError, match="reduction=2 with weights='layer1': accepted is 4"):
        ReductionExplorer(reduction=2, weights="layer1", trained=layers())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"se": SE(32, 4)}, ValueError, r"trained\['layer'\] has widths .*: accepted is one"),
        ({"y": torch.zeros(3)}, ValueError, "accepted is one number of channels"),
        ({"se": CBAM(16, 4)}, TypeError, "is a CBAM: accepted is SE"),
        ({"eca": SE(16, 4)}, TypeError, r"trained\['layer'\]\['eca'\] is a SE: accepted is ECA"),
        ({"cbam": CBAM(16, 4)}, ValueError, "holds se, eca, cbam: accepted are se and eca"),
        ({"se": SE(4, 4), "eca": ECA(4, 3)}, ValueError, "channels=4: accepted here are 8 to 512"),
    ],
)
def test_trained_layers_that_are_refused(drawings, changes, error, message):
    modules = {"se": SE(16, 4), "eca": ECA(16, 3), **changes}
    with pytest.raises(error, match=message):
        ReductionExplorer(trained={"layer": modules})
    with pytest.raises(ValueError, match=r"trained\['random'\]: accepted is any other name"):
        ReductionExplorer(trained={"random": {"se": SE(16, 4), "eca": ECA(16, 3)}})
    with pytest.raises(ValueError, match="holds se: accepted are se and eca"):
        ReductionExplorer(trained={"layer": {"se": SE(16, 4)}})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "ReductionExplorer(channels=64, reduction=16, kernel_size=3, groups=16)"),
        (
            {"channels": np.int64(24), "seed": 3},
            "ReductionExplorer(channels=24, reduction=16, kernel_size=3, groups=12, seed=3)",
        ),
        (
            {"weights": "layer1"},
            "ReductionExplorer(groups=16, weights='layer1', trained=trained)",
        ),
        ({"weights": "layer3"}, "ReductionExplorer(weights='layer3', trained=trained)"),
    ],
)
def test_state_line_gives_an_equal_panel(drawings, settings, line):
    trained = layers()
    panel = ReductionExplorer(trained=trained)
    for name, value in settings.items():
        setattr(panel, name, value)
    assert repr(panel) == line
    shown = re.search(r"This state: (ReductionExplorer\(.*\))", readout(panel))[1]
    assert shown.replace("&#x27;", "'") == line
    assert state(eval(line)) == state(panel)


def test_a_moved_picture_equals_a_new_one(drawn):
    settings = {"channels": 48, "reduction": 3, "kernel_size": 9, "groups": 6, "seed": 2}
    for name, value in settings.items():
        setattr(drawn, name, value)
    assert image(drawn).value == image(ReductionExplorer(**settings)).value


def test_picture_changes_with_every_attribute(drawn):
    control(drawn, ipywidgets.Button, "Reset").click()
    seen = [image(drawn).value]
    for name, value in {"seed": 1, "groups": 4, "kernel_size": 5, "reduction": 2}.items():
        setattr(drawn, name, value)
        seen.append(image(drawn).value)
    assert len(set(seen)) == 5


def test_mimebundle_shows_the_picture_to_readers_without_a_kernel(drawn):
    bundle = drawn._repr_mimebundle_(include=None, exclude=None)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == drawn.model_id
    ranks = drawn.measures["rank"]
    assert bundle["text/plain"] == (
        f"{drawn!r}: ranks SE {ranks['SE']}, SE-GC {ranks['SE-GC']}, ECA {ranks['ECA']} of 64"
    )
    assert base64.b64decode(bundle["image/png"]) == image(drawn).value


def test_readout_is_themed_and_has_no_headings(panel):
    *_, html = (w.value for w in widgets(panel) if isinstance(w, ipywidgets.HTML))
    assert "var(--jp-ui-font-color1)" in html
    assert not re.search(r"<h\d", html)


def test_controls_have_visible_labels(panel):
    kinds = (ipywidgets.IntSlider, ipywidgets.Button)
    labels = [w.description for w in widgets(panel) if isinstance(w, kinds)]
    assert len(labels) == 4 + 1 + len(panel.PRESETS) + 1
    assert all(labels)
