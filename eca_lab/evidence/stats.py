"""Differences between arms: paired by seed where that can be, with intervals and tests, and what
so many runs can detect."""

import functools
import itertools
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from eca_lab.checks import check_choice, check_number
from eca_lab.evidence import tables, unpaired
from eca_lab.evidence.metrics import METRICS, known_metric, resolve_metric, told_scale
from eca_lab.evidence.power import (
    CONFIDENCE,
    DIFFERENCES,
    LEVEL,
    can_be_needed,
    detectable_effect,
    needed_pairs,
)
from eca_lab.evidence.results import RUN, SETTING, is_recorded
from eca_lab.evidence.studies import TESTS, Family

RESAMPLES = 9999  # of the sign-flip test where not all flips are counted


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every arm of a family against a baseline arm; made by `compare`.

    Attributes:
        baseline, metric, margin, higher_is_better, adjust_equivalence: as they were asked for.
        words: what the metric is called.
        unit: that of the differences and the margin, "points" for a metric in percent.
        scale: "percent" or "fractions", as the metric was given; None for what is in neither.
        paired_by: the column whose values make pairs; None where runs are not paired.
        why_unpaired: why they are not, "" where they are.
        trials: the results that it is about, a row a trial, fractions as percent.
        differences: arm minus baseline, in the unit of the metric, indexed by seed, a column an
            arm; NaN without a pair, and no row where runs are not paired.
        left_out: arm -> number of seeds that arm and baseline both have, but not as a pair.
        table: indexed by arm, in the order of the family: n pairs; mean of the arm; difference to
            the baseline with its standard deviation sd and 95% interval low, high by Student's t;
            p of the two-sided sign-flip test (all 2^n flips up to n = 13, then 9999 random ones);
            p_holm, adjusted over the rows that have one (Holm 1979); p_equivalence, the larger p
            of two one-sided t-tests against -margin and margin (TOST, Schuirmann 1987);
            p_equivalence_holm, adjusted likewise; equivalent_within, the margin at which
            p_equivalence would be 0.05, and not one to choose; correlation of arm and baseline;
            detectable, the true difference that a t-test at 5%, not adjusted, would have found with
            80% probability; seeds_0.1, seeds_0.2, seeds_0.3, the seeds that it needs for such
            differences; verdict, "better" or "worse" where p_holm is below 0.05, else "equivalent"
            where p_equivalence_holm is (p_equivalence, unless adjust_equivalence), else
            "undecided", and "no pair" where n is 0.

            Where runs are not paired all tests and intervals are by Welch's t: n and n_baseline
            runs; se, the standard error of the difference, in place of sd, and its degrees of
            freedom df (Satterthwaite 1946); p of Welch's t-test; no correlation; runs_0.1 and so
            on, those that each of two arms needs, in place of seeds_0.1; "no runs" where n is 0.
    """

    baseline: str
    metric: str
    words: str
    unit: str
    scale: str | None
    paired_by: str | None
    why_unpaired: str
    margin: float
    higher_is_better: bool
    adjust_equivalence: bool
    trials: pd.DataFrame
    differences: pd.DataFrame
    left_out: dict
    table: pd.DataFrame

    @property
    def least_p(self) -> float:
        """The least p_holm that so many comparisons of so many pairs can have, whatever comes.

        0 where there is none: for Welch's test, or without an arm.
        """
        if self.paired_by is None or self.table.empty:
            return 0.0
        n = int(self.table["n"].max())
        return min(1.0, self.table["p"].count() * 2 / min(2**n, RESAMPLES + 1))

    @property
    def axis_label(self) -> str:
        """What a difference is, for the label of an axis, with its unit."""
        return ", ".join(filter(None, (f"{self.words} minus that of {self.baseline}", self.unit)))

    def at(self, margin: float) -> "Comparison":
        """The same comparison with another margin: only the equivalence and verdicts change."""
        check_number("margin", margin, above=0)
        p_equivalence = _equivalence_p(self.table, margin)
        p_equivalence_holm = holm(p_equivalence)
        decisive = p_equivalence_holm if self.adjust_equivalence else p_equivalence
        better = self.table["difference"] > 0
        if not self.higher_is_better:
            better = ~better
        verdict = _verdicts(self.table["n"], self.table["p_holm"], decisive, better)
        if self.paired_by is None:
            verdict[self.table["n"] == 0] = "no runs"
        table = self.table.assign(
            p_equivalence=p_equivalence, p_equivalence_holm=p_equivalence_holm, verdict=verdict
        )
        return replace(self, margin=margin, table=table)


def compare(
    results: pd.DataFrame | str | os.PathLike[str],
    baseline: str,
    family: Iterable[str] | None = None,
    *,
    metric: str = "top1",
    arm: str = "arm",
    seed: str | None = "seed",
    margin: float | None = None,
    higher_is_better: bool | None = None,
    scale: str | None = None,
    adjust_equivalence: bool = True,
) -> Comparison:
    """Compare every arm of a family with a baseline arm.

    All arms of a seed start from equal backbone weights and see equal batches, so their results
    come in pairs: one arm and the baseline, with one seed, on one device, at one precision, by one
    path (`eca_lab.evidence.results.RUN`).

    Runs of others are pairs in the sense that whoever names the column of seeds declares: those of
    two arms that have one value there. Runs that have no seeds, or none in common, or seed=None,
    are independent samples, and compared by Welch's t-test.

    The family is what Holm's adjustment runs over: choosing it after the trials makes it void. So
    does choosing the margin. Up to n = 13 every sign-flip p is a multiple of 2 / 2^n, so in a
    family of m rows the least p_holm is m * 2 / 2^n: 11 rows need 9 seeds before an arm can be
    called better or worse.

    What cannot be computed is missing: with one pair everything but n, mean and difference; where
    the differences do not vary, but for rounding, what needs their spread. The resampling starts
    from a fixed seed: equal results give equal tables.

    >>> arms = ["eca"] * 6 + ["se"] * 6
    >>> top1 = [85.1, 84.9, 85.3, 85.0, 85.2, 85.1, 84.2, 84.3, 84.4, 84.0, 84.5, 84.1]
    >>> trials = pd.DataFrame({"arm": arms, "seed": [*range(6), *range(6)], "top1": top1})
    >>> row = compare(trials, "eca").table.loc["se"]
    >>> print(f"{row['difference']:+.2f} points, p {row['p_holm']:.3f}: {row['verdict']}")
    -0.85 points, p 0.031: worse

    Args:
        results: a DataFrame with a row a trial, of one data set, backbone and recipe, such as
            `eca_lab.evidence.results.load_results` gives: columns arm, seed and the metric, and
            those of SETTING and RUN that are there. A metric that is NaN is a missing trial. Or
            the path of such a table, as `eca_lab.evidence.tables.read_table` reads it: a folder of
            results, or a CSV of anybody, such as a table of runs that W&B exports.
        baseline: an arm.
        family: other arms; all of them, if left out.
        metric: the column that is compared.
        arm, seed: the columns of arms and seeds. What tables with another column of arms call as
            one of RUN does not count. seed=None: the runs are no pairs.
        margin: differences nearer to 0 than that count as none, in the unit of the metric, which
            is points for fractions as well; the usual one, if left out and known.
        higher_is_better: whether more of the metric is better; if left out, as known by its name,
            see `eca_lab.evidence.metrics`.
        scale: "percent" or "fractions", in which the metric is given; if left out, it is told from
            its name and its values where that leaves no doubt. Differences of both are in points.
        adjust_equivalence: whether verdicts of equivalence take p that is adjusted, too. Without,
            of four arms at the margin one is called equivalent in 13 to 17% of families.

    Raises:
        TypeError, ValueError: no such baseline, arm or metric; what is no table of trials; a metric
            of which direction, margin or scale is not known; results of several settings; two
            results for one arm and seed; no pair, and why.
        LookupError, OSError: no results at that path.
    """
    if isinstance(results, str | os.PathLike):
        results = tables.read_table(results)
    trials = tables.checked(results, metric, arm=arm, seed=seed)
    is_ours = arm == "arm" and is_recorded(results)
    scale = _scale(results, trials[metric], scale, is_ours)
    margin, higher_is_better = resolve_metric(
        metric, margin=margin, higher_is_better=higher_is_better
    )
    if scale == "fractions":
        trials[metric] *= 100
    _check_one_setting(trials)
    arms = list(dict.fromkeys(trials["arm"]))
    if family is None:
        family = [each for each in arms if each != baseline]
    family = list(dict.fromkeys(family))
    for each in (baseline, *family):
        if each not in arms:
            raise ValueError(f"no trial of {each}: there are {', '.join(arms)}")
    why_unpaired = _why_unpaired(trials, baseline, family, metric=metric, seed=seed)
    if is_ours and seed is not None:  # its seeds are declared to make pairs
        why_unpaired = ""
    found = _unpaired if why_unpaired else _paired
    differences, left_out, table = found(trials, baseline, family, metric=metric)
    known = METRICS.get(metric)
    return Comparison(
        baseline=baseline,
        metric=metric,
        words=known.words if known is not None and (is_ours or scale) else metric,
        unit=_unit(metric, scale),
        scale=scale,
        paired_by=None if why_unpaired else seed,
        why_unpaired=why_unpaired,
        margin=margin,
        higher_is_better=higher_is_better,
        adjust_equivalence=adjust_equivalence,
        trials=trials[trials["arm"].isin([baseline, *family])],
        differences=differences,
        left_out=left_out,
        table=table,
    ).at(margin)


def trend(
    results: pd.DataFrame,
    over: Mapping[str, float],
    *,
    metric: str = "top1",
    margin: float | None = None,
) -> dict[str, Any]:
    """The slope of a metric over a number that the arms have, such as a fixed kernel size.

    One `contrast`: per seed the least-squares slope, over the seeds that all of these arms have in
    one way of computing. What is fitted is a line: a rise and fall about the middle is no trend.

    over maps arms to that number; arms without results do not count. Gives what `contrast` does,
    and values, the numbers, ascending; the estimate is in units of the metric per unit of the
    numbers.
    ValueError: fewer than two different numbers; otherwise as `contrast`.
    """
    arms = set(tables.checked(results, metric)["arm"])
    over = {
        arm: number for arm, number in sorted(over.items(), key=lambda item: item[1]) if arm in arms
    }
    return {
        "values": tuple(over.values()),
        **contrast(results, slope_weights(over), metric=metric, margin=margin),
    }


def slope_weights(over: Mapping[str, float]) -> dict[str, float]:
    """The weights of `contrast` that give the least-squares slope over a number that arms have.

    >>> slope_weights({"eca(k=1)": 1, "eca(k=3)": 3, "eca(k=5)": 5})
    {'eca(k=1)': -0.25, 'eca(k=3)': 0.0, 'eca(k=5)': 0.25}
    """
    values = list(over.values())
    if len(set(values)) < 2:
        raise ValueError(f"a trend over {values}: accepted are at least two different numbers")
    centred = np.array(values) - np.mean(values)
    return dict(zip(over, (centred / (centred @ centred)).tolist(), strict=True))


def contrast(
    results: pd.DataFrame,
    weights: Mapping[str, float],
    *,
    metric: str = "top1",
    margin: float | None = None,
    test: str = "t",
) -> dict[str, Any]:
    """A weighted sum of arms, such as one minus another: one number a seed, then a test over seeds.

    Args:
        results, metric: as for `compare`.
        weights: arm -> weight. Seeds count that all these arms have in one way of computing.
        margin: within which the sum counts as 0, or None for no test of equivalence.
        test: "t", Student's over the seeds, or "sign flips", that of `compare`.

    Returns:
        A dict: by_seed, the sum of every seed, a Series; n, of seeds; left_out, of seeds that all
        arms have, but not computed in one way; estimate, the mean over the seeds, its standard
        deviation over them sd, and its 95% interval low and high by Student's t; p of no effect;
        p_equivalence, of TOST with the margin; detectable, the true value that a t-test at 5% finds
        with 80% probability for this spread. What needs a spread is NaN without one.

    Raises:
        TypeError, ValueError: no such arm; no seed that counts; otherwise as `compare`.
    """
    check_choice("test", test, TESTS)
    results = tables.checked(results, metric)
    _check_one_setting(results)
    by_seed, runs = _by_seed(results, metric)
    arms = list(weights)
    if missing := [arm for arm in arms if arm not in by_seed]:
        raise ValueError(f"no trial of {', '.join(missing)}: there are {', '.join(by_seed)}")
    complete = by_seed[arms].dropna()
    there = runs.loc[complete.index, arms]
    in_one_way = there.eq(there[arms[0]], axis="index").all(axis="columns")
    if not in_one_way.any():
        alike = " on one device, at one precision, by one path" if len(complete) else ""
        raise ValueError(f"no seed has all of {', '.join(arms)}{alike}")
    values = complete[in_one_way].to_numpy()
    sums = values @ np.array(list(weights.values()))
    n = len(sums)
    found = {
        "by_seed": pd.Series(sums, complete.index[in_one_way]),
        "n": n,
        "left_out": int((~in_one_way).sum()),
        "estimate": float(sums.mean()),
        **dict.fromkeys(("sd", "low", "high", "p", "p_equivalence", "detectable"), math.nan),
    }
    if n > 1 and test == "sign flips":
        found["p"] = float(_sign_flip_p(sums))
    if not _varies(sums, values):
        return found
    found["sd"] = float(sums.std(ddof=1))
    student = stats.ttest_1samp(sums, 0)
    found["low"], found["high"] = map(float, student.confidence_interval(CONFIDENCE))
    if test == "t":
        found["p"] = float(student.pvalue)
    if margin is not None:
        check_number("margin", margin, above=0)
        distance = (margin - abs(found["estimate"])) / (found["sd"] / math.sqrt(n))
        found["p_equivalence"] = float(stats.t.sf(distance, n - 1))
    found["detectable"] = float(detectable_effect(n) * found["sd"])
    return found


def contrasts(results: pd.DataFrame, family: Family, *, metric: str = "top1") -> pd.DataFrame:
    """The contrasts of a `Family`, with p adjusted by Holm over them.

    Gives a DataFrame indexed by the names of the contrasts: n, estimate, sd, low, high, p, p_holm,
    margin, p_equivalence, p_equivalence_holm (over those that have a margin), detectable, as for
    `contrast`, and verdict: "better" or "worse" where p_holm is below 0.05, else "equivalent" where
    p_equivalence_holm is, else "undecided". Raises as `contrast`.
    """
    rows = {}
    for one in family.contrasts:
        weights = one.weights or slope_weights(one.over)
        found = contrast(results, weights, metric=metric, margin=one.margin, test=family.test)
        rows[one.name] = {**found, "margin": one.margin}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("contrast")
    table["margin"] = table["margin"].astype(float)
    table["p_holm"] = holm(table["p"])
    table["p_equivalence_holm"] = holm(table["p_equivalence"])
    table["verdict"] = _verdicts(
        table["n"], table["p_holm"], table["p_equivalence_holm"], table["estimate"] > 0
    )
    return table[_CONTRAST_COLUMNS]


def holm(p: pd.Series) -> pd.Series:
    """p adjusted for the number of those that are not missing (Holm 1979).

    >>> holm(pd.Series([0.01, 0.04, None, 0.03])).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    return (ordered * factors).cummax().clip(upper=1).reindex(p.index)


_COLUMNS = [
    "n", "mean", "difference", "sd", "low", "high", "p", "p_holm", "p_equivalence",
    "p_equivalence_holm", "equivalent_within", "correlation", "detectable",
    *(f"seeds_{difference}" for difference in DIFFERENCES), "verdict",
]  # fmt: skip
_CONTRAST_COLUMNS = [
    "n", "left_out", "estimate", "sd", "low", "high", "p", "p_holm", "margin", "p_equivalence",
    "p_equivalence_holm", "detectable", "verdict",
]  # fmt: skip
_ONE_SETTING = "accepted are those of one data set, backbone and recipe"


def _scale(
    results: pd.DataFrame, values: pd.Series, scale: str | None, is_ours: bool
) -> str | None:
    """In which scale a metric is given, see `told_scale`; this lab's own are in percent."""
    metric = str(values.name)
    if tables.has_percent_signs(results[metric]):
        if scale == "fractions":
            raise ValueError(f"{metric} has percent signs: accepted is scale='percent'")
        scale = "percent"
    if scale is None and is_ours:
        known = METRICS.get(metric)
        return "percent" if known is not None and known.unit == "points" else None
    return told_scale(values.dropna(), metric, scale)


def _unit(metric: str, scale: str | None) -> str:
    known = known_metric(metric)
    if scale is not None:
        return "points"
    return "" if known is None else known.unit


def _check_one_setting(results: pd.DataFrame) -> None:
    for column in SETTING:
        found = results[column].unique() if column in results else []
        if len(found) > 1:
            listed = ", ".join(map(str, found))
            raise ValueError(f"results of several {column}, {listed}: {_ONE_SETTING}")


def _why_unpaired(
    trials: pd.DataFrame, baseline: str, family: list[str], *, metric: str, seed: str | None
) -> str:
    """Why trials can be no pairs, "" if they can."""
    if seed is None:
        return "as was asked"
    if "seed" not in trials:
        return f"for there is no column {seed}"
    there = trials[trials[metric].notna()]
    seeds = {arm: set(of) for arm, of in there.groupby("arm")["seed"]}
    shared = (seeds.get(arm, set()) & seeds.get(baseline, set()) for arm in family)
    if family and not any(shared):
        return f"for no arm has a {seed} in common with {baseline}"
    return ""


# What the two ways to compare give: differences, left_out and table of a `Comparison`.
_Found = tuple[pd.DataFrame, dict[str, int], pd.DataFrame]


def _paired(trials: pd.DataFrame, baseline: str, family: list[str], *, metric: str) -> _Found:
    by_seed, runs = _by_seed(trials, metric)
    pairs, left_out = {}, {}
    for arm in family:
        pairs[arm], left_out[arm] = _pairs(by_seed, runs, arm, baseline)
    if family and all(pair.empty for pair in pairs.values()):
        raise ValueError(_why_no_pair(runs, baseline, left_out))
    differences = pd.DataFrame({arm: pair[arm] - pair[baseline] for arm, pair in pairs.items()})
    rows = {arm: _compare_pairs(pair.to_numpy()) for arm, pair in pairs.items()}
    differences = differences.reindex(by_seed.index, columns=family)
    return differences, left_out, _table(rows, _COLUMNS)


def _unpaired(trials: pd.DataFrame, baseline: str, family: list[str], *, metric: str) -> _Found:
    samples = {arm: of.dropna().to_numpy() for arm, of in trials.groupby("arm")[metric]}
    if not len(samples[baseline]):
        raise ValueError(f"no run of {baseline} has {metric}: accepted is one or more")
    rows = {arm: unpaired.compare_runs(samples[arm], samples[baseline]) for arm in family}
    differences = pd.DataFrame(columns=family, dtype=float)
    return differences, dict.fromkeys(family, 0), _table(rows, unpaired.COLUMNS)


def _by_seed(results: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of seeds by arms, the arms in the order of the results: a metric, and the run."""
    if "seed" not in results:
        raise ValueError(f"no column seed: there are {', '.join(map(str, results.columns))}")
    there = results[results[metric].notna()]
    twice = there[there.duplicated(["arm", "seed"])]
    if len(twice):
        arm, seed = twice.iloc[0][["arm", "seed"]]
        ways = "seed=None (--unpaired) compares runs that are no pairs"
        raise ValueError(f"two results of {arm} with seed {seed}: {_ONE_SETTING}; {ways}")
    run = there.drop(columns=metric).reindex(columns=RUN, fill_value="unknown")
    runs = run[RUN[0]].str.cat(run[[*RUN[1:]]], sep=", ")
    trials = there[["arm", "seed"]].assign(value=there[metric], run=runs)
    table = trials.pivot_table(index="seed", columns="arm", aggfunc="first", dropna=False)
    arms = list(dict.fromkeys(results["arm"]))
    return table["value"].reindex(columns=arms), table["run"].reindex(columns=arms)


def _pairs(
    by_seed: pd.DataFrame, runs: pd.DataFrame, arm: str, baseline: str
) -> tuple[pd.DataFrame, int]:
    """The pairs of an arm and its baseline, and how many seeds both have that are none."""
    both = by_seed[[arm, baseline]].dropna()
    alike = (runs[arm] == runs[baseline]).reindex(both.index)
    return both[alike], int((~alike).sum())


def _why_no_pair(runs: pd.DataFrame, baseline: str, left_out: dict[str, int]) -> str:
    reason = "no arm has a seed in common with it"
    if any(left_out.values()):
        where = {arm: ", ".join(runs[arm].dropna().unique()) for arm in (baseline, *left_out)}
        reason = "; ".join(f"{arm} ran on {there}" for arm, there in where.items())
    return f"nothing to pair with {baseline}: {reason}"


def _table(rows: dict[str, dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """The table of a `Comparison`, but for what needs the margin; rows: arm -> row."""
    table = pd.DataFrame(list(rows.values()), pd.Index(rows, name="arm"), columns)
    kinds = dict.fromkeys(columns, "float64") | {"n": "int64", "verdict": "object"}
    kinds |= {name: "Int64" for name in columns if name.startswith(("seeds_", "runs_"))}
    if "n_baseline" in columns:
        kinds["n_baseline"] = "int64"
    table = table.astype(kinds)
    table["p_holm"] = holm(table["p"])
    return table


def _compare_pairs(pairs: np.ndarray) -> dict[str, Any]:
    """A row of the table but for what needs the margin or other rows; pairs (n, 2), arm first."""
    n = len(pairs)
    if n == 0:
        return {"n": 0}
    differences = pairs[:, 0] - pairs[:, 1]
    row = {"n": n, "mean": pairs[:, 0].mean(), "difference": differences.mean()}
    if n == 1:
        return row
    row["p"] = _sign_flip_p(differences)
    if all(_varies(values, values) for values in pairs.T):
        row["correlation"] = np.corrcoef(pairs.T)[0, 1]
    if not _varies(differences, pairs):
        return row
    row["sd"] = spread = differences.std(ddof=1)
    test = stats.ttest_1samp(differences, 0)
    row["low"], row["high"] = test.confidence_interval(CONFIDENCE)
    # TOST at 5% rejects where the 90% interval lies within the margin.
    row["equivalent_within"] = np.abs(test.confidence_interval(1 - 2 * LEVEL)).max()
    row["detectable"] = detectable_effect(n) * spread
    for difference in DIFFERENCES:
        if can_be_needed(difference / spread):
            row[f"seeds_{difference}"] = needed_pairs(difference / spread)
    return row


def _sign_flip_p(differences: np.ndarray) -> float:
    # As scipy.stats.permutation_test, but faster. Flips that give equal sums must tie: their sums
    # differ by rounding, so they are compared with a tolerance.
    scaled = differences / (np.abs(differences).max() or 1)
    drawn = 2 ** len(scaled) > RESAMPLES
    sums = _random_flip_sums(scaled) if drawn else _all_flips(len(scaled)) @ scaled
    tail = min((sums >= scaled.sum() - 1e-9).sum(), (sums <= scaled.sum() + 1e-9).sum())
    return min(1.0, 2 * (tail + drawn) / (len(sums) + drawn))


@functools.cache
def _all_flips(n: int) -> np.ndarray:
    """All 2^n rows of n signs."""
    return np.array([*itertools.product((1.0, -1.0), repeat=n)])


def _random_flip_sums(values: np.ndarray) -> np.ndarray:
    """Sums of the values, RESAMPLES times with random signs; in little memory, whatever their n."""
    rng = np.random.default_rng(0)
    sums = np.zeros(RESAMPLES)
    for begin in range(0, len(values), 8):
        few = values[begin : begin + 8]
        of_every_flip = _all_flips(len(few)) @ few
        sums += of_every_flip[rng.integers(len(of_every_flip), size=RESAMPLES)]
    return sums


def _equivalence_p(table: pd.DataFrame, margin: float) -> pd.Series:
    """The larger p of two one-sided t-tests against -margin and margin, of every row."""
    difference, n = (table[name].to_numpy(float) for name in ("difference", "n"))
    with np.errstate(divide="ignore", invalid="ignore"):  # one pair, or all pairs alike
        if "se" in table:  # not paired
            error, freedom = table["se"].to_numpy(), table["df"].to_numpy()
        else:
            error, freedom = table["sd"].to_numpy() / np.sqrt(n), n - 1
        t = (margin - abs(difference)) / error
    return pd.Series(stats.t.sf(t, freedom), table.index)


def _verdicts(
    n: pd.Series, p_holm: pd.Series, p_equivalence: pd.Series, better: pd.Series
) -> np.ndarray:
    apart = p_holm < LEVEL
    cases = [n == 0, apart & better, apart, p_equivalence < LEVEL]
    return np.select(cases, ["no pair", "better", "worse", "equivalent"], "undecided")


def _varies(sample: np.ndarray, values: np.ndarray) -> bool:
    """Whether a sample computed from values has a spread that is more than their rounding."""
    return len(sample) > 1 and np.ptp(sample) > 1e-9 * np.abs(values).max()
