"""The explorer of a study in Python; what its page computes and draws is in test_browser.py."""

import itertools

import numpy as np
import pandas as pd
import pytest

from eca_lab.evidence import report, stats
from eca_lab.evidence.results import SETTING
from eca_lab.explorers import StudyExplorer
from eca_lab.figures import arm_color

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
    return pd.DataFrame(
        trials("photographs", "tiny", "rate=1, decay=0", ARMS, 4)
        + trials("photographs", "resnet10", "rate=1, decay=0", ["se", "none"], 3)
        + trials("shapes", "tiny", "rate=1, decay=0", ARMS[:2], 1)
        + trials("photographs", "tiny", "rate=2, decay=0", ARMS, 3)
    )


def test_arms_have_the_colors_of_figures():
    arms = ["none", "static", "se", "se(decay=0)", "se(r=4)", "eca"]
    told = StudyExplorer(pd.DataFrame(trials("shapes", "tiny", "rate=1", arms, 2))).given["colors"]
    assert told == {arm: arm_color(arm) for arm in arms}
    assert len(set(told.values())) == len(arms)


def test_every_state_is_what_the_module_computes_and_told_to_the_page(results):
    panel = StudyExplorer(results)
    settings = panel.given["settings"]
    name = "photographs, 16 px, 4 epochs"
    assert [(each["data"], each["backbone"]) for each in settings] == [
        (f"{name}, rate=1", "tiny"),
        (f"{name}, rate=2", "tiny"),
        (name, "resnet10"),
        ("shapes, 16 px, 4 epochs", "tiny"),
    ]
    assert settings[0]["about"] == "1,000 training images; rate=1, decay=0"
    groups = [group for _, group in results.groupby(list(SETTING), sort=False)]
    for told, group in zip(settings, (groups[0], groups[3], groups[1], groups[2]), strict=True):
        assert list(told["arms"]) == list(group["arm"].unique())
        assert told["trials"]["top5"] == group["top5"].tolist()
        assert set(told["trials"]["identity"]) == {None}  # which these results do not have
        for baseline, metric in itertools.product(told["arms"], StudyExplorer.METRICS):
            state = {name: told[name] for name in ("data", "backbone")}
            panel.set_state({**state, "metric": metric, "baseline": baseline, "margin": 0.5})
            expected = stats.compare(group, baseline, metric=metric, margin=0.5)
            pd.testing.assert_frame_equal(panel.comparison.table, expected.table)
            sent = told["compared"][metric][baseline]
            numbers = np.frombuffer(sent["numbers"]).reshape(len(told["arms"]), -1)
            shown = expected.table.reindex(list(told["arms"]))[panel.NUMBERS]
            np.testing.assert_array_equal(numbers, shown)
            sentences = panel.given["sentences"]
            said = [sentences[name].format(**fields) for name, fields in sent["facts"].items()]
            assert said == report.conclusions(expected.at(0.2))


def test_results_without_a_trial_are_refused():
    with pytest.raises(ValueError, match="results without a trial"):
        StudyExplorer(pd.DataFrame())


def test_a_baseline_without_a_pair_is_refused_and_says_why(results):
    first = results.iloc[: 4 * len(ARMS)]
    there = first["arm"] == "eca"
    panel = StudyExplorer(first.assign(device=there.map({True: "cuda", False: "cpu"})))
    assert panel.baseline == "none"  # the first that has pairs
    assert any("4 of eca" in each for each in report.conclusions(panel.comparison))
    with pytest.raises(ValueError, match=r"nothing to pair with eca: eca ran on cuda"):
        panel.baseline = "eca"
    assert panel.baseline == "none"
    why = panel.given["settings"][0]["compared"]["top1"]["eca"]["why"]
    assert why.startswith("nothing to pair with eca")
