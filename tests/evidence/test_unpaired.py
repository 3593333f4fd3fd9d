"""Comparisons of runs that are no pairs, by `compare` itself."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import ttost_ind

from eca_lab.evidence.power import noncentrality, welch_freedom
from eca_lab.evidence.stats import compare, contrast
from eca_lab.evidence.unpaired import compare_runs

COLUMNS = [
    "n", "n_baseline", "mean", "difference", "se", "df", "low", "high", "p", "p_holm",
    "p_equivalence", "p_equivalence_holm", "equivalent_within", "detectable",
    "runs_0.1", "runs_0.2", "runs_0.3", "verdict",
]  # fmt: skip
NEEDS_SPREAD = [name for name in COLUMNS[4:-1] if name != "difference"]


def runs(**values_by_arm):
    """A table of runs without seeds."""
    rows = [(arm, value) for arm, values in values_by_arm.items() for value in values]
    return pd.DataFrame(rows, columns=["arm", "score"])


def compared(frame, baseline="none", **options):
    asked = {"metric": "score", "higher_is_better": True, "margin": 0.4, **options}
    return compare(frame, baseline, **asked)


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.normal(60.5, 0.3, 7), rng.normal(60, 0.9, 11)


def test_intervals_and_tests_agree_with_scipy_and_statsmodels(samples):
    arm, base = samples
    comparison = compared(runs(none=base, se=arm))
    row = comparison.table.loc["se"]
    assert comparison.paired_by is None
    assert comparison.why_unpaired == "for there is no column seed"
    welch = stats.ttest_ind(arm, base, equal_var=False)
    assert (row["n"], row["n_baseline"]) == (7, 11)
    assert row["mean"] == pytest.approx(arm.mean())
    assert row["difference"] == pytest.approx(arm.mean() - base.mean())
    assert row["df"] == pytest.approx(welch.df)
    assert row["se"] == pytest.approx(row["difference"] / welch.statistic)
    assert (row["low"], row["high"]) == pytest.approx(tuple(welch.confidence_interval(0.95)))
    assert row["p"] == row["p_holm"] == pytest.approx(welch.pvalue)
    for margin in (0.1, 0.4, 2):
        tost = ttost_ind(arm, base, -margin, margin, usevar="unequal")[0]
        assert comparison.at(margin).table.loc["se", "p_equivalence"] == pytest.approx(tost)


def test_columns_and_their_kinds(samples):
    table = compared(runs(none=samples[1], se=samples[0], one=[61.0])).table
    assert table.columns.tolist() == COLUMNS
    kinds = table.dtypes.astype(str).to_dict()
    assert {kinds[name] for name in ("n", "n_baseline")} == {"int64"}
    assert {kinds[name] for name in COLUMNS if name.startswith("runs_")} == {"Int64"}
    assert {kinds[name] for name in COLUMNS[2:14]} == {"float64"}


def test_what_can_be_detected_is_what_statsmodels_says_for_equal_arms():
    base = np.random.default_rng(1).normal(60, 0.5, 9)
    row = compared(runs(none=base, se=base[::-1] + 1)).table.loc["se"]  # of equal spread
    spread, power = base.std(ddof=1), TTestIndPower()
    effect = power.solve_power(nobs1=9, alpha=0.05, power=0.8)
    assert row["detectable"] == pytest.approx(effect * spread, rel=1e-4)
    for points in (0.1, 0.2, 0.3):
        needed = math.ceil(power.solve_power(points / spread, alpha=0.05, power=0.8))
        assert row[f"runs_{points}"] == needed


def test_holm_runs_over_the_arms_that_have_a_test():
    rng = np.random.default_rng(3)
    arms = {f"a{i}": rng.normal(60 + 0.3 * i, 0.5, 6) for i in range(5)}
    table = compared(runs(none=rng.normal(60, 0.5, 6), **arms, one=[70])).table
    tested = table.loc[list(arms)]
    for name in ("p", "p_equivalence"):
        expected = multipletests(tested[name], method="holm")[1]
        assert tested[f"{name}_holm"].to_numpy() == pytest.approx(expected)
        assert pd.isna(table.loc["one", f"{name}_holm"])
    assert table.loc["a4", "verdict"] == "better"


def test_verdicts():
    noise = np.linspace(-1, 1, 12)
    frame = runs(
        none=60 + 0.1 * noise,
        better=61 + 0.1 * noise,
        worse=59 + 0.1 * noise,
        equivalent=60.01 + 0.1 * noise,
        undecided=60.1 + noise,
    )
    verdicts = compared(frame).table["verdict"]
    assert verdicts.index.tolist() == verdicts.tolist()
    turned = compared(frame, higher_is_better=False).table["verdict"]
    assert turned[["better", "worse"]].tolist() == ["worse", "better"]


def test_equivalent_within_is_the_margin_at_which_the_test_turns(samples):
    comparison = compared(runs(none=samples[1], se=samples[1] + 0.05))
    margin = comparison.table.loc["se", "equivalent_within"]
    assert comparison.at(margin).table.loc["se", "p_equivalence"] == pytest.approx(0.05)


def test_without_a_spread_or_a_run():
    frame = runs(
        none=[60.0, 60, 60], same=[60.0, 60], one=[61], spread=[60, 61, 62], crashed=[np.nan]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = compared(frame).table
    for arm in ("same", "one", "crashed"):
        assert table.loc[arm, NEEDS_SPREAD].isna().all()
    assert table["n"].tolist() == [2, 1, 3, 0]
    assert table["difference"].fillna(99).tolist() == [0, 1, 1, 99]
    assert table.loc["spread", "df"] == 2  # of its own runs alone
    assert table["verdict"].tolist() == ["undecided"] * 3 + ["no runs"]
    with pytest.raises(ValueError, match="no run of crashed has score: accepted is one or more"):
        compared(frame, "crashed")


def test_differences_of_any_size_have_a_table():
    rng = np.random.default_rng(0)
    frame = runs(none=1e12 + rng.normal(0, 1e9, 5), se=1e12 + rng.normal(0, 1e9, 5))
    row = compared(frame).table.loc["se"]
    assert row["low"] < row["high"]
    assert pd.isna(row["runs_0.1"])  # more than anybody runs


QUARTERS = st.lists(st.integers(-40, 40).map(lambda n: 60 + n / 4), min_size=2, max_size=7)


@settings(max_examples=25, deadline=None)
@given(QUARTERS, QUARTERS)
def test_arm_and_baseline_swapped_mirror_the_row(arm, base):
    frame = runs(none=base, se=arm)
    row, swapped = compared(frame).table.loc["se"], compared(frame, "se").table.loc["none"]
    mirrored = pd.to_numeric(row[["difference", "low", "high"]]).to_numpy(float)
    bounds = pd.to_numeric(swapped[["difference", "high", "low"]]).to_numpy(float)
    assert bounds == pytest.approx(-mirrored, nan_ok=True)
    same = ["se", "df", "p", "p_equivalence", "equivalent_within", "detectable"]
    numbers = [pd.to_numeric(each[same]).to_numpy(float) for each in (row, swapped)]
    assert numbers[0] == pytest.approx(numbers[1], nan_ok=True)


# When are runs pairs?


def test_runs_are_unpaired_where_they_cannot_be_pairs_and_it_says_why(results):
    frame = results(none=[60, 61, 63], se=[61, 62, 65.5])
    asked = compare(frame, "none", seed=None)
    assert (asked.paired_by, asked.why_unpaired) == (None, "as was asked")
    apart = frame.assign(seed=range(6))
    disjoint = compare(apart, "none")
    assert disjoint.why_unpaired == "for no arm has a seed in common with none"
    renamed = compare(apart.rename(columns={"seed": "run"}), "none", seed="run")
    assert renamed.why_unpaired == "for no arm has a run in common with none"
    missing = compare(frame.drop(columns="seed"), "none")
    for other in (disjoint, renamed, missing):
        pd.testing.assert_frame_equal(other.table, asked.table)
        assert other.left_out == {"se": 0}
        assert other.differences.shape == (0, 1)
        assert other.least_p == 0
    paired = compare(frame, "none")
    assert (paired.paired_by, paired.why_unpaired) == ("seed", "")


def test_seeds_of_one_value_in_two_arms_are_enough_to_pair(results):
    frame = results(none=[60, 61, 63], se=[61, 62, 65.5])
    frame["seed"] = ["a", "b", "c", "c", "d", "e"]
    comparison = compare(frame, "none")
    assert comparison.paired_by == "seed"
    assert comparison.table["n"].tolist() == [1]
    assert comparison.differences["se"].dropna().to_dict() == {"c": -2}


def test_two_runs_of_a_seed_are_refused_as_pairs_and_no_matter_else(results):
    frame = pd.concat([results(none=[60, 61], se=[61, 63]), results(se=[64])])
    with pytest.raises(ValueError, match=r"two results of se with seed 0: .*\(--unpaired\)"):
        compare(frame, "none")
    assert compare(frame, "none", seed=None).table["n"].tolist() == [3]
    crashed = frame.assign(top1=frame["top1"].where(frame["top1"] != 64))
    assert compare(crashed, "none").table["n"].tolist() == [2]


def test_a_contrast_needs_seeds(results):
    frame = results(none=[60, 61], se=[61, 63]).drop(columns="seed")
    with pytest.raises(ValueError, match="no column seed: there are arm, top1"):
        contrast(frame, {"se": 1, "none": -1})


# Calibration, as that of pairs. The arms differ in spread and in number of runs.


def test_intervals_and_power_are_as_promised():
    n, m, spread, other = 6, 10, 0.4, 0.8
    squares = spread**2 / n, other**2 / m
    true = noncentrality(welch_freedom(*squares, n, m)) * math.sqrt(sum(squares))
    rng = np.random.default_rng(1)
    draws = [
        compare_runs(rng.normal(60 + true, spread, n), rng.normal(60, other, m))
        for _ in range(2000)
    ]
    table = pd.DataFrame(draws)
    covered = table["low"].lt(true) & table["high"].gt(true)
    assert covered.mean() == pytest.approx(0.95, abs=0.015)
    assert (table["p"] < 0.05).mean() == pytest.approx(0.8, abs=0.03)
    assert ((table["p"] < 0.05) == (table["low"] > 0) | (table["high"] < 0)).all()
    # At the margin arms are not equivalent: this is how often they are called so.
    assert (table["equivalent_within"] < true).mean() == pytest.approx(0.05, abs=0.015)


def test_family_error_without_a_difference():
    rng = np.random.default_rng(2)
    spreads, families = {"none": 0.8, "a": 0.4, "b": 0.8, "c": 1.6}, 150
    any_wrong, covered = 0, []
    for _ in range(families):
        frame = runs(**{arm: rng.normal(60, spread, 5) for arm, spread in spreads.items()})
        table = compared(frame).table
        any_wrong += table["verdict"].isin(["better", "worse"]).any()
        covered += list(table["low"].lt(0) & table["high"].gt(0))
    assert 0.01 <= any_wrong / families <= 0.09
    assert 0.92 <= np.mean(covered) <= 0.98
