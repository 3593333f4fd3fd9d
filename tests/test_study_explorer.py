"""The panel of the study, driven over its whole range."""

import itertools

import numpy as np
import pandas as pd
import pytest

from eca_lab import stats
from eca_lab.explorers import StudyExplorer
from eca_lab.results import SETTING

ARMS = ["none", "eca", "eca(k=1)", "eca(k=3)"]


def trials(dataset, backbone, recipe, arms, seeds):
    rng = np.random.default_rng(len(dataset) + len(backbone) + len(recipe))
    setting = {"dataset": dataset, "fingerprint": "0123abcd", "size": 16, "train": 1000}
    return [
        {
            **setting,
            "backbone": backbone,
            "recipe": recipe,
            "epochs": 4,
            "arm": arm,
            "seed": seed,
            "top1": 60 + rng.normal(),
            "top5": 90 + rng.normal(),
        }
        for arm in arms
        for seed in range(seeds)
    ]


@pytest.fixture
def results(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 99)
    # statsmodels collects garbage at every adjustment, which beside torch takes 0.2 s.
    monkeypatch.setattr("gc.collect", lambda *_: 0)
    return pd.DataFrame(
        trials("photographs", "tiny", "rate=1", ARMS, 4)
        + trials("photographs", "resnet10", "rate=1", ["se", "none"], 3)
        + trials("shapes", "tiny", "rate=1", ARMS[:2], 1)
        + trials("photographs", "tiny", "rate=2", ARMS, 3)
    )


@pytest.fixture
def panel(results):
    return StudyExplorer(results)


def test_the_state_to_begin_with(panel):
    assert len(panel.data_sets) == 3
    assert panel.data == "photographs, 16 px, 1,000 images, 4 epochs"
    state = (panel.backbone, panel.metric, panel.baseline, panel.margin)
    assert state == ("tiny", "top1", "eca", 0.2)
    assert bytes(panel._image.value).startswith(b"\x89PNG")


def test_every_state_shows_what_the_module_computes(panel, results):
    for _, setting in results.groupby(list(SETTING), sort=False):
        (name,) = [
            name
            for name, backbones in panel._settings.items()
            for each in backbones.values()
            if each.equals(setting)
        ]
        panel.data, panel.backbone = name, setting["backbone"].iloc[0]
        for baseline, metric in itertools.product(setting["arm"].unique(), StudyExplorer.METRICS):
            panel.baseline, panel.metric = baseline, metric
            expected = stats.compare(setting, baseline, metric, panel.margin)
            pd.testing.assert_frame_equal(panel.compared, expected)
            assert panel.conclusions[0] in panel._readout.value
            for arm in expected["arm"]:
                assert f">{arm}<" in panel._table.value


def test_controls_and_attributes_move_together(panel):
    for baseline in ARMS:
        panel._choices["baseline"].value = baseline
        assert panel.baseline == baseline
        assert baseline not in set(panel.compared["arm"])
    panel._choices["metric"].value = "top5"
    assert panel.metric == "top5"
    for margin in (0.01, 0.13, 1, 5):
        panel._margin_box.value = margin
        assert panel.margin == margin
        assert panel._margin_slider.value == pytest.approx(margin, abs=0.02)
    panel._margin_slider.value = 0.5
    assert panel.margin == pytest.approx(0.5, abs=0.01)


def test_other_data_take_over_what_they_have(panel):
    panel.baseline = "eca(k=3)"
    panel.margin = 1
    panel.data = panel.data_sets[1]  # with neither that baseline nor more than one seed
    assert (panel.backbone, panel.baseline, panel.margin) == ("tiny", "eca", 1)
    panel.data = panel.data_sets[0]
    panel.backbone = "resnet10"
    assert panel.baseline == "se"
    assert panel._choices["baseline"].options == ("se", "none")


def test_a_wider_margin_never_takes_an_equivalence_back(panel):
    equal = -1
    for margin in (0.1, 0.5, 2, 5):
        panel.margin = margin
        now = (panel.compared["p_equivalence"] < 0.05).sum()
        assert now >= equal
        equal = now


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("data", "mnist", "data='mnist': accepted are photographs, 16 px"),
        ("backbone", "vgg", "backbone='vgg': accepted are tiny, resnet10"),
        ("metric", "loss", "metric='loss': accepted are top1, top5"),
        ("baseline", "se", "baseline='se': accepted are none, eca"),
        ("margin", 0, "margin=0: accepted are 0.01 to 5"),
    ],
)
def test_what_is_not_accepted_changes_nothing(panel, name, value, message):
    before = repr(panel)
    with pytest.raises(ValueError, match=message):
        setattr(panel, name, value)
    assert repr(panel) == before


def test_a_wrong_entry_is_answered_in_the_panel(panel):
    panel._margin_box.value = 77
    assert "margin=77.0: accepted are 0.01 to 5" in panel._status.value
    assert panel.margin == 0.2


def test_readers_without_a_kernel_see_the_picture(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["image/png"]
    assert bundle["text/plain"].startswith("StudyExplorer(results, data=")
    assert bundle["text/plain"].endswith("undecided")


def test_no_results():
    with pytest.raises(ValueError, match="results without a trial"):
        StudyExplorer(pd.DataFrame())
