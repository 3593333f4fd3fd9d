import numpy as np
import pytest

from eca_lab.evidence import report, studies
from eca_lab.evidence.report import conclusions
from eca_lab.evidence.stats import compare, trend


def test_conclusions_name_what_the_table_says(results):
    rng = np.random.default_rng(1)
    base = rng.normal(60, 0.5, 12)
    near = base + rng.normal(0, 0.05, 12)
    frame = results(
        eca=base,
        none=base - 2 + rng.normal(0, 0.1, 12),
        se=base + rng.normal(0.1, 3, 12),
        **{"eca(k=1)": near, "eca(k=3)": base + 1 + rng.normal(0, 0.1, 12)},
    )
    comparison = compare(frame, "eca", margin=0.25)
    fixed, others, power = conclusions(comparison)
    rows = comparison.table
    assert rows["verdict"].to_dict() == {
        "none": "worse", "se": "undecided", "eca(k=1)": "equivalent", "eca(k=3)": "better",
    }  # fmt: skip
    assert f"better eca(k=3) ({rows.loc['eca(k=3)', 'difference']:+.2f})" in fixed
    assert f"equivalent eca(k=1) ({rows.loc['eca(k=1)', 'difference']:+.2f})" in fixed
    slope = trend(frame, {"eca(k=1)": 1, "eca(k=3)": 3})["estimate"]
    assert f"slope is {slope:+.3f}" in fixed
    assert f"worse none ({rows.loc['none', 'difference']:+.2f})" in others
    assert f"undecided se ({rows.loc['se', 'difference']:+.2f})" in others
    assert "n = 12 seeds" in power
    assert f"{rows['detectable'].min():.2f} to {rows['detectable'].max():.2f} points" in power
    assert "80% probability" in power
    assert (
        "margin of 0.25 points is shown for 1 of 4 arms (by Holm), and the closest, eca(k=1), "
        in power
    )
    assert "told apart" not in power  # with twelve seeds they could be
    few = conclusions(compare(frame[frame["seed"] < 5], "eca"))[-1]
    assert few.startswith("With n = 5 seeds no arm can be told apart (least p 0.25 by Holm); a t-")


def test_conclusions_of_next_to_nothing(results):
    frame = results(eca=[60], se=[61], none=[None, 62])  # no pair with the last
    fixed, others, power = conclusions(compare(frame, "eca"))
    assert fixed == "Fixed k against eca, in points: none."
    assert others == "Other arms against eca, in points: undecided se (+1.00)."
    assert power == "With n = 0 to 1 seeds no spread could be measured."


def test_what_is_no_percentage_has_no_conclusions_in_points(results):
    frame = results(eca=[60, 61, 62], se=[61, 63, 62]).assign(loss=[1.0, 1.1, 1.2, 1.3, 1.5, 1.4])
    loss = compare(frame, "eca", metric="loss", margin=0.01)
    with pytest.raises(ValueError, match="metric='loss': accepted are metrics in percent"):
        conclusions(loss)


def test_runs_that_are_no_pairs_have_no_conclusions_of_seeds(results):
    frame = results(eca=[60, 61, 62], se=[61, 63, 62])
    with pytest.raises(ValueError, match="not paired, as was asked: accepted are pairs"):
        conclusions(compare(frame, "eca", seed=None))


def test_conclusions_tell_what_was_left_out(results):
    frame = results(eca=[60, 61, 62], se=[61, 63, 62]).assign(device="cpu")
    frame.loc[0, "device"] = "cuda"
    assert conclusions(compare(frame, "eca"))[-1].endswith("by another path: 1 of se.")


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [
        (1.0, 0.3, "eca is better"),
        (-1.0, 0.3, "eca is worse"),
        (0.01, 0.1, "eca is equivalent"),
        (0.01, 2.0, "undecided, with neither a difference shown nor equivalence"),
    ],
)
def test_a_primary_contrast_has_a_verdict_of_four(results, shift, spread, verdict):
    study = studies.load_study("photographs")
    setting = study.settings["cifar10"]
    k3 = [80 + seed % 3 for seed in range(setting.seeds)]
    eca = [top1 + shift + spread * (-1) ** seed for seed, top1 in enumerate(k3)]
    told = report.primary_contrast(study, setting, results({"eca": eca, "eca(k=3)": k3}))
    assert told.endswith(f": {verdict}")
    assert f"eca minus eca(k=3) {shift:+.3f} points (" in told
