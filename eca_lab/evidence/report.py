"""Comparisons of recorded trials in words and tables. Needs no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from eca_lab.attention.spec import parse_spec
from eca_lab.evidence import metrics, results, stats
from eca_lab.evidence.power import DIFFERENCES, LEVEL, POWER
from eca_lab.evidence.printing import print_setting, print_table
from eca_lab.evidence.stats import Comparison
from eca_lab.evidence.studies import Setting, Study


def print_comparisons(
    table: pd.DataFrame,
    baseline: str,
    family: Sequence[str] | None = None,
    *,
    metric: str = "top1",
    arm: str = "arm",
    **options: Any,
) -> int:
    """Every arm of the family, or all, against the baseline, setting by setting.

    The options are those of `eca_lab.evidence.stats.compare`. Gives how many settings were
    compared: one without the baseline, or a pair, is skipped, saying why. TypeError, ValueError:
    what could be compared nowhere.
    """
    known = {name: options.get(name) for name in ("margin", "higher_is_better")}
    metrics.resolve_metric(metric, **known)
    is_ours = arm == "arm" and results.is_recorded(table)
    compared = 0
    settings = results.settings(table, arm=arm)
    for trials in settings:
        there = set(trials[arm].map(str))
        chosen = family and [each for each in family if each in there]
        skipped = None
        try:
            comparison = stats.compare(trials, baseline, chosen, metric=metric, arm=arm, **options)
            if comparison.table.empty and not is_ours:
                raise ValueError(f"no arm beside {baseline}: accepted is one or more")
        except ValueError as error:
            if len(settings) == 1 and not is_ours:
                raise
            skipped = error
        if is_ours:
            print_setting(trials)
        else:
            _print_setting_of_others(trials, arm)
        if skipped:
            print(f"Skipped: {skipped}.")
            continue
        compared += 1
        if not is_ours or comparison.paired_by is None:
            print("\n".join(about_runs(comparison)))
        print(f"{_heading(comparison)}\n")
        columns = _COLUMNS if comparison.paired_by else _UNPAIRED_COLUMNS
        told = _with_digits_of_p(comparison.table[columns].reset_index(names=arm))
        if not is_ours:  # whose tables are printed as they were when they were recorded
            told = told.replace("0.000", "<0.001")
        print_table(told, _form(comparison.unit))
        for note in notes(comparison):
            print(note)
        if missing := [each for each in family or () if each not in there]:
            print(f"No trials yet: {', '.join(missing)}.")
    return compared


_COLUMNS = [
    "n", "difference", "low", "high", "p_holm", "p_equivalence", "p_equivalence_holm", "detectable",
    "verdict",
]  # fmt: skip
_UNPAIRED_COLUMNS = ["n", "n_baseline", *_COLUMNS[1:]]


def _print_setting_of_others(trials: pd.DataFrame, arm: str) -> None:
    """What runs of others share of a setting, where they tell."""
    print()
    first = trials.drop(columns=arm).iloc[0]
    if shared := [f"{name} {first[name]}" for name in results.SETTING if name in first]:
        print(", ".join(shared))


def about_runs(comparison: Comparison) -> list[str]:
    """How runs of others were compared, and which of them were not: a sentence each."""
    metric, baseline, seed = comparison.metric, comparison.baseline, comparison.paired_by
    if seed is None:
        tests = "intervals and p are by Welch's t-test, of independent runs"
        told = [f"Not paired, {comparison.why_unpaired}: {tests}."]
    else:
        told = [f"Paired by column {seed}: intervals are by Student's t, p by sign flips."]
    if comparison.scale == "fractions":
        points = "0.01 is 1 point, and the margin is in points"
        told.append(f"{metric} was given in fractions: {points}.")
    is_there = comparison.trials[metric].notna()
    there, missing = comparison.trials[is_there], comparison.trials.loc[~is_there, "arm"]
    if len(missing):
        counts = ", ".join(f"{n} of {arm}" for arm, n in missing.value_counts(sort=False).items())
        told.append(f"Left out, since they have no {metric}: {counts}.")
    if seed is not None:
        seeds = {arm: set(of) for arm, of in there.groupby("arm", sort=False)["seed"]}
        mine = seeds.pop(baseline, set())
        alone = {arm: (len(of - mine), len(mine - of)) for arm, of in seeds.items() if of != mine}
        counts = "; ".join(f"{n} of {arm}, {m} of {baseline}" for arm, (n, m) in alone.items())
        if counts:
            told.append(f"Left out, since the other has no such {seed}: {counts}.")
    if comparison.least_p >= LEVEL:
        least = f"by Holm the least p is {comparison.least_p:.2g}"
        told.append(f"Caution, so few pairs can tell no arms apart: {least}.")
    if "State" in there:  # as a table of W&B tells
        states = there.loc[there["State"] != "finished", "State"].value_counts(sort=False)
        if len(states):
            counts = ", ".join(f"{n} {state}" for state, n in states.items())
            told.append(f"Caution, runs that have not finished are counted: {counts}.")
    return told


def _heading(comparison: Comparison) -> str:
    """What the columns of a table of `print_comparisons` are, in a sentence."""
    what = f"{comparison.words} minus that of {comparison.baseline}"
    way = "higher is better" if comparison.higher_is_better else "lower is better"
    margin = _with_unit(f"{comparison.margin:g}", comparison.unit)
    rule = "by Holm as well" if comparison.adjust_equivalence else "as declared, not adjusted"
    return (
        f"{' in '.join(filter(None, (what, comparison.unit)))}; {way}; 95% intervals; p by Holm "
        f"over {comparison.table['p'].count()} comparisons; equivalence within {margin}, {rule}; "
        "detectable with 80% power"
    )


def _with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}" if unit else number


def _form(unit: str) -> str:
    """How numbers are written: points with two digits, what is of any size with four that count."""
    return "{:.2f}" if unit == "points" else "{:.4g}"


def _with_digits_of_p(table: pd.DataFrame) -> pd.DataFrame:
    p = [name for name in table if name == "p" or name.startswith("p_")]
    return table.assign(
        **{name: table[name].map("{:.3f}".format, na_action="ignore") for name in p}
    )


def print_study(study: Study) -> int:
    """Every setting of a declared study: its family, its contrasts, and its slope.

    Gives how many settings were compared; LookupError without any finished trial in its folder.
    """
    table, compared = results.finished(study.results), 0
    print(f"{study.name}: {study.question}")
    for setting in study.settings.values():
        trials = setting.trials(table)
        if trials.empty:
            command = f"sweep --study {study.name} --setting {setting.name}"
            print(f"\n{setting.name}: no trials yet. python -m eca_lab {command}")
            continue
        # On another data set, such as a reader's own, the same arms are another comparison.
        for alike in results.settings(trials):
            if study.families:
                print_setting(alike)
                print_families(study, setting, alike)
                compared += 1
                continue
            compared += print_comparisons(
                alike,
                study.baseline,
                setting.family,
                margin=study.margin,
                adjust_equivalence=study.adjust_equivalence,
            )
            if alike.groupby("arm")["seed"].nunique().min() < setting.seeds:
                print(f"A look on the way: {setting.seeds} seeds are declared.")
            try:
                if study.primary:
                    print(primary_contrast(study, setting, alike))
                if slope := study.slope:
                    found = stats.trend(alike, slope.over)
                    kind = "Primary contrast" if slope.primary else "Contrast beside them"
                    print(f"{kind}: {found['estimate']:+.3f} points per {slope.per} {_told(found)}")
            except ValueError as error:  # not all of its arms have run
                print(f"No contrast beside the family: {error}.")
    return compared


def print_families(study: Study, setting: Setting, trials: pd.DataFrame) -> None:
    """The families of contrasts of a study in one of its settings, a table each.

    There is no verdict before the seeds that were declared.
    """
    for family in study.families:
        test = "Student's t" if family.test == "t" else family.test
        print(
            f"\n{family.name}: {len(family.contrasts)} contrasts, top-1 in points; 95% intervals; "
            f"p by {test}; p and p of equivalence within the margin by Holm over them; detectable "
            "with 80% power\n"
        )
        try:
            table = stats.contrasts(trials, family)
        except ValueError as error:  # not all of its arms have run
            print(f"Not yet: {error}.")
            continue
        early = table["n"].min() < setting.seeds
        if early:
            table["verdict"] = "not yet"
        print_table(_with_digits_of_p(table[_CONTRAST_COLUMNS].reset_index()), "{:.3f}")
        for one in family.contrasts:
            per = f", per {one.per}" if one.per else ""
            print(f"  {one.name}: {one.words}{per}")
        if left_out := int(table["left_out"].max()):
            print(
                f"Left out of some: up to {left_out} seeds that were not all computed in one way."
            )
        if early:
            print(f"A look on the way: {setting.seeds} seeds are declared, and no verdict before.")


_CONTRAST_COLUMNS = [
    "n", "estimate", "low", "high", "p_holm", "margin", "p_equivalence_holm", "detectable",
    "verdict",
]  # fmt: skip


def primary_contrast(study: Study, setting: Setting, trials: pd.DataFrame) -> str:
    """The primary contrast of a study in one of its settings, in a sentence; ValueError without
    a pair. There is no verdict before the seeds that were declared.
    """
    first = stats.compare(trials, study.primary, [study.baseline], margin=study.margin)
    row = first.table.loc[study.baseline]
    verdict = f"{study.baseline} is {row['verdict']}"
    if row["verdict"] == "undecided":
        verdict = "undecided, with neither a difference shown nor equivalence"
    if row["n"] < setting.seeds:
        verdict = f"no verdict before the {setting.seeds} seeds that were declared"
    return (
        f"Primary contrast, not adjusted: {study.baseline} minus {study.primary} "
        f"{row['difference']:+.3f} points {_told(row)}; p of equivalence within "
        f"{study.margin:g} points {row['p_equivalence']:.2f}: {verdict}"
    )


def _told(found: Mapping[str, Any]) -> str:
    interval = f"{found['low']:+.3f} to {found['high']:+.3f}"
    detectable = f"a t-test has 80% power for {found['detectable']:.3f}"
    return f"({interval}, p {found['p']:.2f}, n = {found['n']}, {detectable})"


# What `conclusions` says: sentences that are filled with `facts`, here and in the page of a study.
SENTENCES = {
    "fixed": "Fixed k against {baseline}, in points: {verdicts}{slope}.",
    "others": "Other arms against {baseline}, in points: {verdicts}.",
    "no_spread": "With n = {n} seeds no spread could be measured.",
    "power": (
        "With n = {n} seeds {blind}a t-test would have found a true difference of {detectable} "
        f"points, depending on the arm, with {POWER:.0%} probability (before adjustment), and "
        f"{DIFFERENCES[1]} points would take it {{seeds}} seeds; equivalence within the margin of "
        "{margin} points is shown for {equivalent} of {known} arms ({adjusted}), and the closest, "
        "{closest}, would need a margin of {within}."
    ),
    "left_out": (
        "Left out, since {baseline} ran these seeds on another device, at another precision or by "
        "another path: {seeds}."
    ),
}


def conclusions(comparison: Comparison) -> list[str]:
    """What an `eca_lab.evidence.stats.Comparison` allows to say, as a list of sentences.

    They are on the arms that fix k, on the other arms, on what this number of seeds could have
    found or shown to be equal, and the `notes`. ValueError as `facts`.
    """
    return [SENTENCES[name].format(**fields) for name, fields in facts(comparison).items()]


def facts(comparison: Comparison) -> dict[str, dict[str, str]]:
    """What the `conclusions` are filled with: name of one of SENTENCES -> its fields, in order.

    Of them verdicts, margin and equivalent follow from the margin. ValueError for a metric that is
    not in percent: the sentences speak of points, and round as suits them. ValueError for runs that
    are not paired: they speak of seeds.
    """
    if comparison.paired_by is None:
        told = "print_comparisons tells others in a table"
        raise ValueError(f"not paired, {comparison.why_unpaired}: accepted are pairs; {told}")
    if comparison.unit != "points":
        accepted = "accepted are metrics in percent; print_comparisons tells the others in a table"
        raise ValueError(f"metric={comparison.metric!r}: {accepted}")
    sizes = _fixed_kernel_sizes(comparison)
    is_fixed = comparison.table.index.isin(sizes)
    baseline = comparison.baseline
    fixed, others = (_verdicts(comparison.table[chosen]) for chosen in (is_fixed, ~is_fixed))
    return {
        "fixed": {"baseline": baseline, "verdicts": fixed, "slope": _slope(comparison, sizes)},
        "others": {"baseline": baseline, "verdicts": others},
        **_power(comparison),
        **_left_out(comparison),
    }


def _fixed_kernel_sizes(comparison: Comparison) -> dict[str, int]:
    sizes = {arm: parse_spec(arm).fixed_kernel_size for arm in comparison.trials["arm"].unique()}
    return {arm: k for arm, k in sizes.items() if k is not None}


def _slope(comparison: Comparison, sizes: Mapping[str, int]) -> str:
    """The slope over the fixed kernel sizes, "" where there is none to tell."""
    try:
        slope = stats.trend(comparison.trials, sizes, metric=comparison.metric)
    except ValueError:  # fewer than two of them, or no seed that has all
        return ""
    if math.isnan(slope["low"]):
        return ""
    k = slope["values"]
    return (
        f"; from k = {k[0]} to {k[-1]} the slope is {slope['estimate']:+.3f} points per "
        f"unit of k ({slope['low']:+.3f} to {slope['high']:+.3f})"
    )


def notes(comparison: Comparison) -> list[str]:
    """A sentence on the seeds that were left out; empty if none were."""
    found = _left_out(comparison)
    return [SENTENCES[name].format(**fields) for name, fields in found.items()]


def _left_out(comparison: Comparison) -> dict[str, dict[str, str]]:
    seeds = ", ".join(f"{n} of {arm}" for arm, n in comparison.left_out.items() if n)
    return {"left_out": {"baseline": comparison.baseline, "seeds": seeds}} if seeds else {}


def _verdicts(table: pd.DataFrame) -> str:
    """Which arms are better, worse, equivalent and undecided."""
    parts = []
    for verdict in ("better", "worse", "equivalent", "undecided"):
        chosen = table.loc[table["verdict"] == verdict, "difference"]
        if len(chosen):
            arms = ", ".join(f"{arm} ({each:+.2f})" for arm, each in chosen.items())
            parts.append(f"{verdict} {arms}")
    return "; ".join(parts) or "none"


def _power(comparison: Comparison) -> dict[str, dict[str, str]]:
    n = _range(comparison.table["n"], "{:.0f}")
    known = comparison.table.dropna(subset="detectable")
    if known.empty:
        return {"no_spread": {"n": n}}
    closest = known["equivalent_within"].idxmin()
    decisive = "p_equivalence_holm" if comparison.adjust_equivalence else "p_equivalence"
    least = comparison.least_p
    blind = "" if least < LEVEL else f"no arm can be told apart (least p {least:.2f} by Holm); "
    fields = {
        "n": n,
        "blind": blind,
        "detectable": _range(known["detectable"], "{:.2f}"),
        "seeds": _range(known[f"seeds_{DIFFERENCES[1]}"], "{:,.0f}"),
        "margin": f"{comparison.margin:g}",
        "equivalent": str((known[decisive] < LEVEL).sum()),
        "known": str(len(known)),
        "adjusted": "by Holm" if comparison.adjust_equivalence else "not adjusted",
        "closest": closest,
        "within": f"{known.loc[closest, 'equivalent_within']:.2f}",
    }
    return {"power": fields}


def _range(values: pd.Series, form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"
