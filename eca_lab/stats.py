"""Differences between arms: paired by seed, with intervals, tests, and what n seeds can detect."""

import functools
import math
from numbers import Real

import numpy as np
import pandas as pd
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from eca_lab.results import SETTING
from eca_lab.spec import parse_spec

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
POWER = 0.8
RESAMPLES = 9999  # of the bootstrap, and of the sign-flip test where not all flips are counted
DIFFERENCES = (0.1, 0.2, 0.3)  # for which `compare` gives the seeds needed, in points


def compare(results, baseline, metric="top1", margin=0.2):
    """Every arm against a baseline arm, paired by seed: difference, intervals, tests, verdict.

    All arms of a seed start from equal backbone weights and see equal batches, so their results
    come in pairs. Only the seeds that both have count; a metric that is NaN is a missing trial.

    The rows of this table are the declared family: Holm's adjustment runs over all of them, and
    choosing other rows afterwards makes it void. For another family give other results.

    Every sign-flip p is a multiple of 2 / 2^n, so at n = 5 it is at least 0.0625 and no arm can be
    better or worse. In a family of m rows the least p_holm is about m * 2 / 2^n: 11 rows need 9
    seeds before any verdict of this kind can be reached.

    BCa intervals are too narrow at small n: of normal differences they cover the true one in about
    91% of the cases at n = 10, and 85% at n = 5, where those by t cover 95%. Read them beside the
    interval by t, for whether skewed differences would move its ends.

    Args:
        results: DataFrame of `eca_lab.results.load_results`, of one data set, backbone and recipe.
        baseline: the arm to compare with.
        metric: a numeric column. Differences, margin and so on are in its unit, points for top1.
        margin: differences nearer to 0 than this count as none. Declare it before the trials.

    Returns:
        DataFrame, one row per other arm, in the order of the results:

        arm
        n: number of common seeds.
        mean: of the arm over these seeds.
        difference: mean of arm minus baseline.
        low, high: its 95% interval by Student's t.
        low_bca, high_bca: its 95% interval by the bootstrap (BCa, Efron 1987).
        p: two-sided sign-flip permutation test of the mean difference. All 2^n flips are counted
            up to n = 13; beyond that 9999 random ones, and p is at least 0.0002.
        p_holm: p adjusted over the rows that have one (Holm 1979).
        superiority: share of the seeds on which the arm is above the baseline, ties counted half.
        p_equivalence: larger p of two one-sided paired t-tests against -margin and margin (TOST,
            Schuirmann 1987). Not adjusted.
        equivalent_within: the margin at which p_equivalence would be 0.05. Not one to choose.
        correlation: of arm and baseline over the seeds (Pearson); at n = 2 it can only be 1 or -1.
        detectable: the true difference that a two-sided t-test at 5%, not adjusted, would have
            found with 80% probability at this n and this spread.
        seeds_0.1, seeds_0.2, seeds_0.3: seeds that such a test needs to find a true difference of
            0.1, 0.2, 0.3 with 80% probability at this spread. Whole numbers, at least 2.
        verdict: "better" or "worse" where p_holm is below 0.05; else "equivalent" where
            p_equivalence is below 0.05; else "undecided". A difference that is both significant
            and within the margin is called by its sign: it is there, if small.

        With one common seed everything but n, mean, difference and superiority is missing, with
        none all but n; such a row is undecided and does not count in the family. Where the
        differences do not vary (but for rounding), p stands, as it needs no spread, and
        what needs one is missing: intervals, p_equivalence, equivalent_within, detectable and
        seeds. The correlation is missing where arm or baseline does not vary. Missing is NaN, in
        the columns of seeds <NA>. A baseline without other arms gives a table without rows.

        The resampling starts from a fixed seed for every row: equal results give equal tables.

    Raises:
        TypeError: margin not a number.
        ValueError: margin not above 0 or not finite; no such baseline or metric; results of
            several settings; two results for one arm and seed; an infinite metric.
    """
    if isinstance(margin, bool) or not isinstance(margin, Real):
        raise TypeError(f"margin={margin!r}: accepted is a number greater than 0")
    if not 0 < margin < math.inf:
        raise ValueError(f"margin={margin!r}: accepted is a finite number greater than 0")
    by_seed = _by_seed(results, metric)
    _check_baseline(baseline, by_seed)
    rows = [
        _compare_pairs(arm, by_seed[[arm, baseline]].dropna().to_numpy(), margin)
        for arm in by_seed
        if arm != baseline
    ]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p_holm"] = multipletests(table.loc[tested, "p"], method="holm")[1]
    apart = table["p_holm"] < LEVEL
    table["verdict"] = np.select(
        [apart & (table["difference"] > 0), apart, table["p_equivalence"] < LEVEL],
        ["better", "worse", "equivalent"],
        "undecided",
    )
    return table.astype({f"seeds_{difference}": "Int64" for difference in DIFFERENCES})


def paired_differences(results, baseline, metric="top1"):
    """Every arm minus a baseline arm, seed by seed: what `compare` is about.

    Arguments and errors as `compare`.

    Returns:
        DataFrame, indexed by seed, with a column for each other arm in the order of the results,
        in the unit of the metric; NaN where the arm or the baseline lacks the seed.
    """
    by_seed = _by_seed(results, metric)
    _check_baseline(baseline, by_seed)
    return by_seed.drop(columns=baseline).sub(by_seed[baseline], axis="index")


def means(results, metric="top1"):
    """Mean of every arm over its seeds, with a 95% interval by Student's t.

    These intervals are about one arm alone; whether two arms differ is for `compare` to say.

    Args:
        results: DataFrame of `eca_lab.results.load_results`, of one data set, backbone and recipe.
        metric: a numeric column.

    Returns:
        DataFrame indexed by arm, in the order of the results: n, mean, low, high, the last two NaN
        where n is 1 or the values do not vary; kernel_size, the k of arms such as eca(k=3) that fix
        one k for all layers, else NaN.

    Raises:
        ValueError: as `compare`.
    """
    rows = {}
    for arm, values in _by_seed(results, metric).items():
        values = values.dropna().to_numpy()
        low, high = (math.nan, math.nan)
        if _varies(values, values):
            low, high = _t_interval(values, CONFIDENCE)
        rows[arm] = len(values), values.mean(), low, high, fixed_kernel_size(arm) or math.nan
    columns = ["n", "mean", "low", "high", "kernel_size"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")


def fixed_kernel_size(arm):
    """k of an arm that fixes one k for all layers and nothing else, such as eca(k=3); else None."""
    spec = parse_spec(arm)
    k = spec.arguments.get("k")
    fixed = spec.name == "eca" and list(spec.arguments) == ["k"] and isinstance(k, int)
    return k if fixed else None


def conclusions(compared, slope, baseline, margin):
    """What a comparison allows to say, in three sentences.

    Args:
        compared: DataFrame of `compare`.
        slope: dict of `trend`, or None where fewer than two kernel sizes were fixed.
        baseline, margin: as they were given to `compare`.

    Returns:
        list of three sentences: on the arms that fix k, on the other arms, and on what this number
        of seeds could have found or shown to be equal.
    """
    is_fixed = compared["arm"].map(fixed_kernel_size).notna()
    fixed = _verdicts("Fixed k", compared[is_fixed], baseline)
    if slope is not None and not math.isnan(slope["low"]):
        sizes = slope["values"]
        fixed += (
            f"; from k = {sizes[0]} to {sizes[-1]} the slope is {slope['slope']:+.3f} points per "
            f"unit of k ({slope['low']:+.3f} to {slope['high']:+.3f})"
        )
    others = _verdicts("Other arms", compared[~is_fixed], baseline)
    known = compared.dropna(subset="detectable")
    power = f"With n = {_range(compared['n'], '{:.0f}')} seeds no spread could be measured"
    if len(known):
        closest = known.loc[known["equivalent_within"].idxmin()]
        count = (known["p_equivalence"] < LEVEL).sum()
        wanted = DIFFERENCES[1]
        power = (
            f"With n = {_range(compared['n'], '{:.0f}')} seeds a true difference of "
            f"{_range(known['detectable'], '{:.2f}')} points, depending on the arm, would have "
            f"been found with {POWER:.0%} probability (before adjustment), and {wanted} points "
            f"would take {_range(known[f'seeds_{wanted}'], '{:,.0f}')} seeds; equality within the "
            f"margin of {margin:g} points is shown for {count} of {len(known)} arms, the closest "
            f"being {closest['arm']}, equal within {closest['equivalent_within']:.2f}"
        )
    return [f"{sentence}." for sentence in (fixed, others, power)]


def _verdicts(subject, compared, baseline):
    """Which arms are better, worse, equivalent and undecided."""
    if compared.empty:
        return f"{subject} against {baseline}: none"
    words = {
        "better": "better",
        "worse": "worse",
        "equivalent": "as good",
        "undecided": "not told apart",
    }
    parts = []
    for verdict, word in words.items():
        rows = compared[compared["verdict"] == verdict]
        arms = zip(rows["arm"], rows["difference"], strict=True)
        if len(rows):
            parts.append(f"{word} {', '.join(f'{arm} ({each:+.2f})' for arm, each in arms)}")
    return f"{subject} against {baseline}, in points: {'; '.join(parts)}"


def _range(values, form):
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def trend(results, over=None, metric="top1"):
    """The slope of a metric over a number that the arms have, such as a fixed kernel size.

    One contrast: per seed the least-squares slope, over the seeds that all of these arms have, then
    Student's t over the seeds. What is fitted is a line: a rise and fall about the middle is no
    trend.

    Args:
        results: DataFrame of `eca_lab.results.load_results`, of one data set, backbone and recipe.
        over: dict arm -> number; arms without results do not count. If left out, the k of
            eca(k=1), eca(k=3) and so on; arms that give a k per stage, or anything beside k, do not
            count.
        metric: a numeric column.

    Returns:
        dict: values, the numbers, ascending; n, the number of common seeds; slope, its mean over
        the seeds, in units of the metric (points for top1) per unit of the numbers; low and high,
        its 95% interval; p, two-sided, of no slope; detectable, the slope that n seeds with this
        spread show with 80% probability. Without a common seed slope is NaN, and with fewer than
        two, or where the slopes do not vary, low, high, p and detectable are.

    Raises:
        ValueError: fewer than two different numbers; otherwise as `compare`.
    """
    by_seed = _by_seed(results, metric)
    if over is None:
        over = {arm: k for arm in by_seed if (k := fixed_kernel_size(arm)) is not None}
    arms = sorted((arm for arm in by_seed if arm in over), key=over.get)
    values = [over[arm] for arm in arms]
    if len(set(values)) < 2:
        raise ValueError(
            f"a trend over {values}: accepted are at least two arms of different numbers, such as "
            "eca(k=3) and eca(k=5)"
        )
    table = by_seed[arms].dropna().to_numpy()
    centred = np.array(values) - np.mean(values)
    slopes = table @ centred / (centred @ centred)
    n = len(slopes)
    found = {"values": tuple(values), "n": n, "slope": float(slopes.mean()) if n else math.nan}
    low = high = p = detectable = math.nan
    if _varies(slopes, table):
        low, high = map(float, _t_interval(slopes, CONFIDENCE))
        p = float(stats.ttest_1samp(slopes, 0).pvalue)
        detectable = float(detectable_effect(n) * slopes.std(ddof=1))
    return {**found, "low": low, "high": high, "p": p, "detectable": detectable}


@functools.cache
def detectable_effect(n):
    """The true mean difference, in standard deviations, that n pairs show with 80% probability.

    Of a two-sided t-test at 5%. n is at least 2.
    """
    # TTestPower.solve_power does not find its way to effects above 1, which few seeds need.
    critical = stats.t.isf(LEVEL / 2, n - 1)
    noncentrality = optimize.root_scalar(
        lambda shift: stats.nct.sf(critical, n - 1, shift) - POWER, x0=critical, x1=1.2 * critical
    ).root
    return noncentrality / math.sqrt(n)


def needed_pairs(effect):
    """How many pairs show a true mean difference of so many standard deviations.

    With 80% probability, by a two-sided t-test at 5%. A whole number, rounded up, at least 2.

    Raises:
        ValueError: effect not above 0, or not finite.
    """
    if not 0 < effect < math.inf:
        raise ValueError(f"effect={effect!r}: accepted is a finite number greater than 0")
    # With the spread known it would take this many, and with it estimated a few more.
    z = stats.norm.isf(LEVEL / 2) + stats.norm.ppf(POWER)
    n = max(2, math.floor((z / effect) ** 2))
    while detectable_effect(n) > effect:
        n += 1
    return n


_COLUMNS = [
    "arm", "n", "mean", "difference", "low", "high", "low_bca", "high_bca", "p", "p_holm",
    "superiority", "p_equivalence", "equivalent_within", "correlation", "detectable",
    *(f"seeds_{difference}" for difference in DIFFERENCES), "verdict",
]  # fmt: skip


def _check_baseline(baseline, by_seed):
    if baseline not in by_seed:
        raise ValueError(f"baseline={baseline!r}: accepted are {', '.join(by_seed)}")


def _by_seed(results, metric):
    """A metric as a table of seeds by arms, the arms in the order of the results."""
    metrics = results.drop(columns="seed").select_dtypes("number")
    if metric not in metrics:
        raise ValueError(f"metric={metric!r}: accepted are {', '.join(metrics)}")
    if np.isinf(results[metric]).any():
        raise ValueError(f"metric={metric!r}: infinite in some trials; accepted are finite values")
    for column in SETTING:
        found = results[column].unique() if column in results else []
        if len(found) > 1:
            raise ValueError(
                f"results of several {column}, {', '.join(map(str, found))}: accepted are those "
                "of one data set, backbone and recipe"
            )
    twice = results[results.duplicated(["arm", "seed"])]
    if len(twice):
        arm, seed = twice.iloc[0][["arm", "seed"]]
        raise ValueError(
            f"two results of {arm} with seed {seed}: accepted are those of one data set, "
            "backbone and recipe"
        )
    by_seed = results.pivot_table(index="seed", columns="arm", values=metric, dropna=False)
    return by_seed[list(dict.fromkeys(results["arm"]))]


def _compare_pairs(arm, pairs, margin):
    """A row of `compare` but for what depends on the other rows; pairs is (n, 2), arm first."""
    n = len(pairs)
    row = {"arm": arm, "n": n}
    if n == 0:
        return row
    differences = pairs[:, 0] - pairs[:, 1]
    row["mean"], row["difference"] = pairs[:, 0].mean(), differences.mean()
    row["superiority"] = (np.sign(differences).mean() + 1) / 2
    if n == 1:
        return row
    row["p"] = _sign_flip_p(differences)
    if all(_varies(values, values) for values in pairs.T):
        row["correlation"] = np.corrcoef(pairs.T)[0, 1]
    if not _varies(differences, pairs):
        return row
    row["low"], row["high"] = _t_interval(differences, CONFIDENCE)
    row["low_bca"], row["high_bca"] = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    row["p_equivalence"] = DescrStatsW(differences).ttost_mean(-margin, margin)[0]
    # TOST at 5% rejects where the 90% interval lies within the margin.
    row["equivalent_within"] = np.abs(_t_interval(differences, 1 - 2 * LEVEL)).max()
    spread = differences.std(ddof=1)
    row["detectable"] = detectable_effect(n) * spread
    for difference in DIFFERENCES:
        row[f"seeds_{difference}"] = needed_pairs(difference / spread)
    return row


def _sign_flip_p(differences):
    # Flips that give equal sums must tie. Their sums differ by rounding, so this is rounded away.
    largest = np.abs(differences).max()
    return stats.permutation_test(
        (differences / largest if largest else differences,),
        lambda flipped, axis: np.round(flipped.sum(axis), 9),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    ).pvalue


def _t_interval(sample, confidence):
    scale = sample.std(ddof=1) / math.sqrt(len(sample))
    return stats.t.interval(confidence, len(sample) - 1, loc=sample.mean(), scale=scale)


def _varies(sample, values):
    """Whether a sample computed from values has a spread that is more than their rounding."""
    return len(sample) > 1 and np.ptp(sample) > 1e-9 * np.abs(values).max()
