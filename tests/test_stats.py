import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from eca_lab.stats import compare, detectable_effect, needed_pairs


def results(**top1_by_arm):
    rows = [
        {"arm": arm, "seed": seed, "top1": float(top1), "top5": 90.0, "dataset": "shapes"}
        for arm, values in top1_by_arm.items()
        for seed, top1 in enumerate(values)
        if top1 is not None
    ]
    return pd.DataFrame(rows)


def test_paired_differences_agree_with_scipy():
    rng = np.random.default_rng(0)
    base = rng.normal(60, 1, 6)
    other = base + rng.normal(0.3, 0.2, 6)
    table = compare(results(eca=base, se=other), baseline="eca")
    reference = stats.ttest_rel(other, base).confidence_interval(0.95)
    row = table.set_index("arm").loc["se"]
    assert row["n"] == 6
    assert row["difference"] == pytest.approx((other - base).mean())
    assert (row["low"], row["high"]) == pytest.approx((reference.low, reference.high))


def test_the_detectable_difference_scales_with_the_spread():
    differences = np.array([-1.0, 0.0, 1.0])  # a standard deviation of exactly 1
    table = compare(results(eca=np.zeros(3), se=differences, none=3 * differences), "eca")
    assert table["detectable"].tolist() == pytest.approx(
        [detectable_effect(3), 3 * detectable_effect(3)]
    )


def test_only_common_seeds_count():
    table = compare(results(eca=[60, 61, 62], se=[61, None, 64], none=[None, None, 60]), "eca")
    table = table.set_index("arm")
    assert table["n"].to_dict() == {"se": 2, "none": 1}
    assert table["difference"].to_dict() == {"se": 1.5, "none": -2}
    assert np.isnan(table.loc["none", ["low", "high", "detectable"]].astype(float)).all()


def test_no_common_seed_and_no_spread():
    table = compare(results(eca=[60, 60, None], se=[61, 61, 61], none=[None, None, 60]), "eca")
    table = table.set_index("arm")
    assert table["n"].to_dict() == {"se": 2, "none": 0}
    assert table.loc["se", "difference"] == 1
    assert np.isnan(table.loc["se", "low"])
    assert np.isnan(table.loc["none", "difference"])


def test_what_cannot_be_compared():
    frame = results(eca=[60, 61], se=[61, 62])
    with pytest.raises(ValueError, match="baseline='none': accepted are eca, se"):
        compare(frame, "none")
    with pytest.raises(ValueError, match="metric='dataset': accepted are seed, top1"):
        compare(frame, "eca", metric="dataset")
    with pytest.raises(ValueError, match="two results of eca with seed 0"):
        compare(pd.concat([frame, frame]), "eca")


# Published for the 5% level and 80% power: paired seeds for differences of 0.1, 0.2 and 0.3 points
# where differences vary by 0.15 * sqrt(2) points from seed to seed.
@pytest.mark.parametrize(("difference", "pairs"), [(0.1, 38), (0.2, 11), (0.3, 7)])
def test_needed_pairs(difference, pairs):
    assert needed_pairs(difference / (0.15 * 2**0.5)) == pytest.approx(pairs, abs=1)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_detectable_and_needed_agree(n):
    effect = detectable_effect(n)
    assert needed_pairs(effect * 1.001) <= n if n > 3 else effect > 1
    if n > 3:
        assert TTestPower().power(effect, n, 0.05) == pytest.approx(0.8, abs=1e-6)
    draws = np.random.default_rng(0).normal(effect, 1, (20_000, n))
    found = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)
