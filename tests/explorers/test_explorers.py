"""What every explorer keeps to in Python. Another explorer is one more `Row` of `rows`.

What is particular to one is in test_<name>_explorer.py; what the page draws in test_browser.py.
"""

import base64
import io
import json
import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from eca_lab import explorers
from eca_lab.attention.modules import ECA, SE
from eca_lab.explorers.explorer import Explorer
from eca_lab.figures import LabFigure
from eca_lab.networks.backbones import build_model

HOSTILE = "<img src=x onerror=\"alert('1')\">"


@dataclass
class Row:
    """An explorer: what it is made of, a state to begin with, and what it accepts and does not."""

    state: dict
    wrong: dict  # attribute -> values that are refused
    together: dict  # changes that one action brings
    given: dict = field(default_factory=dict)  # arguments that are no state, as repr names them


def networks():
    torch.manual_seed(0)
    arms = {"eca": "eca", HOSTILE: "se(r=4)"}
    return {
        name: build_model("tiny", arm, num_classes=2, stem="cifar") for name, arm in arms.items()
    }


def layers():
    torch.manual_seed(1)
    return {HOSTILE: {"se": SE(16, 4), "eca": ECA(16, 3), "y": torch.randn(16)}}


def trials():
    setting = {"dataset": HOSTILE, "fingerprint": "0123abcd", "size": 16, "train": 1000}
    setting |= {"backbone": "tiny", "recipe": "rate=1", "epochs": 4}
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        setting | {"arm": arm, "seed": seed, "top1": rng.normal(60), "top5": rng.normal(90)}
        for arm in ("none", "eca", "eca(k=1)")
        for seed in range(4)
    )


@pytest.fixture(scope="module")
def rows(dataset):
    return {
        "KernelSizeExplorer": Row(
            state={"channels": 64, "gamma": 3, "b": -1, "ties": "down", "network": "resnet18"},
            wrong={
                "channels": (0, 8193, 65.0, True, "64"),
                "gamma": (0, 0.4, 4.1, float("nan"), "2", True),
                "b": (5, float("-inf"), None),
                "ties": ("even",),
                "network": ("vgg16", 0),
            },
            together={"channels": 4, "gamma": 0.5, "network": "mobilenet_v2"},
        ),
        "ModuleExplorer": Row(
            state={"kernel": [0.5, 1, np.float64(0.25)], "channel": np.int64(3)},
            wrong={
                "averages": (23 * [1], [*23 * [1], float("nan")], 24 * ["1"], 24 * [3], "1", None),
                "kernel": ([1, 1], 11 * [0], [True], [2.5], [], 1),
                "order": (24 * [1], [*range(24)], [*range(1, 24), 24.5], range(1, 24), None),
                "channel": (0, 25, 7.5, True, "7"),
            },
            together={"averages": 24 * (0.5,), "kernel": (1,), "order": (*range(24, 0, -1),)},
        ),
        "ChannelWeightExplorer": Row(
            state={"network": HOSTILE, "layer": "layer1.attention", "image": np.int64(3)},
            wrong={
                "network": ("vgg16", 0),
                "layer": ("fc", None),
                "image": (20, -1, 1.0, True),
                "channel": (256, -1, "2"),
                "factor": (5, float("nan"), "2", None),
            },
            together={"network": "eca", "layer": "layer2.attention", "channel": 60, "factor": 2.5},
            given={"trained": networks(), "shapes": dataset},
        ),
        "ReductionExplorer": Row(
            state={"channels": np.int64(32), "reduction": 4, "groups": 2, "seed": 7},
            wrong={
                "channels": (7, 513, 64.0, True, "32"),
                "reduction": (65, 0, 1.5),
                "kernel_size": (4, 65, -1),
                "groups": (5, True, 0),
                "seed": (-1, 100, 0.5),
                "weights": ("layer9", None),
            },
            together={"weights": HOSTILE, "groups": 4},
            given={"trained": layers()},
        ),
        "StudyExplorer": Row(
            state={"metric": "top5", "baseline": "none", "margin": np.float64(0.35)},
            wrong={
                "data": ("mnist", None),
                "backbone": ("resnet10",),
                "metric": ("loss", 1),
                "baseline": ("se",),
                "margin": (0, 6, "1", float("nan")),
            },
            together={"metric": "top1", "baseline": "eca", "margin": 1.0},
            given={"recorded": trials()},
        ),
    }


@pytest.fixture(params=explorers.__all__)
def name(request):
    return request.param


@pytest.fixture
def row(rows, name):
    return rows[name]


@pytest.fixture
def make(row, name):
    """The explorer, with changes of the row's state or with another one."""
    kind = getattr(explorers, name)
    positional = row.given.values() if kind.ARGUMENTS else ()
    by_name = {} if kind.ARGUMENTS else row.given
    return lambda **changes: kind(*positional, **by_name, **(changes or row.state))


def test_a_wrong_value_raises_and_changes_nothing(row, make):
    explorer = make()
    before = explorer._state()
    assert row.wrong.keys() == before.keys()
    for attribute, values in row.wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{attribute}=.*: accepted"):
                setattr(explorer, attribute, value)
            # Nothing either of what was to change along with it.
            with pytest.raises(ValueError, match="accepted"):
                explorer.set_state({**row.together, attribute: value})
            assert explorer._state() == before
            if value is not None:  # which can stand for an argument that is left out
                with pytest.raises(ValueError, match=f"{attribute}=.*: accepted"):
                    make(**{attribute: value})
        assert explorer.answer.get("asked", before) == before


def test_changes_of_one_action_arrive_as_one(row, make):
    explorer, seen = make(), []
    explorer.observe(lambda _: seen.append(repr(explorer)), list(row.together))
    explorer.set_state(row.together)  # what the page sends
    assert explorer._state().items() >= row.together.items()
    assert len(seen) >= len(row.together)
    assert set(seen) == {repr(explorer)}
    told = len(seen)
    explorer.set_state(
        {  # the same again, of another type, is no change
            name: value if isinstance(value, str) else np.float64(value)
            for name, value in row.together.items()
        }
    )
    assert (len(seen), repr(explorer)) == (told, seen[-1])
    assert explorer.answer.get("asked", explorer._state()) == explorer._state()


def test_repr_is_a_call_that_gives_an_equal_explorer(row, make, name):
    for explorer in (make(), make(**row.together)):
        again = eval(repr(explorer), row.given | {name: type(explorer)})
        assert (again._state(), again.answer) == (explorer._state(), explorer.answer)
        assert repr(again) == repr(explorer)
        assert "np." not in repr(explorer)


def test_what_the_page_is_told(make):
    explorer = make()
    assert explorer.given["initial"] == explorer._state()
    assert explorer._state().keys() >= explorer.given["usual"].keys()
    for preset in explorer.PRESETS.values():
        explorer.set_state(preset)
        assert explorer._state().items() >= preset.items()
    assert "import " not in explorer._esm  # the page can fetch nothing
    assert "http" not in explorer._esm.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in explorer._esm  # and names are never markup


def test_readers_without_a_kernel_see_one_line_and_the_picture(make):
    explorer = make()
    data, metadata = explorer._repr_mimebundle_(include=None, exclude=None)
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert data["text/plain"] == f"{explorer!r}: {explorer._result()}"
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
        assert (picture.format, picture.width) == ("PNG", 1440)
        size = {"width": 720, "height": picture.height // 2}
        assert picture.convert("RGB").entropy() > 0.2  # and it is not blank
    assert metadata["image/png"] == size


def test_the_picture_says_that_it_is_one(make, monkeypatch):
    monkeypatch.setattr(LabFigure, "_repr_png_", lambda each: (each.get_suptitle().encode(), {}))
    data, _ = make()._repr_mimebundle_(include=None, exclude=None)
    assert b"Run the cells to touch it" in base64.b64decode(data["image/png"])


@pytest.fixture
def told(monkeypatch):
    """What pages are told: a list of messages."""
    messages = []
    monkeypatch.setattr(Explorer, "_send", lambda _, message, **__: messages.append(message))
    return messages


def update(**state):
    """A message of the page."""
    data = {"method": "update", "state": state, "buffer_paths": []}
    return {"content": {"data": data}, "buffers": []}


def test_what_changed_together_is_told_at_once(row, make, told):
    explorer = make()
    told.clear()
    with explorer.hold_trait_notifications():
        for name, value in row.together.items():
            setattr(explorer, name, value)
    (message,) = told
    assert message["state"].items() >= row.together.items()
    assert bool(explorer.ASKED) == ("answer" in message["state"])


def test_a_page_that_is_refused_is_told_why_and_what_holds(row, make, told):
    explorer = make()
    before = explorer._state()
    told.clear()
    name, values = next(iter(row.wrong.items()))
    explorer._handle_msg(update(**{**row.together, name: values[0]}))
    echo, held, refusal = told
    assert echo["method"] == "echo_update"
    assert held["state"].items() >= before.items() == explorer._state().items()
    assert f"{name}=" in refusal["content"]["refused"]
    assert "accepted" in refusal["content"]["refused"]


def test_a_page_sets_the_state_and_nothing_else(row, make):
    explorer = make()
    given, answer, module = explorer.given, explorer.answer, explorer._esm
    explorer._handle_msg(update(given={}, answer={}, _esm="", **row.together))
    assert (explorer.given, explorer._esm) == (given, module)
    assert explorer.answer.keys() == answer.keys()
    assert explorer._state().items() >= row.together.items()


def test_every_recorded_state_is_accepted_and_answered(make):
    explorer = make()
    first, recorded = explorer._state(), list(explorer._recorded())
    assert bool(recorded or explorer._alone()) == bool(explorer.ASKED)
    for changes in recorded:
        explorer.set_state({**first, **changes})
        assert explorer._state() == explorer.answer["asked"] == {**first, **changes}


def test_every_explorer_is_saved_as_it_is(row, make, tmp_path):
    explorer = make(**row.together)
    before = explorer._state(), explorer.answer
    text = explorer.save(tmp_path / "saved.html").read_text(encoding="utf-8")
    assert (explorer._state(), explorer.answer) == before
    [[_, told]] = re.findall(r'(<script type="application/json" id="told">)(.*)</script>', text)
    traits = json.loads(told)[1]["traits"]
    state = json.loads(json.dumps(explorer._state()))
    assert {name: traits[name] for name in explorer.STATE} == state
    assert HOSTILE not in text.replace(told, "")
