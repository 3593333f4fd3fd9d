"""Differences between arms: paired by seed, with intervals, and what n seeds can detect."""

import math

import numpy as np
import pandas as pd
from scipy import optimize, stats
from statsmodels.stats.power import TTestPower

CONFIDENCE = 0.95
POWER = 0.8


def compare(results, baseline, metric="top1"):
    """Mean paired difference of every arm to a baseline arm, over the seeds that both have.

    All arms of a seed start from equal backbone weights and see equal batches, so their results
    come in pairs.

    Args:
        results: DataFrame of `eca_lab.results.load_results`, of one data set, backbone and recipe.
        baseline: the arm to compare with.
        metric: a numeric column.

    Returns:
        DataFrame, one row per other arm, in the order of the results: arm; n, the number of
        common seeds; difference, the mean of arm minus baseline; low and high, its 95% interval by
        Student's t; detectable, the true difference that a two-sided t-test at 5% would have found
        with 80% probability at this n and this spread. The last three are NaN for n < 2, and
        where the differences do not vary.

    Raises:
        ValueError: no such baseline or metric; two results for one arm and seed.
    """
    if metric not in results.select_dtypes("number"):
        accepted = ", ".join(results.select_dtypes("number"))
        raise ValueError(f"metric={metric!r}: accepted are {accepted}")
    arms = list(dict.fromkeys(results["arm"]))
    if baseline not in arms:
        raise ValueError(f"baseline={baseline!r}: accepted are {', '.join(arms)}")
    twice = results[results.duplicated(["arm", "seed"])]
    if len(twice):
        arm, seed = twice.iloc[0][["arm", "seed"]]
        raise ValueError(
            f"two results of {arm} with seed {seed}: accepted are those of one data set, "
            "backbone and recipe"
        )
    by_seed = results.pivot_table(index="seed", columns="arm", values=metric)
    return pd.DataFrame(
        _paired(arm, (by_seed[arm] - by_seed[baseline]).dropna().to_numpy())
        for arm in arms
        if arm != baseline
    )


def _paired(arm, differences):
    n = len(differences)
    row = {"arm": arm, "n": n, "difference": differences.mean() if n else np.nan}
    spread = differences.std(ddof=1) if n > 1 else 0.0
    if spread == 0:
        return {**row, "low": np.nan, "high": np.nan, "detectable": np.nan}
    low, high = stats.t.interval(
        CONFIDENCE, n - 1, loc=differences.mean(), scale=spread / np.sqrt(n)
    )
    return {**row, "low": low, "high": high, "detectable": detectable_effect(n) * spread}


def detectable_effect(n):
    """The true mean difference, in standard deviations, that n pairs show with 80% probability.

    Of a two-sided t-test at 5%. n is at least 2.
    """
    # TTestPower.solve_power looks for effects below 1 alone, and few seeds detect none of those.
    critical = stats.t.isf((1 - CONFIDENCE) / 2, n - 1)
    noncentrality = optimize.root_scalar(
        lambda shift: stats.nct.sf(critical, n - 1, shift) - POWER, x0=critical, x1=1.2 * critical
    ).root
    return noncentrality / math.sqrt(n)


def needed_pairs(effect):
    """How many pairs show a true mean difference of so many standard deviations.

    With 80% probability, by a two-sided t-test at 5%. A whole number, rounded up.
    """
    return math.ceil(
        TTestPower().solve_power(effect_size=effect, alpha=1 - CONFIDENCE, power=POWER)
    )
