import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from eca_lab.evidence.power import (
    can_be_needed,
    detectable_effect,
    needed_pairs,
    needed_runs,
    noncentrality,
    welch_freedom,
)


# Published for the 5% level and 80% power: paired seeds for differences of 0.1, 0.2 and 0.3 points
# where differences vary by 0.15 * sqrt(2) points from seed to seed.
@pytest.mark.parametrize(("difference", "pairs"), [(0.1, 38), (0.2, 11), (0.3, 7)])
def test_needed_pairs(difference, pairs):
    assert needed_pairs(difference / (0.15 * 2**0.5)) == pytest.approx(pairs, abs=1)


@pytest.mark.parametrize("effect", [0.01, 0.3, 1, 1.5, 5])
def test_needed_pairs_agree_with_statsmodels(effect):
    assert needed_pairs(effect) == math.ceil(
        TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
    )


def test_at_least_two_pairs_are_needed():
    assert [needed_pairs(effect) for effect in (11, 12, 1000)] == [3, 2, 2]
    for effect in (0, math.nan):
        with pytest.raises(ValueError, match=f"effect={effect}"):
            needed_pairs(effect)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_detectable_and_needed_agree(n):
    effect = detectable_effect(n)
    assert needed_pairs(effect * 1.001) == n
    assert needed_pairs(effect * 0.999) == n + 1
    if n > 3:
        assert TTestPower().power(effect, n, 0.05) == pytest.approx(0.8, abs=1e-6)
    draws = np.random.default_rng(0).normal(effect, 1, (20_000, n))
    found = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


# Two arms of equal spread and number: Student's t-test of two samples, which Welch's is then.


@pytest.mark.parametrize("n", [3, 8, 40])
def test_what_two_samples_can_show_agrees_with_statsmodels(n):
    effect = TTestIndPower().solve_power(nobs1=n, alpha=0.05, power=0.8)
    assert noncentrality(2 * n - 2) * math.sqrt(2 / n) == pytest.approx(effect, rel=1e-4)


@pytest.mark.parametrize("effect", [0.01, 0.3, 1, 1.5, 3])
def test_needed_runs_agree_with_statsmodels(effect):
    needed = math.ceil(TTestIndPower().solve_power(effect_size=effect, alpha=0.05, power=0.8))
    assert needed_runs(effect, 1, 1) == needed
    assert needed_runs(7 * effect, 7, 7) == needed  # in any unit


def test_runs_of_unequal_spread_have_the_power_that_is_told():
    spreads, n = (0.2, 1.0), 12
    error = math.hypot(*spreads) / math.sqrt(n)
    freedom = welch_freedom(spreads[0] ** 2 / n, spreads[1] ** 2 / n, n, n)
    true = noncentrality(freedom) * error
    assert needed_runs(true * 1.001, *spreads) == n
    assert needed_runs(true * 0.999, *spreads) == n + 1
    rng = np.random.default_rng(0)
    arm, base = rng.normal(true, spreads[0], (20_000, n)), rng.normal(0, spreads[1], (20_000, n))
    found = stats.ttest_ind(arm, base, axis=1, equal_var=False).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_an_arm_without_spread_needs_what_the_other_asks_for():
    assert needed_runs(0.5, 0, 1) == needed_runs(0.5, 1, 0) == needed_pairs(0.5)
    with pytest.raises(ValueError, match="difference=0: accepted is a finite number above 0"):
        needed_runs(0, 1, 1)


SAMPLE = st.lists(st.integers(-9, 9), min_size=2, max_size=9).filter(lambda each: len({*each}) > 1)


@settings(max_examples=50, deadline=None)
@given(SAMPLE, SAMPLE)
def test_degrees_of_freedom_as_scipy_has_them(arm, base):
    squares = [np.var(each, ddof=1) / len(each) for each in (arm, base)]
    freedom = welch_freedom(*squares, len(arm), len(base))
    assert freedom == pytest.approx(stats.ttest_ind(arm, base, equal_var=False).df)


def test_what_nobody_can_run_is_not_counted():
    assert can_be_needed(1e-5)
    assert not can_be_needed(1e-7)
