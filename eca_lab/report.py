"""Comparisons of recorded trials in words and tables. Needs no torch."""

import math
from contextlib import suppress

from eca_lab import results, stats
from eca_lab.spec import parse_spec
from eca_lab.stats import DIFFERENCES, LEVEL, POWER


def print_comparisons(table, baseline, family, metric, margin):
    """Every arm of the family, or all, against the baseline, setting by setting.

    Gives how many were compared: one without the baseline, or a pair, is skipped, saying why.
    """
    compared = 0
    for _, trials in table.groupby(list(results.SETTING), sort=False):
        results.print_setting(trials)
        there = set(trials["arm"])
        chosen = family and [arm for arm in family if arm in there]
        try:
            comparison = stats.compare(trials, baseline, chosen, metric, margin)
        except ValueError as error:
            print(f"Skipped: {error}.")
            continue
        compared += 1
        print(
            f"Minus {baseline}, in points of {metric}; 95% intervals; p by Holm over "
            f"{comparison.table['p'].count()} comparisons; p of equivalence within {margin:g}; "
            "detectable with 80% power\n"
        )
        told = comparison.table[_COLUMNS].reset_index()
        for p in ("p_holm", "p_equivalence"):
            told[p] = told[p].map("{:.3f}".format, na_action="ignore")
        results.print_table(told)
        for note in notes(comparison):
            print(note)
        if missing := [arm for arm in family or () if arm not in there]:
            print(f"No trials yet: {', '.join(missing)}.")
    return compared


_COLUMNS = ["n", "difference", "low", "high", "p_holm", "p_equivalence", "detectable", "verdict"]


def print_study(study):
    """Every setting of a declared study: its family, its primary contrast, and its slope.

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
        for _, alike in trials.groupby(list(results.SETTING), sort=False):
            family = study.baseline, setting.family, "top1", study.margin
            compared += print_comparisons(alike, *family)
            if alike.groupby("arm")["seed"].nunique().min() < setting.seeds:
                print(f"A look on the way: {setting.seeds} seeds are declared.")
            try:
                if study.primary:
                    print(primary_contrast(study, setting, alike))
                if slope := study.slope:
                    found = stats.trend(alike, slope.over)
                    kind = "Primary contrast" if slope.primary else "Contrast beside them"
                    print(f"{kind}: {found['slope']:+.3f} points per {slope.per} {_told(found)}")
            except ValueError as error:  # not all of its arms have run
                print(f"No contrast beside the family: {error}.")
    return compared


def primary_contrast(study, setting, trials):
    """The primary contrast of a study in one of its settings, in a sentence; ValueError without
    a pair. There is no verdict before the seeds that were declared.
    """
    first = stats.compare(trials, study.primary, [study.baseline], "top1", study.margin)
    row = first.table.loc[study.baseline]
    verdict = f"{study.baseline} is {_WORDS.get(row['verdict'], row['verdict'])}"
    if row["verdict"] == "undecided":
        verdict = "undecided, with neither a difference shown nor equality"
    if row["n"] < setting.seeds:
        verdict = f"no verdict before the {setting.seeds} seeds that were declared"
    return (
        f"Primary contrast, not adjusted: {study.baseline} minus {study.primary} "
        f"{row['difference']:+.3f} points {_told(row)}; p of equivalence within "
        f"{study.margin:g} points {row['p_equivalence']:.2f}: {verdict}"
    )


_WORDS = {"equivalent": "as good", "undecided": "not told apart"}


def _told(found):
    interval = f"{found['low']:+.3f} to {found['high']:+.3f}"
    detectable = f"a t-test has 80% power for {found['detectable']:.3f}"
    return f"({interval}, p {found['p']:.2f}, n = {found['n']}, {detectable})"


def conclusions(comparison):
    """What an `eca_lab.stats.Comparison` allows to say, as a list of sentences.

    They are on the arms that fix k, on the other arms, on what this number of seeds could have
    found or shown to be equal, and the `notes`.
    """
    table, trials = comparison.table, comparison.trials
    sizes = {arm: parse_spec(arm).fixed_kernel_size for arm in trials["arm"].unique()}
    over = {arm: k for arm, k in sizes.items() if k is not None}
    is_fixed = table.index.isin(over)
    fixed = _verdicts("Fixed k", comparison.baseline, table[is_fixed])
    with suppress(ValueError):  # fewer than two of them, or no seed that has all
        slope = stats.trend(trials, over, comparison.metric)
        if not math.isnan(slope["low"]):
            k = slope["values"]
            fixed += (
                f"; from k = {k[0]} to {k[-1]} the slope is {slope['slope']:+.3f} points per "
                f"unit of k ({slope['low']:+.3f} to {slope['high']:+.3f})"
            )
    others = _verdicts("Other arms", comparison.baseline, table[~is_fixed])
    return [f"{each}." for each in (fixed, others, _power(comparison))] + notes(comparison)


def notes(comparison):
    """A sentence on the seeds that were left out; empty if none were."""
    if not (arms := {arm: n for arm, n in comparison.left_out.items() if n}):
        return []
    listed = ", ".join(f"{n} of {arm}" for arm, n in arms.items())
    return [
        f"Left out, since {comparison.baseline} ran these seeds on another device, at another "
        f"precision or by another path: {listed}."
    ]


def _verdicts(subject, baseline, table):
    """Which arms are better, worse, equivalent and undecided."""
    parts = []
    for verdict in ("better", "worse", "equivalent", "undecided"):
        chosen = table.loc[table["verdict"] == verdict, "difference"]
        if len(chosen):
            arms = ", ".join(f"{arm} ({each:+.2f})" for arm, each in chosen.items())
            parts.append(f"{_WORDS.get(verdict, verdict)} {arms}")
    return f"{subject} against {baseline}, in points: {'; '.join(parts) or 'none'}"


def _power(comparison):
    known = comparison.table.dropna(subset="detectable")
    seeds = f"With n = {_range(comparison.table['n'], '{:.0f}')} seeds"
    if known.empty:
        return f"{seeds} no spread could be measured"
    closest, wanted = known["equivalent_within"].idxmin(), DIFFERENCES[1]
    equal, least = (known["p_equivalence"] < LEVEL).sum(), comparison.least_p
    blind = "" if least < LEVEL else f"no arm can be told apart (least p {least:.2f} by Holm); "
    return (
        f"{seeds} {blind}a t-test would have found a true difference of "
        f"{_range(known['detectable'], '{:.2f}')} points, depending on the arm, with {POWER:.0%} "
        f"probability (before adjustment), and {wanted} points would take it "
        f"{_range(known[f'seeds_{wanted}'], '{:,.0f}')} seeds; equality within the margin of "
        f"{comparison.margin:g} points is shown for {equal} of {len(known)} arms (not adjusted), "
        f"and the closest, {closest}, would need a margin of "
        f"{known.loc[closest, 'equivalent_within']:.2f}"
    )


def _range(values, form):
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"
