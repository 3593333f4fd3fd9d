"""The numbers of the study's panel; what all panels promise is in test_explorers.py."""

import itertools

import numpy as np
import pandas as pd
import pytest

from eca_lab import report, stats
from eca_lab.explorers import StudyExplorer
from eca_lab.results import SETTING

ARMS = ["none", "eca", "eca(k=1)", "eca(k=3)"]


def trials(dataset, backbone, recipe, arms, seeds):
    rng = np.random.default_rng(len(dataset) + len(backbone) + len(recipe))
    setting = {"dataset": dataset, "fingerprint": "0123abcd", "size": 16, "train": 1000}
    setting |= {"backbone": backbone, "recipe": recipe, "epochs": 4}
    return [
        {**setting, "arm": arm, "seed": seed, "top1": 60 + rng.normal(), "top5": 90 + rng.normal()}
        for arm in arms
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def results():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "RESAMPLES", 99)
        yield pd.DataFrame(
            trials("photographs", "tiny", "rate=1", ARMS, 4)
            + trials("photographs", "resnet10", "rate=1", ["se", "none"], 3)
            + trials("shapes", "tiny", "rate=1", ARMS[:2], 1)
            + trials("photographs", "tiny", "rate=2", ARMS, 3)
        )


@pytest.fixture
def panel(results, monkeypatch):
    made = StudyExplorer(results)
    monkeypatch.setattr(made._picture, "png", lambda **drawn: b"")
    return made


def test_every_state_shows_what_the_module_computes(panel, results):
    assert len(panel.data_sets) == 3
    assert panel.data == "photographs, 16 px, 1,000 images, 4 epochs"
    for _, setting in results.groupby(list(SETTING), sort=False):
        (panel.data,) = (
            name
            for name, backbones in panel._settings.items()
            for each in backbones.values()
            if each.equals(setting)
        )
        panel.backbone = setting["backbone"].iloc[0]
        for baseline, metric in itertools.product(setting["arm"].unique(), StudyExplorer.METRICS):
            panel.baseline, panel.metric = baseline, metric
            expected = stats.compare(setting, baseline, None, metric, panel.margin)
            pd.testing.assert_frame_equal(panel.comparison.table, expected.table)
            assert report.conclusions(expected)[0] in panel._readout.value
            for arm in expected.table.index:
                assert f">{arm}<" in panel._table.value


def test_other_data_take_over_what_they_have(panel):
    panel.baseline = "eca(k=3)"
    panel.margin = 1
    panel.data = panel.data_sets[1]  # with neither that baseline nor more than one seed
    assert (panel.backbone, panel.baseline, panel.margin) == ("tiny", "eca", 1)
    panel.data = panel.data_sets[0]
    panel.backbone = "resnet10"
    assert panel.baseline == "se"


def test_a_wider_margin_never_takes_an_equivalence_back(panel):
    equal = []
    for margin in (0.1, 0.5, 2, 5):
        panel.margin = margin
        equal.append((panel.comparison.table["p_equivalence"] < 0.05).sum())
    assert equal == sorted(equal)
    assert equal[-1] > equal[0]


def test_no_results():
    with pytest.raises(ValueError, match="results without a trial"):
        StudyExplorer(pd.DataFrame())


def test_a_baseline_that_finds_no_pair_changes_nothing(results):
    first = results[results["recipe"] == "rate=1"].iloc[: 4 * len(ARMS)]
    there = first["arm"] == "eca(k=3)"
    panel = StudyExplorer(first.assign(device=there.map({True: "cuda", False: "cpu"})))
    assert "4 of eca(k=3)" in panel._readout.value
    with pytest.raises(ValueError, match=r"nothing to pair with eca\(k=3\)"):
        panel.baseline = "eca(k=3)"
    assert panel.baseline == "eca"
