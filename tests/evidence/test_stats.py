import itertools
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

import eca_lab.evidence.stats
from eca_lab.evidence.results import as_results
from eca_lab.evidence.stats import (
    METRICS,
    compare,
    contrast,
    contrasts,
    detectable_effect,
    slope_weights,
    trend,
)
from eca_lab.evidence.studies import Contrast, Family

NEEDS_SPREAD = [
    "low", "high", "p_equivalence", "p_equivalence_holm", "equivalent_within", "detectable",
    "seeds_0.1", "seeds_0.2", "seeds_0.3",
]  # fmt: skip
COLUMNS = [
    "n", "mean", "difference", "sd", "low", "high", "p", "p_holm", "p_equivalence",
    "p_equivalence_holm", "equivalent_within", "correlation", "detectable",
    "seeds_0.1", "seeds_0.2", "seeds_0.3", "verdict",
]  # fmt: skip


def detectable_by_statsmodels(n):
    """The effect, in standard deviations, that n pairs show at 5% with 80% power."""
    return TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)


def only_row(comparison):
    assert len(comparison.table) == 1
    return comparison.table.iloc[0]


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    base = rng.normal(60, 1, 9)
    return base + rng.normal(0.3, 0.5, 9), base


def test_intervals_and_tests_agree_with_scipy_and_statsmodels(results, pair):
    arm, base = pair
    row = only_row(compare(results(eca=base, se=arm), "eca", margin=0.4))
    difference = arm - base
    t = stats.ttest_rel(arm, base)
    assert row["n"] == 9
    assert row["mean"] == pytest.approx(arm.mean())
    assert row["difference"] == pytest.approx(difference.mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(t.confidence_interval(0.95)))
    assert (
        row["p"]
        == stats.permutation_test(
            (arm, base),
            lambda arm, base, axis: arm.mean(axis) - base.mean(axis),
            permutation_type="samples",
        ).pvalue
    )
    assert row["p_holm"] == row["p"]
    assert row["p_equivalence"] == pytest.approx(ttost_paired(arm, base, -0.4, 0.4)[0])
    assert row["correlation"] == pytest.approx(stats.pearsonr(arm, base).statistic)
    spread = difference.std(ddof=1)
    assert row["detectable"] == pytest.approx(detectable_by_statsmodels(9) * spread)
    for points in (0.1, 0.2, 0.3):
        needed = TTestPower().solve_power(points / spread, alpha=0.05, power=0.8)
        assert row[f"seeds_{points}"] == math.ceil(needed)


def test_columns_and_their_kinds(results, pair):
    table = compare(results(eca=pair[1], se=pair[0], none=[None] * 9 + [60]), "eca").table
    assert table.columns.tolist() == COLUMNS
    assert table.index.tolist() == ["se", "none"]
    kinds = table.dtypes.astype(str).to_dict()
    assert {kinds[column] for column in COLUMNS[1:13]} == {"float64"}
    assert {kinds[f"seeds_{points}"] for points in (0.1, 0.2, 0.3)} == {"Int64"}
    assert kinds["n"] == "int64"


# The differences are whole hundredths, as those of 10,000 test images are. Sums of flips tie
# often, and as floating point numbers they would not.
@pytest.mark.parametrize("n", [2, 8, 11])
def test_sign_flips_are_counted_exactly(results, n):
    rng = np.random.default_rng(n)
    for _ in range(5):
        base, difference = rng.integers(6000, 6100, n), rng.integers(-8, 12, n)
        sums = np.array(list(itertools.product([-1, 1], repeat=n))) @ difference
        share = (np.abs(sums) >= abs(difference.sum())).mean()
        row = only_row(compare(results(eca=base / 100, se=(base + difference) / 100), "eca"))
        assert row["p"] == share


def test_beyond_thirteen_seeds_flips_are_drawn(results):
    rng = np.random.default_rng(0)
    base, difference = rng.normal(60, 1, 14), rng.normal(0.3, 0.5, 14)
    signs = np.array(list(itertools.product([-1, 1], repeat=14)))
    exact = (np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9).mean()
    frame = results(eca=base, se=base + difference)
    row = only_row(compare(frame, "eca"))
    assert row["p"] == pytest.approx(exact, abs=4 * 2 * np.sqrt(exact / 2 / 9999))
    assert row["p"] * 10_000 == pytest.approx(round(row["p"] * 10_000))
    pd.testing.assert_frame_equal(compare(frame, "eca").table, compare(frame, "eca").table)


def test_holm_runs_over_the_rows_that_have_a_test(results):
    rng = np.random.default_rng(3)
    base = rng.normal(60, 1, 10)
    arms = {f"a{i}": base + rng.normal(0.2 * i, 0.5, 10) for i in range(5)}
    frame = results(arms, eca=base, alone=[None] * 9 + [70], none=[None] * 10 + [70])
    table = compare(frame, "eca").table
    tested = table.loc[list(arms)]
    assert tested["p_holm"].to_numpy() == pytest.approx(
        multipletests(tested["p"], method="holm")[1]
    )
    assert (tested["p_holm"] >= tested["p"]).all()
    assert tested["p_holm"].max() > tested["p_holm"].min()
    assert table.loc[["alone", "none"], ["p", "p_holm"]].isna().all(axis=None)


def test_equivalent_within_is_the_margin_at_which_the_test_turns(results, pair):
    arm, base = pair
    frame = results(eca=base, se=arm)
    margin = only_row(compare(frame, "eca"))["equivalent_within"]
    at, below, above = (
        only_row(compare(frame, "eca", margin=margin * factor)) for factor in (1, 0.99, 1.01)
    )
    assert at["p_equivalence"] == pytest.approx(0.05)
    assert (below["verdict"], above["verdict"]) == ("undecided", "equivalent")


def test_verdicts(results):
    rng = np.random.default_rng(0)
    base = rng.normal(60, 1, 12)
    noise = rng.normal(0, 1, 12)
    noise = (noise - noise.mean()) / noise.std()
    table = compare(
        results(
            eca=base,
            better=base + 1 + 0.1 * noise,
            worse=base - 1 + 0.1 * noise,
            equivalent=base + 0.1 * noise,
            undecided=base + noise,
            # Significant and within the margin: called by its sign.
            slightly_worse=base - 0.1 + 0.05 * noise,
        ),
        "eca",
    ).table
    verdicts = table["verdict"]
    assert verdicts.pop("slightly_worse") == "worse"
    assert table.loc["slightly_worse", "p_equivalence"] < 0.05
    assert verdicts.index.tolist() == verdicts.tolist()


@pytest.mark.parametrize(
    ("n", "arms", "verdict"),
    [
        *((5, 1, "undecided"), (6, 1, "better"), (8, 11, "undecided"), (9, 11, "better")),
        *((13, 1, "better"), (20, 1, "better")),  # of all flips, and of 9,999 random ones
    ],
)
def test_what_few_seeds_can_show(results, n, arms, verdict):
    base = np.random.default_rng(n).normal(60, 1, n)
    shift = 5 + np.linspace(0, 1, n)
    comparison = compare(results({f"a{i}": base + shift for i in range(arms)}, eca=base), "eca")
    table, least = comparison.table, 2 / min(2**n, 10_000)
    assert table["p"].tolist() == [least] * arms
    assert table["p_holm"].tolist() == pytest.approx([arms * least] * arms)
    assert comparison.least_p == pytest.approx(arms * least)
    assert set(table["verdict"]) == {verdict}


def test_only_common_seeds_count(results):
    frame = results(eca=[60, 61, 62], se=[61, None, 64], none=[None, None, 60])
    table = compare(frame, "eca").table
    assert table["n"].to_dict() == {"se": 2, "none": 1}
    assert table["mean"].to_dict() == {"se": 62.5, "none": 60}
    assert table["difference"].to_dict() == {"se": 1.5, "none": -2}


def test_a_missing_value_is_a_missing_trial(results):
    frame = results(eca=[60, 61, 63], se=[61, 65, 66], none=[50, 51, 49], cbam=[60, 60, 60])
    missing = (frame["arm"] == "se") & (frame["seed"] == 1)
    missing |= frame["arm"] == "cbam"
    table = compare(frame.assign(top1=frame["top1"].mask(missing)), "eca").table
    assert table.index.tolist() == ["se", "none", "cbam"]
    assert table["n"].tolist() == [2, 3, 0]
    pd.testing.assert_frame_equal(table[:2], compare(frame[~missing], "eca").table)


def test_one_common_seed_or_none(results):
    frame = results(eca=[60, 61, None], one=[62, None, None], none=[None, None, 60])
    table = compare(frame, "eca").table
    missing = [*NEEDS_SPREAD, "p", "p_holm", "correlation"]
    assert table[missing].isna().all(axis=None)
    assert table.loc["one", ["n", "mean", "difference"]].tolist() == [1, 62, 2]
    assert table.loc["none", "n"] == 0
    assert table.loc["none", ["mean", "difference"]].isna().all()
    assert table["verdict"].tolist() == ["undecided", "no pair"]


def test_differences_that_do_not_vary(results):
    # 0.3 is added in floating point, so these differences are equal but for rounding.
    base = np.array([60.1, 61.7, 59.33, 60.77, 58.21, 61.3])
    table = compare(results(eca=base, up=base + 0.3, same=base), "eca").table
    assert table[NEEDS_SPREAD].isna().all(axis=None)
    assert table["p"].to_dict() == {"up": 2 / 64, "same": 1}
    assert table["correlation"].tolist() == pytest.approx([1, 1])
    assert table["verdict"].to_dict() == {"up": "undecided", "same": "undecided"}  # 2 tests, Holm
    alone = only_row(compare(results(eca=base, up=base + 0.3), "eca"))
    assert alone["verdict"] == "better"


def test_arms_that_do_not_vary_have_no_correlation(results):
    table = compare(results(eca=[60, 60, 60], se=[61, 62, 64], none=[50, 50, 50]), "eca").table
    assert table["correlation"].isna().all()
    assert table["low"].notna().tolist() == [True, False]


def test_a_baseline_without_other_arms(results):
    table = compare(results(eca=[60, 61]), "eca").table
    assert len(table) == 0
    assert table.columns.tolist() == COLUMNS


def test_what_cannot_be_compared(results):
    frame = results(eca=[60, 61], se=[61, 62])
    with pytest.raises(ValueError, match="no trial of none: there are eca, se"):
        compare(frame, "none")
    with pytest.raises(ValueError, match="metric='dataset': accepted are top1, top5"):
        compare(frame, "eca", metric="dataset")
    with pytest.raises(ValueError, match="metric='top2': accepted are top1, top5"):
        compare(frame, "eca", metric="top2")
    for metric in ("seed", "arm"):
        with pytest.raises(ValueError, match=f"metric='{metric}': accepted are top1, top5"):
            compare(frame, "eca", metric=metric)
    with pytest.raises(ValueError, match="two results of eca with seed 0"):
        compare(pd.concat([frame, frame]), "eca")
    with pytest.raises(ValueError, match="several dataset, shapes, cifar10"):
        compare(pd.concat([frame, results(none=[50]).assign(dataset="cifar10")]), "eca")


def test_a_margin_is_a_positive_finite_number(results):
    frame = results(eca=[60, 61], se=[61, 62])
    for margin in (0, math.nan):
        with pytest.raises(ValueError, match=rf"margin={margin}.*a finite number above 0"):
            compare(frame, "eca", margin=margin)
    with pytest.raises(TypeError, match=r"margin='0\.2'"):
        compare(frame, "eca", margin="0.2")


# Quarters are exact in floating point, so that properties hold to the last digit or nearly.
QUARTERS = st.integers(-40, 40).map(lambda quarters: 60 + quarters / 4)
PAIRS = st.lists(st.tuples(QUARTERS, QUARTERS), min_size=2, max_size=7).map(np.array)
QUICK = settings(max_examples=25, deadline=None)
BOUNDS = ["low", "high"]


def numbers(row, columns):
    """A row's values, NaN where missing."""
    return pd.to_numeric(row[columns], errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def close(expected):
    return pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


@QUICK
@given(PAIRS, st.integers(-20, 20))
def test_a_constant_added_to_an_arm_shifts_difference_and_interval(results, pairs, constant):
    before = only_row(compare(results(eca=pairs[:, 1], se=pairs[:, 0]), "eca"))
    after = only_row(compare(results(eca=pairs[:, 1], se=pairs[:, 0] + constant), "eca"))
    shifted = ["mean", "difference", *BOUNDS]
    assert numbers(after, shifted) == close(numbers(before, shifted) + constant)
    spread = ["correlation", "detectable", "seeds_0.1", "seeds_0.2", "seeds_0.3"]
    assert numbers(after, spread) == close(numbers(before, spread))


@QUICK
@given(PAIRS)
def test_arm_and_baseline_swapped_mirror_the_row(results, pairs):
    frame = results(eca=pairs[:, 1], se=pairs[:, 0])
    row, swapped = only_row(compare(frame, "eca")), only_row(compare(frame, "se"))
    assert swapped["difference"] == -row["difference"]
    mirrored = ["high", "low"]
    assert numbers(swapped, BOUNDS) == close(-numbers(row, mirrored))
    same = ["p", "p_holm", "p_equivalence", "equivalent_within", "correlation", "detectable"]
    assert numbers(swapped, same) == close(numbers(row, same))


@QUICK
@given(PAIRS, st.sampled_from([0.125, 0.5, 4, 64]))
def test_units_do_not_matter(results, pairs, unit):
    row = only_row(compare(results(eca=pairs[:, 1], se=pairs[:, 0]), "eca"))
    pairs = pairs * unit
    frame = results(eca=pairs[:, 1], se=pairs[:, 0]).rename(columns={"top1": "score"})
    options = {"metric": "score", "higher_is_better": True, "margin": 0.2 * unit}
    scaled = only_row(compare(frame, "eca", **options))
    with_unit = ["mean", "difference", *BOUNDS, "equivalent_within", "detectable"]
    assert numbers(scaled, with_unit) == close(unit * numbers(row, with_unit))
    without = ["p", "p_holm", "p_equivalence", "correlation"]
    assert numbers(scaled, without) == close(numbers(row, without))
    assert scaled["verdict"] == row["verdict"]


@QUICK
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_trials_does_not_matter(results, pairs, random):
    frame = results(eca=pairs[:, 1], se=pairs[:, 0])
    shuffled = frame.iloc[random.sample(range(len(frame)), len(frame))]
    pd.testing.assert_frame_equal(compare(frame, "eca").table, compare(shuffled, "eca").table)


# Calibration. The spread between seeds that arms share cancels in the differences.


def test_intervals_and_power_are_as_promised(results, monkeypatch):
    # Each arm is the baseline with noise of its own, so the differences are independent.
    n, trials = 10, 600
    monkeypatch.setattr(eca_lab.evidence.stats, "RESAMPLES", 499)
    rng = np.random.default_rng(1)
    base = rng.normal(60, 1, n)
    true = detectable_effect(n) * 0.4  # the spread of a difference is 0.4
    arms = {f"a{i}": base + rng.normal(true, 0.4, n) for i in range(trials)}
    table = compare(results(arms, eca=base), "eca", margin=true).table
    covered = table["low"].lt(true) & table["high"].gt(true)
    assert 0.93 <= covered.mean() <= 0.97
    assert (table["low"] > 0).mean() == pytest.approx(0.8, abs=0.03)
    # The flips need not know that the noise is normal, and lose little by it.
    assert (table["p"] < 0.05).mean() == pytest.approx(0.8, abs=0.04)
    # At the margin arms are not equivalent: this is how often they are called so.
    assert (table["p_equivalence"] < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_family_error_and_coverage_without_a_difference(results, monkeypatch):
    n, arms, families = 8, 3, 150
    monkeypatch.setattr(eca_lab.evidence.stats, "RESAMPLES", 2**n)
    rng = np.random.default_rng(1)
    any_wrong, covered = [], []
    for _ in range(families):
        seeds = rng.normal(60, 1, n)
        top1 = {f"a{i}": seeds + rng.normal(0, 0.4, n) for i in range(arms)}
        table = compare(results(top1, eca=seeds + rng.normal(0, 0.4, n)), "eca").table
        any_wrong.append(table["verdict"].isin(["better", "worse"]).any())
        covered += list(table["low"].lt(0) & table["high"].gt(0))
    assert 0.01 <= np.mean(any_wrong) <= 0.08
    assert 0.92 <= np.mean(covered) <= 0.98


# As large as the declared family: eleven arms and a baseline that they share, over ten seeds.
# Holm rejects anything if and only if the least p times the number of tests is below 5%.
def test_family_error_of_a_large_family(results):
    n, arms, families = 10, 11, 1500
    rng = np.random.default_rng(2)
    top1 = rng.normal(0, 0.4, (families, arms + 1, n))
    differences = top1[:, 1:] - top1[:, :1]
    # What `compare` says of the first families is computed by it, the rest as it is seen to do.
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=n)))[: 2 ** (n - 1)]
    observed = np.abs(differences.sum(-1, keepdims=True))
    p = np.array([
        (np.abs(family @ signs.T) >= at - 1e-9).mean(1)
        for family, at in zip(differences, observed, strict=True)
    ])  # fmt: skip
    wrong = p.min(1) * arms < 0.05
    for family in range(60):
        frame = results(dict(zip("abcdefghijkl", 60 + top1[family], strict=True)))
        table = compare(frame, "a").table
        assert table["p"].to_numpy() == pytest.approx(p[family])
        assert table["verdict"].isin(["better", "worse"]).any() == wrong[family]
    assert 0.02 <= wrong.mean() <= 0.06


# Four arms that are as far from the baseline as the margin: none is to be called equivalent.
def test_family_error_of_equivalence(results):
    n, arms, families, margin = 12, 4, 250, 0.2
    rng = np.random.default_rng(3)
    any_wrong = {True: 0, False: 0}
    for _ in range(families):
        seeds = rng.normal(60, 1, n)
        shifts = margin * rng.choice([-1, 1], arms)
        top1 = {f"a{i}": seeds + shift + rng.normal(0, 0.1, n) for i, shift in enumerate(shifts)}
        frame = results(top1, eca=seeds + rng.normal(0, 0.1, n))
        comparison = compare(frame, "eca", margin=margin)
        for adjusted in any_wrong:
            called = replace(comparison, adjust_equivalence=adjusted).at(margin)
            # By p and not by the verdict, which is that of a difference wherever one is shown.
            p = called.table["p_equivalence_holm" if adjusted else "p_equivalence"]
            any_wrong[adjusted] += (p < 0.05).any()
            assert (p[called.table["verdict"] == "equivalent"] < 0.05).all()
    assert 0.01 <= any_wrong[True] / families <= 0.08
    assert any_wrong[False] / families > 0.1


def test_equivalence_is_adjusted_by_holm(results):
    rng = np.random.default_rng(3)
    base = rng.normal(60, 1, 10)
    arms = {f"a{i}": base + rng.normal(0, 0.1 + 0.05 * i, 10) for i in range(5)}
    frame = results(arms, eca=base, alone=[None] * 9 + [70])
    comparison = compare(frame, "eca", margin=0.15)
    table = comparison.table.loc[list(arms)]
    expected = multipletests(table["p_equivalence"], method="holm")[1]
    assert table["p_equivalence_holm"].to_numpy() == pytest.approx(expected)
    assert comparison.table.loc["alone", "p_equivalence_holm":"p_equivalence_holm"].isna().all()
    each = compare(frame, "eca", margin=0.15, adjust_equivalence=False).table.loc[list(arms)]
    apart = table["p_holm"] < 0.05
    for verdicts, p in ((table["verdict"], expected), (each["verdict"], table["p_equivalence"])):
        assert ((verdicts == "equivalent") == (~apart & (p < 0.05))).all()
    assert (table["verdict"] != each["verdict"]).any()


def test_the_detectable_difference_scales_with_the_spread(results):
    differences = np.array([-1.0, 0.0, 1.0])  # a standard deviation of exactly 1
    comparison = compare(
        results(eca=[60] * 3, se=60 + differences, none=60 + 3 * differences), "eca"
    )
    assert comparison.table["detectable"].tolist() == pytest.approx(
        [detectable_effect(3), 3 * detectable_effect(3)]
    )


SIZES = {f"eca(k={k})": k for k in (1, 3, 5, 7, 9)}


@pytest.fixture
def fixed(results):
    def make(**top1_by_size):
        return results({f"eca({size.replace('k', 'k=')})": v for size, v in top1_by_size.items()})

    return make


def test_a_trend_is_the_mean_slope_of_the_seeds(fixed):
    rng = np.random.default_rng(0)
    top1 = rng.normal(60, 1, (4, 6))
    frame = fixed(k1=top1[0], k3=top1[1], k5=top1[2], k9=top1[3])
    slopes = [stats.linregress([1, 3, 5, 9], seed).slope for seed in top1.T]
    test = stats.ttest_1samp(slopes, 0)
    found = trend(frame, SIZES)
    assert list(found) == [
        "values", "by_seed", "n", "left_out", "estimate", "sd", "low", "high", "p", "p_equivalence",
        "detectable",
    ]  # fmt: skip
    assert found["values"] == (1, 3, 5, 9)
    assert found["n"] == 6
    assert found["estimate"] == pytest.approx(np.mean(slopes))
    assert (found["low"], found["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found["p"] == pytest.approx(test.pvalue)
    assert found["detectable"] == pytest.approx(
        detectable_by_statsmodels(6) * np.std(slopes, ddof=1)
    )


def test_a_trend_over_numbers_of_ones_own(results):
    halvings = {"se(r=1)": 0, "se(r=4)": -2, "se": -4, "se(r=2)": -1}
    rng = np.random.default_rng(0)
    frame = results({arm: rng.normal(60, 1, 5) for arm in ("none", "se", "se(r=4)", "se(r=1)")})
    found = trend(frame, halvings)
    assert found["values"] == (-4, -2, 0)  # nothing of se(r=2) is recorded
    table = frame.pivot_table(index="seed", columns="arm", values="top1")
    slopes = [
        stats.linregress([-4, -2, 0], seed).slope
        for seed in table[["se", "se(r=4)", "se(r=1)"]].to_numpy()
    ]
    assert found["estimate"] == pytest.approx(np.mean(slopes))
    with pytest.raises(ValueError, match=r"a trend over \[-4\]: accepted are at least two"):
        trend(frame, {"se": -4})
    with pytest.raises(ValueError, match=r"a trend over \[1, 1\]: accepted are at least two"):
        trend(frame, {"se": 1, "none": 1})


def test_other_arms_do_not_count_in_the_trend(results):
    # Kernel sizes out of order; a seed that eca(k=9) lacks.
    frame = results({
        "none": [0, 0, 0],
        "eca": [99, 99, 99],
        "eca(k=9)": [64, 66, None],
        "eca(k=5-3-3)": [10, 10, 10],
        "eca(k=1)": [60, 60, 0],
        "eca(k=3, padding=circular)": [10, 10, 10],
        "eca_ns(k=3)": [10, 10, 10],
        "eca(k=5)": [62, 63, 0],
    })  # fmt: skip
    found = trend(frame, SIZES)
    assert found["values"] == (1, 5, 9)
    assert found["n"] == 2
    assert found["estimate"] == pytest.approx((4 / 8 + 6 / 8) / 2)
    assert trend(frame, SIZES, metric="top5")["estimate"] == 0


@pytest.mark.parametrize(
    ("k1", "k9", "n", "slope"),
    [
        ([60], [64], 1, 0.5),
        ([60.1, 61.3, 58.7], [60.9, 62.1, 59.5], 3, 0.1),  # equal slopes but for rounding
    ],
)
def test_a_trend_without_a_spread(fixed, k1, k9, n, slope):
    found = trend(fixed(k1=k1, k9=k9), SIZES)
    assert found["n"] == n
    assert found["estimate"] == pytest.approx(slope, nan_ok=True)
    assert np.isnan([found[name] for name in ("low", "high", "p", "detectable")]).all()


def test_no_trend_over_fewer_than_two_kernel_sizes(fixed):
    with pytest.raises(ValueError, match=r"a trend over \[3\]: accepted are at least two"):
        trend(fixed(k3=[60, 61]), SIZES)
    with pytest.raises(ValueError, match="metric='top2'"):
        trend(fixed(k1=[60], k3=[60]), SIZES, metric="top2")
    with pytest.raises(ValueError, match=r"no seed has all of eca\(k=1\), eca\(k=9\)$"):
        trend(fixed(k1=[60, None], k9=[None, 64]), SIZES)


def test_paired_differences(results):
    frame = results(eca=[60, 61, 62], **{"eca(k=3)": [61, None, 65], "none": [59, None, None]})
    comparison = compare(frame, "eca")
    differences = comparison.differences
    assert differences["eca(k=3)"].dropna().to_dict() == {0: 1, 2: 3}
    assert differences["none"].dropna().to_dict() == {0: -1}
    assert comparison.table["difference"].to_dict() == differences.mean().to_dict()


def test_another_margin_changes_equivalence_and_verdict_alone(results, pair):
    arm, base = pair
    comparison = compare(results(eca=base, se=arm), "eca", margin=0.2)
    for margin in (0.01, 0.4, 5):
        direct = compare(results(eca=base, se=arm), "eca", margin=margin)
        pd.testing.assert_frame_equal(comparison.at(margin).table, direct.table)
        assert direct.table.loc["se", "p_equivalence"] == pytest.approx(
            ttost_paired(arm, base, -margin, margin)[0]
        )
    with pytest.raises(ValueError, match="margin=0"):
        comparison.at(0)


@settings(max_examples=10, deadline=None)  # statsmodels' collects garbage at every call
@given(st.lists(st.floats(0, 1) | st.none(), min_size=1, max_size=12))
def test_holm_as_statsmodels_has_it(p):
    p = pd.Series(p, dtype=float)
    adjusted = eca_lab.evidence.stats.holm(p)
    assert adjusted.isna().tolist() == p.isna().tolist()
    if p.notna().any():
        assert adjusted.dropna().to_numpy() == pytest.approx(
            multipletests(p.dropna(), method="holm")[1]
        )


def test_a_family_is_what_was_asked_for(results):
    rng = np.random.default_rng(4)
    frame = results({arm: rng.normal(60 + (arm == "a"), 0.5, 6) for arm in ("eca", "a", "b", "c")})
    all_arms, two = compare(frame, "eca"), compare(frame, "eca", ["c", "a"])
    assert two.table.index.tolist() == ["c", "a"]
    assert set(two.trials["arm"]) == {"eca", "c", "a"}
    assert two.table["p"].to_dict() == all_arms.table["p"][["c", "a"]].to_dict()
    assert two.table["p_holm"].tolist() != all_arms.table["p_holm"][["c", "a"]].tolist()
    with pytest.raises(ValueError, match="no trial of d: there are eca, a, b, c"):
        compare(frame, "eca", ["a", "d"])


# A pair is an arm and its baseline with one seed on one device, at one precision, by one path.
@pytest.mark.parametrize("column", ["device", "precision", "path"])
def test_what_ran_otherwise_is_no_pair(results, column):
    arms = {arm: [61, 62, 64, 63] for arm in ("eca(k=1)", "eca(k=3)", "se")}
    frame = results(arms, eca=[60, 61, 62, 60]).assign(device="cpu", precision="a", path="b")
    there = frame["arm"].eq("eca(k=3)") & frame["seed"].lt(2)
    frame.loc[there, column] = "elsewhere"
    comparison = compare(frame, "eca")
    assert comparison.table["n"].to_dict() == {"eca(k=1)": 4, "eca(k=3)": 2, "se": 4}
    assert comparison.differences["eca(k=3)"].dropna().to_dict() == {2: 2, 3: 3}
    assert comparison.left_out == {"eca(k=1)": 0, "eca(k=3)": 2, "se": 0}
    found = trend(frame, SIZES)
    assert (found["n"], found["left_out"]) == (2, 2)

    frame.loc[frame["arm"] != "eca", column] = "elsewhere"
    with pytest.raises(ValueError, match=r"nothing to pair with eca: eca ran on .*elsewhere"):
        compare(frame, "eca")
    frame.loc[frame["arm"] == "eca(k=1)", column] = "nowhere"
    with pytest.raises(ValueError, match=r"no seed has all of .* on one device, at one precision"):
        trend(frame, SIZES)


def test_a_contrast_is_what_scipy_says_of_its_sums(results):
    rng = np.random.default_rng(5)
    top1 = {arm: rng.normal(60, 1, 9) for arm in ("se", "eca", "none")}
    frame = results(top1)
    weights = {"se": 0.5, "eca": 0.5, "none": -1}
    sums = (top1["se"] + top1["eca"]) / 2 - top1["none"]
    found = contrast(frame, weights, margin=0.7)
    test = stats.ttest_1samp(sums, 0)
    assert (found["n"], found["left_out"]) == (9, 0)
    assert found["by_seed"].to_dict() == pytest.approx(dict(enumerate(sums)))
    assert found["estimate"] == pytest.approx(sums.mean())
    assert found["sd"] == pytest.approx(sums.std(ddof=1))
    assert (found["low"], found["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found["p"] == pytest.approx(test.pvalue)
    assert found["p_equivalence"] == pytest.approx(ttost_paired(sums, 0 * sums, -0.7, 0.7)[0])
    assert found["detectable"] == pytest.approx(detectable_by_statsmodels(9) * sums.std(ddof=1))
    flips = contrast(frame, weights, test="sign flips")
    assert math.isnan(flips["p_equivalence"])
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    assert flips["p"] == (np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).mean()
    assert {name: flips[name] for name in ("estimate", "low", "high")} == {
        name: found[name] for name in ("estimate", "low", "high")
    }


@QUICK
@given(PAIRS)
def test_a_contrast_of_two_arms_is_their_comparison(results, pairs):
    frame = results(eca=pairs[:, 1], se=pairs[:, 0])
    row = only_row(compare(frame, "eca"))
    found = contrast(frame, {"se": 1, "eca": -1}, margin=0.2, test="sign flips")
    same = ["n", "sd", "low", "high", "p", "p_equivalence", "detectable"]
    assert [found[name] for name in same] == close(numbers(row, same))
    assert found["estimate"] == close(row["difference"])


def test_contrasts_are_adjusted_over_their_family(results):
    rng = np.random.default_rng(6)
    seeds = rng.normal(60, 1, 12)
    shifts = {"none": 0, "se": 0.02, "eca": 1, "cbam": 0.3}
    frame = results({arm: seeds + shift + rng.normal(0, 0.1, 12) for arm, shift in shifts.items()})
    family = Family(
        name="any",
        test="sign flips",
        contrasts=(
            Contrast("slope", "a slope", over={"none": 0, "se": 1, "cbam": 2}, per="step"),
            Contrast("se", "se", weights={"se": 1, "none": -1}, margin=0.2),
            Contrast("eca", "eca", weights={"none": 1, "eca": -1}, margin=0.2),
            Contrast("cbam", "cbam", weights={"cbam": 1, "none": -1}, margin=0.2),
        ),
    )
    table = contrasts(frame, family)
    assert table.index.tolist() == ["slope", "se", "eca", "cbam"]
    assert table["p_holm"].to_numpy() == pytest.approx(multipletests(table["p"], method="holm")[1])
    with_margin = table.loc[["se", "eca", "cbam"]]
    expected = multipletests(with_margin["p_equivalence"], method="holm")[1]
    assert with_margin["p_equivalence_holm"].to_numpy() == pytest.approx(expected)
    assert table.loc["slope", ["margin", "p_equivalence", "p_equivalence_holm"]].isna().all()
    assert table["verdict"].tolist() == ["better", "equivalent", "worse", "better"]
    slope = trend(frame, {"none": 0, "se": 1, "cbam": 2})
    assert table.loc["slope", "estimate"] == pytest.approx(slope["estimate"])


# The size of the declared primary family, by `contrasts` itself: with nothing there, how often is
# something found, and how often does the interval hold the truth?
def test_family_error_and_coverage_of_contrasts(results):
    n, families = 12, 200
    rng = np.random.default_rng(7)
    rungs = {"se": -4, "se(r=4)": -2, "se(r=2)": -1, "se(r=1)": 0}
    matched = {"se_gc(groups=8)": 0.5, "se": -0.5, "se_var3": 0.5, "se(r=2)": -0.5}
    family = Family(
        name="primary",
        test="t",
        contrasts=(
            Contrast("slope", "rises", over=rungs, per="halving of r", margin=0.05),
            Contrast("matched", "more", weights=matched),
        ),
    )
    any_wrong, covered = [], []
    for _ in range(families):
        seeds = rng.normal(85, 0.3, n)
        frame = results({arm: seeds + rng.normal(0, 0.22, n) for arm in {**rungs, **matched}})
        table = contrasts(frame, family)
        any_wrong.append(table["verdict"].isin(["better", "worse"]).any())
        covered += list(table["low"].lt(0) & table["high"].gt(0))
    assert 0.01 <= np.mean(any_wrong) <= 0.09
    assert 0.92 <= np.mean(covered) <= 0.98


def test_slope_weights_are_those_of_least_squares():
    over = {"a": 1, "b": 3, "c": 4, "d": 9}
    values = np.random.default_rng(0).normal(size=4)
    slope = np.dot(list(slope_weights(over).values()), values)
    assert slope == pytest.approx(stats.linregress(list(over.values()), values).slope)
    assert sum(slope_weights(over).values()) == pytest.approx(0)


def test_contrasts_that_cannot_be_computed(results):
    frame = results(eca=[60, 61], se=[61, 62])
    with pytest.raises(ValueError, match="no trial of cbam, none: there are eca, se"):
        contrast(frame, {"cbam": 1, "none": -1})
    with pytest.raises(ValueError, match="test='z': accepted are t, sign flips"):
        contrast(frame, {"se": 1, "eca": -1}, test="z")
    with pytest.raises(ValueError, match="no seed has all of se, eca"):
        contrast(results(eca=[60, None], se=[None, 62]), {"se": 1, "eca": -1})
    equal = contrast(frame, {"se": 1, "eca": -1}, margin=0.2)
    assert (equal["n"], equal["estimate"]) == (2, 1)
    assert math.isnan(equal["p"])


# Metrics of which less is better, and those of which nobody knows.


@pytest.mark.parametrize("metric", METRICS)
def test_verdicts_know_which_way_a_metric_is_good(results, metric):
    base = np.array([60, 61, 62, 63, 64, 65.5, 66, 69])
    more = base + 5 + np.linspace(0, 1, 8)
    frame = results(eca=base, se=more).rename(columns={"top1": metric, "top5": "other"})
    row = only_row(compare(frame, "eca", metric=metric, margin=0.1))
    assert row["verdict"] == ("better" if METRICS[metric].higher_is_better else "worse")
    turned = compare(
        frame, "eca", metric=metric, margin=0.1, higher_is_better=row["verdict"] == "worse"
    )
    assert {row["verdict"], only_row(turned)["verdict"]} == {"better", "worse"}


def test_only_percent_is_in_points(results):
    frame = results(eca=[60, 61, 62], se=[61, 63, 65]).assign(loss=[3.0, 2, 1, 5, 5, 5])
    assert compare(frame, "eca").unit == "points"
    assert compare(frame, "eca").axis_label == "top-1 minus that of eca, points"
    loss = compare(frame, "eca", metric="loss", margin=0.1)
    assert (loss.unit, loss.axis_label) == ("", "loss minus that of eca")


def test_what_is_not_known_of_a_metric_is_asked_for(results):
    frame = results(eca=[60, 61, 62], se=[61, 63, 65]).assign(loss=1.0, score=[1, 2, 3, 4, 5, 6])
    with pytest.raises(ValueError, match=r"metric='loss': which difference is too small .*margin="):
        compare(frame, "eca", metric="loss")
    with pytest.raises(ValueError, match=r"metric='score': is more of it better\? .*--better"):
        compare(frame, "eca", metric="score", margin=1)
    with pytest.raises(ValueError, match="metric='score': which difference is too small"):
        compare(frame, "eca", metric="score", higher_is_better=True)
    with pytest.raises(TypeError, match="higher_is_better='yes': accepted is True or False"):
        compare(frame, "eca", metric="score", margin=1, higher_is_better="yes")
    named = compare(frame, "eca", metric="score", margin=1, higher_is_better=True)
    assert named.axis_label == "score minus that of eca"


def test_fractions_are_compared_as_percent(results):
    percent = results(eca=[60, 61, 62.5], se=[61, 63, 65])
    fractions = percent.assign(top1=percent["top1"] / 100)
    comparison, expected = (
        compare(fractions, "eca", margin=0.5),
        compare(percent, "eca", margin=0.5),
    )
    assert (comparison.scale, comparison.unit) == ("fractions", "points")
    assert (expected.scale, expected.unit) == ("percent", "points")
    pd.testing.assert_frame_equal(comparison.table, expected.table)
    pd.testing.assert_frame_equal(comparison.differences, expected.differences)
    assert comparison.trials["top1"].tolist() == pytest.approx(percent["top1"].tolist())
    named = compare(fractions.rename(columns={"top1": "val/acc"}), "eca", metric="val/acc")
    pd.testing.assert_frame_equal(named.table, compare(percent, "eca").table)
    assert named.axis_label == "val/acc minus that of eca, points"


def test_what_is_in_no_known_scale_is_asked_for(results):
    frame = results(eca=[0.3, 0.5, 0.4], se=[0.6, 0.3, 0.2]).rename(columns={"top1": "error"})
    with pytest.raises(ValueError, match="may be fractions or percent: accepted is scale="):
        compare(frame, "eca", metric="error")
    percent, fractions = (
        compare(frame, "eca", metric="error", scale=scale) for scale in ("percent", "fractions")
    )
    difference = only_row(percent)["difference"]
    assert only_row(fractions)["difference"] == pytest.approx(100 * difference)
    assert percent.unit == fractions.unit == "points"
    with pytest.raises(ValueError, match=r"may mix fractions, such as 0\.6, with percent"):
        compare(results(eca=[60, 61], se=[0.6, 0.63]), "eca")


def test_percent_signs_are_read(results):
    frame = results(eca=[0.3, 0.5, 0.4], se=[0.6, 0.3, 1.2]).rename(columns={"top1": "error"})
    signed = frame.assign(error=frame["error"].map(" {} %".format))
    expected = compare(frame, "eca", metric="error", scale="percent")
    comparison = compare(signed, "eca", metric="error")
    assert comparison.scale == "percent"
    pd.testing.assert_frame_equal(comparison.table, expected.table)
    with pytest.raises(ValueError, match="error has percent signs: accepted is scale='percent'"):
        compare(signed, "eca", metric="error", scale="fractions")
    some = signed.assign(error=signed["error"].where(signed["seed"] > 0, "0.5"))
    with pytest.raises(
        ValueError, match=r"error'.* '0\.5 ?%' is no number, as not all are in perc"
    ):
        compare(some, "eca", metric="error")


# Tables of this lab.


def test_seeds_of_this_lab_make_pairs_or_nothing(make_record):
    def trials(arm, seeds):
        return [make_record(arm, seed, 60.0 + seed) for seed in seeds]

    apart = as_results([*trials("eca", range(3)), *trials("se", range(3, 6))])
    with pytest.raises(ValueError, match="nothing to pair with eca: no arm has a seed in common"):
        compare(apart, "eca")
    assert compare(apart, "eca", seed=None).table["difference"].tolist() == [3]
    loss = compare(
        as_results([*trials("eca", [0]), *trials("se", [0])]), "eca", metric="loss", margin=1
    )
    assert loss.axis_label == "training loss minus that of eca"


def test_percent_of_this_lab_is_never_in_doubt(make_record):
    records = [make_record(arm, seed, 0.5 + seed) for arm in ("eca", "se") for seed in range(3)]
    assert compare(as_results(records), "eca").scale == "percent"
    assert compare(as_results(records[:1]), "eca").scale == "percent"


# Tables of others.


def test_an_arm_that_is_named_twice_counts_once(results):
    frame = results(eca=[60, 61, 63], se=[61, 62, 65], none=[51, 52, 53])
    once = compare(frame, "eca", ["se", "none"]).table
    pd.testing.assert_frame_equal(compare(frame, "eca", ["se", "none", "se"]).table, once)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_what_is_infinite_is_refused(results, value):
    frame = results(eca=[60, 61, 63], se=[61, value, 65])
    with pytest.raises(ValueError, match=rf"top1={value} of se with seed 1: accepted are finite"):
        compare(frame, "eca")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.rename(columns={"arm": "method"}), "no column arm: there are method"),
        (lambda frame: frame.drop(columns=["arm", "seed"]), "no column arm: there are top1"),
        (lambda frame: frame.assign(top1="good"), "metric='top1': 'good' is no number: accepted"),
        (lambda frame: frame.assign(top1=frame["top1"] > 60), "metric='top1': 'False' is no numb"),
        (lambda frame: frame.assign(top1=frame["top1"] * 1j), "metric='top1': '60j' is no number"),
        (lambda frame: frame.assign(top1=np.nan), "metric='top1': none of 4 runs has it: accepted"),
        (lambda frame: frame.assign(arm=["eca", None, "se", "se"]), "a trial without arm"),
        (lambda frame: frame.assign(seed=[0, 1, np.nan, 1]), "a trial without seed"),
        (lambda frame: pd.concat([frame, frame["top1"]], axis=1), "two columns called top1"),
        (lambda frame: frame.to_dict("list"), "results of type dict: accepted is a DataFrame"),
    ],
)
def test_what_is_no_table_of_trials(results, change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        compare(change(results(eca=[60, 61], se=[61, 62])), "eca")


def test_tables_of_other_kinds_are_read(results):
    frame = results(eca=[60, 61, 63], se=[61, 62, 65])
    expected = compare(frame, "eca").table
    index = [7, 7, 7, 1, 1, 1]
    for other in (
        frame.assign(top1=frame["top1"].astype("Float64")),
        frame.assign(top1=frame["top1"].map(str), seed=frame["seed"].map(str)),
        frame.assign(seed=frame["seed"].astype("Int64")),
        frame.assign(arm=frame["arm"].astype("category")),
        frame.assign(device=np.nan, precision=16),
        frame.set_index(pd.Index(index)),
    ):
        pd.testing.assert_frame_equal(compare(other, "eca").table, expected)
    named = compare(frame.assign(seed=frame["seed"].map("run {}".format)), "eca")
    pd.testing.assert_frame_equal(named.table, expected)
    assert named.differences.index.tolist() == ["run 0", "run 1", "run 2"]
    missing = frame.assign(top1=frame["top1"].astype("Float64").mask(frame["seed"] == 1))
    assert compare(missing, "eca").table["n"].tolist() == [2]


def test_many_seeds_take_little_time_and_memory(results):
    rng = np.random.default_rng(0)
    n = 20_000
    base = rng.normal(60, 1, n)
    tracemalloc.start()
    row = only_row(compare(results(eca=base, se=base + rng.normal(0.1, 1, n)), "eca"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert row["p"] == pytest.approx(2 / 10_000)
    assert peak < 100e6
