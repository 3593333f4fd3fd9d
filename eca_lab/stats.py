"""Differences between arms: paired by seed, with intervals, tests, and what n seeds can detect."""

import functools
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special, stats

from eca_lab.checks import check_choice, check_number
from eca_lab.results import RUN, SETTING

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
POWER = 0.8
RESAMPLES = 9999  # of the sign-flip test where not all flips are counted
METRICS = {"top1": "top-1", "top5": "top-5"}  # as they are written for readers
DIFFERENCES = (0.1, 0.2, 0.3)  # for which `compare` gives the seeds needed, in points


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every arm of a family against a baseline arm; made by `compare`.

    Attributes:
        baseline, metric, margin: as they were asked for.
        trials: the results that it is about, a row a trial.
        differences: arm minus baseline, in the unit of the metric (points for top1), indexed by
            seed, a column an arm; NaN without a pair.
        left_out: arm -> number of seeds that arm and baseline both have, but not as a pair.
        table: indexed by arm, in the order of the family: n pairs; mean of the arm; difference to
            the baseline with its standard deviation sd and 95% interval low, high by Student's t;
            p of the two-sided sign-flip test (all 2^n flips up to n = 13, then 9999 random ones);
            p_holm, adjusted over the rows that have one (Holm 1979); p_equivalence, the larger p
            of two one-sided t-tests against -margin and margin (TOST, Schuirmann 1987), not
            adjusted; equivalent_within, the margin at which it would be 0.05, and not one to
            choose; correlation of arm and baseline; detectable, the true difference that a t-test
            at 5%, not adjusted, would have found with 80% probability; seeds_0.1, seeds_0.2,
            seeds_0.3, the seeds that it needs for such differences; verdict, "better" or "worse"
            where p_holm is below 0.05, else "equivalent" where p_equivalence is, else "undecided",
            and "no pair" where n is 0.
    """

    baseline: str
    metric: str
    margin: float
    trials: pd.DataFrame
    differences: pd.DataFrame
    left_out: dict
    table: pd.DataFrame

    @property
    def least_p(self):
        """The least p_holm that so many comparisons of so many pairs can have, whatever comes."""
        n = int(self.table["n"].max())
        return min(1.0, self.table["p"].count() * 2 / min(2**n, RESAMPLES + 1))

    @property
    def unit(self):
        """What a difference is, for the label of an axis."""
        return f"{METRICS.get(self.metric, self.metric)} minus that of {self.baseline}, points"

    def at(self, margin):
        """The same comparison with another margin: only the equivalence and verdicts change."""
        check_number("margin", margin, above=0)
        columns = self.table[["n", "difference", "sd", "p_holm"]].to_numpy(float)
        n, difference, sd, p_holm = columns.T
        with np.errstate(divide="ignore", invalid="ignore"):  # one pair, or all pairs alike
            t = (margin - abs(difference)) / (sd / np.sqrt(n))  # of the test with the larger p
        p_equivalence = stats.t.sf(t, n - 1)
        apart = p_holm < LEVEL
        cases = [n == 0, apart & (difference > 0), apart, p_equivalence < LEVEL]
        verdicts = ["no pair", "better", "worse", "equivalent"]
        verdict = np.select(cases, verdicts, "undecided")
        table = self.table.assign(p_equivalence=p_equivalence, verdict=verdict)
        return replace(self, margin=margin, table=table)


def compare(results, baseline, family=None, metric="top1", margin=0.2):
    """Compare every arm of a family with a baseline arm.

    Of results by `eca_lab.results.load_results`, of one data set, backbone and recipe. All arms of
    a seed start from equal backbone weights and see equal batches, so their results come in pairs:
    one arm and the baseline, with one seed, on one device, at one precision, by one path
    (`eca_lab.results.RUN`). A metric that is NaN is a missing trial.

    The family (all other arms, if left out) is what Holm's adjustment runs over: choosing it after
    the trials makes it void. So does choosing the margin: differences nearer to 0 than that count
    as none. Up to n = 13 every sign-flip p is a multiple of 2 / 2^n, so in a family of m rows the
    least p_holm is m * 2 / 2^n: 11 rows need 9 seeds before an arm can be called better or worse.

    What cannot be computed is missing: with one pair everything but n, mean and difference; where
    the differences do not vary, but for rounding, what needs their spread. The resampling starts
    from a fixed seed: equal results give equal tables. TypeError, ValueError: no such baseline, arm
    or metric; results of several settings; two results for one arm and seed; no pair, and why.
    """
    check_number("margin", margin, above=0)
    by_seed, runs = _by_seed(results, metric)
    family = [arm for arm in by_seed if arm != baseline] if family is None else list(family)
    for arm in (baseline, *family):
        if arm not in by_seed:
            raise ValueError(f"no trial of {arm}: there are {', '.join(by_seed)}")
    pairs, left_out = {}, {}
    for arm in family:
        both = by_seed[[arm, baseline]].dropna()
        fitting = (runs[arm] == runs[baseline]).reindex(both.index)
        pairs[arm], left_out[arm] = both[fitting], int((~fitting).sum())
    if family and all(pair.empty for pair in pairs.values()):
        reason = "no arm has a seed in common with it"
        if any(left_out.values()):
            where = {arm: ", ".join(runs[arm].dropna().unique()) for arm in (baseline, *family)}
            reason = "; ".join(f"{arm} ran on {there}" for arm, there in where.items())
        raise ValueError(f"nothing to pair with {baseline}: {reason}")
    rows = [_compare_pairs(pair.to_numpy()) for pair in pairs.values()]
    table = pd.DataFrame(rows, pd.Index(family, name="arm"), _COLUMNS)
    kinds = {f"seeds_{difference}": "Int64" for difference in DIFFERENCES}
    table = table.astype({**dict.fromkeys(_COLUMNS[1:-1], float), "n": int, **kinds})
    table["p_holm"] = _holm(table["p"])
    differences = pd.DataFrame({arm: pair[arm] - pair[baseline] for arm, pair in pairs.items()})
    trials = results[results["arm"].isin([baseline, *family])]
    differences = differences.reindex(by_seed.index, columns=family)
    return Comparison(baseline, metric, margin, trials, differences, left_out, table).at(margin)


def trend(results, over, metric="top1"):
    """The slope of a metric over a number that the arms have, such as a fixed kernel size.

    One contrast: per seed the least-squares slope, over the seeds that all of these arms have in
    one way of computing (`eca_lab.results.RUN`), then Student's t over the seeds. What is fitted
    is a line: a rise and fall about the middle is no trend.

    over maps arms to that number; arms without results do not count. Gives a dict: values, the
    numbers, ascending; n, of seeds; left_out, of seeds that all arms have, but not computed in one
    way; slope, in units of the metric (points for top1) per unit of the numbers, its 95% interval
    low and high, and p of no slope; detectable, the slope that n seeds with this spread show with
    80% probability. What needs a spread is NaN without one. ValueError: fewer than two different
    numbers; no seed that counts; otherwise as `compare`.
    """
    by_seed, runs = _by_seed(results, metric)
    arms = sorted((arm for arm in by_seed if arm in over), key=over.get)
    values = [over[arm] for arm in arms]
    if len(set(values)) < 2:
        raise ValueError(f"a trend over {values}: accepted are at least two different numbers")
    complete = by_seed[arms].dropna()
    fitting = runs.loc[complete.index, arms].eq(runs.loc[complete.index, arms[0]], axis="index")
    fitting = fitting.all(axis="columns")
    if not fitting.any():
        alike = " on one device, at one precision, by one path" if len(complete) else ""
        raise ValueError(f"no seed has all of {', '.join(arms)}{alike}")
    table = complete[fitting].to_numpy()
    centred = np.array(values) - np.mean(values)
    slopes = table @ centred / (centred @ centred)
    n = len(slopes)
    found = dict.fromkeys(("low", "high", "p", "detectable"), math.nan)
    if _varies(slopes, table):
        test = stats.ttest_1samp(slopes, 0)
        found["low"], found["high"] = map(float, test.confidence_interval(CONFIDENCE))
        found["p"] = float(test.pvalue)
        found["detectable"] = float(detectable_effect(n) * slopes.std(ddof=1))
    left_out, slope = int((~fitting).sum()), float(slopes.mean())
    return {"values": tuple(values), "n": n, "left_out": left_out, "slope": slope, **found}


@functools.cache
def detectable_effect(n):
    """The true mean difference, in standard deviations, that n pairs show with 80% probability.

    Of a two-sided t-test at 5%. n is at least 2.
    """
    critical = special.stdtrit(n - 1, 1 - LEVEL / 2)
    return float(special.nctdtrinc(n - 1, 1 - POWER, critical)) / math.sqrt(n)


def needed_pairs(effect):
    """How many pairs show a true mean difference of so many standard deviations, as above.

    A whole number, rounded up, at least 2.
    """
    check_number("effect", effect, above=0)
    fewest = ((special.ndtri(1 - LEVEL / 2) + special.ndtri(POWER)) / effect) ** 2  # if sd is known
    return next(n for n in itertools.count(max(2, int(fewest))) if detectable_effect(n) <= effect)


_COLUMNS = [
    "n", "mean", "difference", "sd", "low", "high", "p", "p_holm", "p_equivalence",
    "equivalent_within", "correlation", "detectable",
    *(f"seeds_{difference}" for difference in DIFFERENCES), "verdict",
]  # fmt: skip
_ONE_SETTING = "accepted are those of one data set, backbone and recipe"


def _by_seed(results, metric):
    """Tables of seeds by arms, the arms in the order of the results: a metric, and the run."""
    metrics = results.drop(columns="seed").select_dtypes("number")
    check_choice("metric", metric, list(metrics))
    for column in SETTING:
        found = results[column].unique() if column in results else []
        if len(found) > 1:
            listed = ", ".join(map(str, found))
            raise ValueError(f"results of several {column}, {listed}: {_ONE_SETTING}")
    twice = results[results.duplicated(["arm", "seed"])]
    if len(twice):
        arm, seed = twice.iloc[0][["arm", "seed"]]
        raise ValueError(f"two results of {arm} with seed {seed}: {_ONE_SETTING}")
    runs = [", ".join(run) for run in results.reindex(columns=RUN, fill_value="unknown").to_numpy()]
    table = results.assign(_run=runs).pivot_table(
        index="seed", columns="arm", values=[metric, "_run"], aggfunc="first", dropna=False
    )
    by_seed, runs = (table[each][[*dict.fromkeys(results["arm"])]] for each in (metric, "_run"))
    return by_seed, runs


def _compare_pairs(pairs):
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
        row[f"seeds_{difference}"] = needed_pairs(difference / spread)
    return row


def _sign_flip_p(differences):
    # As scipy.stats.permutation_test, but faster. Flips that give equal sums must tie: their sums
    # differ by rounding, so they are compared with a tolerance.
    scaled, n = differences / (np.abs(differences).max() or 1), len(differences)
    sums, random = _flips(n, RESAMPLES) @ scaled, 2**n > RESAMPLES
    tail = min((sums >= scaled.sum() - 1e-9).sum(), (sums <= scaled.sum() + 1e-9).sum())
    return min(1.0, 2 * (tail + random) / (len(sums) + random))


@functools.cache
def _flips(n, most):
    """Rows of n signs: all 2^n of them, or as many random ones as there may be at most."""
    if 2**n <= most:
        return np.array([*itertools.product((1.0, -1.0), repeat=n)])
    pairs = np.tile((1.0, -1.0), (most, n, 1))
    return np.random.default_rng(0).permuted(pairs, axis=2)[..., 0]


def _holm(p):
    """p adjusted for the number of those that are not missing (Holm 1979)."""
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    return (ordered * factors).cummax().clip(upper=1).reindex(p.index)


def _varies(sample, values):
    """Whether a sample computed from values has a spread that is more than their rounding."""
    return len(sample) > 1 and np.ptp(sample) > 1e-9 * np.abs(values).max()
