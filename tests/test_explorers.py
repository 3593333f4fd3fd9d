"""What all panels promise, tested over each; their numbers have files of their own."""

import base64
import io

import ipywidgets
import pandas as pd
import pytest
import torch
from PIL import Image

from eca_lab import explorers, stats
from eca_lab.explorers import StudyExplorer

HOSTILE = "<img src=x onerror=alert(1)>"
BOXES = (ipywidgets.IntText, ipywidgets.FloatText)
SLIDERS = (ipywidgets.IntSlider, ipywidgets.FloatSlider)

# Values that no panel takes for an attribute of that name.
WRONG = {
    "data": ("mnist",),
    "backbone": ("vgg",),
    "metric": ("loss",),
    "baseline": ("se",),
    "margin": (0, 6, float("nan")),
}


def trials(arms, seeds=3):
    setting = {"dataset": HOSTILE, "fingerprint": "0123abcd", "size": 16, "train": 1000}
    setting |= {"backbone": "tiny", "recipe": "rate=1", "epochs": 4}
    return pd.DataFrame(
        {**setting, "arm": arm, "seed": seed, "top1": 60 + (7 * seed + row) % 5, "top5": 90 + seed}
        for row, arm in enumerate(arms)
        for seed in range(seeds)
    )


@pytest.fixture(scope="module")
def given():
    """What the panels are of: the arguments that are no state, by the names that repr gives."""
    torch.manual_seed(0)
    return {
        "results": trials(["none", "eca", "eca(k=1)", "eca(k=3)"]),
    }


@pytest.fixture(scope="module", params=["study"])
def shared(request, given):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "RESAMPLES", 99)
        # statsmodels collects garbage at every adjustment, which beside torch takes 0.2 s.
        patch.setattr("gc.collect", lambda *_: 0)
        yield {
            "study": lambda: StudyExplorer(given["results"]),
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
