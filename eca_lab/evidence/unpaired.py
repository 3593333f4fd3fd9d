"""Differences between arms whose runs are no pairs, by Welch's t-test."""

import math
from typing import Any

import numpy as np
from scipy import special

from eca_lab.evidence.power import (
    CONFIDENCE,
    DIFFERENCES,
    LEVEL,
    can_be_needed,
    needed_runs,
    noncentrality,
    welch_freedom,
)

COLUMNS = [
    "n", "n_baseline", "mean", "difference", "se", "df", "low", "high", "p", "p_holm",
    "p_equivalence", "p_equivalence_holm", "equivalent_within", "detectable",
    *(f"runs_{difference}" for difference in DIFFERENCES), "verdict",
]  # fmt: skip


def compare_runs(arm: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    """A row of the table of a `Comparison` that is not paired, but for margin and other rows.

    Args:
        arm: the metric of its runs, (n,).
        baseline: that of the baseline's, (m,), m at least 1.
    """
    n, m = len(arm), len(baseline)
    if n == 0:
        return {"n": n, "n_baseline": m}
    difference = arm.mean() - baseline.mean()
    row = {"n": n, "n_baseline": m, "mean": arm.mean(), "difference": difference}
    largest = max(np.abs(arm).max(), np.abs(baseline).max())
    # As much as rounding is no spread.
    if min(n, m) < 2 or max(np.ptp(arm), np.ptp(baseline)) <= 1e-9 * largest:
        return row
    squares = arm.var(ddof=1) / n, baseline.var(ddof=1) / m  # of the standard errors
    row["se"] = error = math.sqrt(sum(squares))
    row["df"] = freedom = welch_freedom(*squares, n, m)
    half = special.stdtrit(freedom, (1 + CONFIDENCE) / 2) * error
    row["low"], row["high"] = difference - half, difference + half
    row["p"] = 2 * special.stdtr(freedom, -abs(difference) / error)
    # TOST at 5% rejects where the 90% interval lies within the margin.
    row["equivalent_within"] = abs(difference) + special.stdtrit(freedom, 1 - LEVEL) * error
    row["detectable"] = noncentrality(freedom) * error
    spreads = arm.std(ddof=1), baseline.std(ddof=1)
    for each in DIFFERENCES:
        if can_be_needed(each / math.hypot(*spreads)):
            row[f"runs_{each}"] = needed_runs(each, *spreads)
    return row
