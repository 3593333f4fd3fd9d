"""What all panels promise, tested over each; their numbers have files of their own."""

import base64
import dataclasses
import io

import ipywidgets
import pytest
import torch
from PIL import Image

from eca_lab import explorers
from eca_lab.attention import ECA, SE
from eca_lab.explorers import ChannelWeightExplorer, ReductionExplorer
from eca_lab.models import build_model

HOSTILE = "<img src=x onerror=alert(1)>"
BOXES = (ipywidgets.IntText, ipywidgets.FloatText)
SLIDERS = (ipywidgets.IntSlider, ipywidgets.FloatSlider)

# Values that no panel takes for an attribute of that name.
WRONG = {
    "channels": (0, 8193, 64.0, True, "64"),
    "network": ("vgg16", 0),
    "reduction": (65, 0, 1.5),
    "kernel_size": (4, 65, -1),
    "groups": (5, True, 0),
    "seed": (-1, 2**63, 0.5),
    "weights": ("layer9",),
    "layer": ("fc",),
    "first_class": ("blue",),
    "second_class": (0,),
    "image": (20, 1.0),
    "channel": (256, -1),
    "factor": (5, float("nan"), "2"),
}


@pytest.fixture(scope="module")
def given(dataset):
    """What the panels are of: the arguments that are no state, by the names that repr gives."""
    torch.manual_seed(0)
    networks = {HOSTILE: build_model("tiny", "eca", 2, "cifar")}
    networks["se"] = build_model("tiny", "se(r=4)", 2, "cifar")
    return {
        "networks": networks,
        "dataset": dataclasses.replace(dataset, classes=(HOSTILE, "$x^{$")),
        "trained": {HOSTILE: {"se": SE(16, 4), "eca": ECA(16, 3)}},
    }


@pytest.fixture(scope="module", params=["reduction", "channel weights"])
def shared(request, given):
    return {
        "reduction": lambda: ReductionExplorer(trained=given["trained"]),
        "channel weights": lambda: ChannelWeightExplorer(given["networks"], given["dataset"]),
    }[request.param]()


@pytest.fixture
def panel(shared):
    shared._set(**shared._initial)
    return shared


def widgets(panel, kinds):
    """All widgets of those kinds in a panel, depth first."""
    for child in getattr(panel, "children", ()):
        if isinstance(child, kinds):
            yield child
        yield from widgets(child, kinds)


@pytest.fixture
def undrawn(panel, monkeypatch):
    """The panel with a list of what it would draw, instead of drawing it."""
    drawn = []
    monkeypatch.setattr(panel._picture, "png", lambda **state: drawn.append(state) or b"")
    return panel, drawn


def click(panel, description):
    (button,) = (
        each for each in widgets(panel, ipywidgets.Button) if each.description == description
    )
    button.click()


def test_every_control_through_its_range(undrawn):
    panel, _ = undrawn
    for row in list(widgets(panel, ipywidgets.HBox)):
        slider, box = row.children
        for position in {1, slider.max // 2, slider.max, 0} & set(range(slider.max + 1)):
            slider.value = position
            assert slider.value == position
            assert "accepted" not in panel._status.value
            assert box.value in panel._state.values()
            # Typed into the box, the same value leads back to the same position.
            typed, box.value = box.value, -999
            box.value = typed
            assert (slider.value, box.value) == (position, typed)
            assert panel._status.value == ""
    for choice in widgets(panel, ipywidgets.Dropdown):
        for index in range(len(choice.options)):
            choice.index = index
            assert choice.index == index
            assert choice.value in panel._state.values()


def test_a_wrong_value_raises_and_changes_nothing(panel, given):
    before = repr(panel)
    for name in panel.STATE:
        for value in WRONG[name]:
            with pytest.raises((TypeError, ValueError), match=f"{name}=.*: accepted"):
                setattr(panel, name, value)
        with pytest.raises((TypeError, ValueError), match=f"{name}=.*: accepted"):
            type(panel)(**{each: given[each] for each in panel.GIVEN}, **{name: value})
    assert repr(panel) == before
    assert panel._state == panel._initial


def test_a_wrong_entry_is_answered_in_the_status_line(undrawn):
    panel, _ = undrawn
    for box in widgets(panel, BOXES):
        box.value = -999
        assert "=-999" in panel._status.value
        assert "accepted" in panel._status.value
        assert "Still showing" in panel._status.value
        assert panel._state == panel._initial
        click(panel, "Reset")
        assert panel._status.value == ""
        assert box.value != -999


def test_presets_and_reset_and_each_action_draws_once(undrawn):
    panel, drawn = undrawn
    for name, preset in panel.PRESETS.items():
        click(panel, name)
        assert panel._state.items() >= preset.items()
    row = next(iter(widgets(panel, ipywidgets.HBox)))
    row.children[0].value = 1
    click(panel, "Reset")
    assert panel._state == panel._initial
    assert len(drawn) == len(panel.PRESETS) + 2


def test_repr_is_a_call_that_gives_an_equal_panel_and_picture(panel, given):
    for row in widgets(panel, ipywidgets.HBox):
        row.children[0].value = 1
    assert f"This state: <code>{type(panel).__name__}(" in panel._readout.value
    again = eval(repr(panel), {**vars(explorers), **given})
    assert again._state == panel._state
    assert again._image.value == panel._image.value  # blitted there, drawn at once here
    panel._set(**panel._initial)
    assert again._image.value != panel._image.value


def test_readers_without_a_kernel_see_one_line_and_the_picture(panel):
    bundle = panel._repr_mimebundle_(include=None, exclude=None)
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id
    assert bundle["text/plain"] == f"{panel!r}: {panel._result()}"
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as picture:
        assert (picture.format, picture.mode, picture.size[0]) == ("PNG", "P", 720)


def test_names_reach_the_page_as_text(undrawn):
    panel, _ = undrawn
    for choice in widgets(panel, ipywidgets.Dropdown):  # some options are hostile
        for index in range(len(choice.options)):
            choice.index = index
            texts = [panel._status.value, panel._readout.value]
            texts += [each.value for each in widgets(panel, ipywidgets.HTML)]
            assert not [text for text in texts if "<img" in text]
    for name in panel.STATE:
        panel._try(**{name: HOSTILE})
        assert "<img" not in panel._status.value
    panel._try(**{name: "<img src=y>"})
    assert "=&#39;&lt;img src=y&gt;&#39;: accepted" in panel._status.value


def test_controls_have_labels_and_the_read_out_is_themed(panel):
    labelled = (*SLIDERS, ipywidgets.Dropdown, ipywidgets.Button)
    assert all(each.description for each in widgets(panel, labelled))
    assert all(each.description or each.tooltip for each in widgets(panel, BOXES))
    assert "var(--jp-ui-font-color1)" in panel._readout.value
    assert "<h" not in panel._readout.value
