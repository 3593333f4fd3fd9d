"""Recorded trials in words and tables. Needs no torch; what compares needs SciPy."""

import math
from collections import Counter

from eca_lab import results
from eca_lab.spec import parse_spec


def print_results(table):
    """Mean, standard deviation and n of every arm, setting by setting."""
    for _, trials in table.groupby(list(results.SETTING), sort=False):
        _print_setting(trials)
        summary = results.summarize(trials).droplevel(list(results.SETTING)).reset_index()
        summary = summary.rename(columns={"mean": "top-1 %", "sd": "sd (points)"})
        _print_table(summary[["arm", "parameters", "top-1 %", "sd (points)", "n"]])


def finished(folder):
    """The finished trials in a folder, as `eca_lab.results.load_results` gives them.

    LookupError without any, telling how many failed, and why; FileNotFoundError: no such folder.
    """
    records = results.load_records(folder).values()
    table = results.as_results(records)
    if table.empty:
        reasons = Counter(each["reason"] for each in records if each["status"] == "failed")
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        failed = f", and {reasons.total()} failed: {why}" if reasons else ""
        raise LookupError(f"no finished trials in {folder}{failed}")
    return table


def print_comparisons(table, baseline, family, metric, margin):
    """Every arm of the family, or all, against the baseline, setting by setting.

    A setting without the baseline, or without a pair, is named with the reason and skipped. Gives
    how many were compared.
    """
    from eca_lab import stats

    compared = 0
    for _, trials in table.groupby(list(results.SETTING), sort=False):
        _print_setting(trials)
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
        _print_table(comparison.table[_COLUMNS].reset_index())
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
    from eca_lab import stats

    table, compared = finished(study.results), 0
    print(f"{study.name}: {study.question}")
    for setting in study.settings.values():
        trials = setting.trials(table)
        if trials.empty:
            command = f"sweep --study {study.name} --setting {setting.name}"
            print(f"\n{setting.name}: no trials yet. python -m eca_lab {command}")
            continue
        compared += print_comparisons(trials, study.baseline, setting.family, "top1", study.margin)
        if study.primary:
            try:
                print(primary_contrast(study, trials))
            except ValueError as error:  # one of the two has not run
                print(f"No primary contrast: {error}.")
                continue
        if slope := study.slope:
            try:
                found = stats.trend(trials, slope.over)
            except ValueError as error:  # not all of its arms have run
                print(f"No contrast: {error}.")
                continue
            kind = "Primary contrast" if slope.primary else "Contrast beside them"
            print(f"{kind}: {found['slope']:+.3f} points per {slope.per} {_told(found)}")
    return compared


def primary_contrast(study, trials):
    """The primary contrast of a declared study, in a sentence; ValueError without a pair."""
    from eca_lab import stats

    first = stats.compare(trials, study.primary, [study.baseline], "top1", study.margin)
    row = first.table.loc[study.baseline]
    return (
        f"Primary contrast, not adjusted: {study.baseline} minus {study.primary} "
        f"{row['difference']:+.3f} points {_told(row)}: {row['verdict']}, p of equivalence within "
        f"{study.margin:g} points {row['p_equivalence']:.2f}"
    )


def _told(found):
    interval = f"{found['low']:+.3f} to {found['high']:+.3f}"
    detectable = f"80% power for {found['detectable']:.3f}"
    return f"({interval}, p {found['p']:.2f}, n = {found['n']}, {detectable})"


def conclusions(comparison):
    """What an `eca_lab.stats.Comparison` allows to say, as a list of sentences.

    They are on the arms that fix k, on the other arms, on what this number of seeds could have
    found or shown to be equal, and the `notes`.
    """
    table, slope = comparison.table, comparison.slope
    is_fixed = table.index.map(lambda arm: parse_spec(arm).fixed_kernel_size is not None)
    fixed = _verdicts("Fixed k", comparison.baseline, table[is_fixed])
    if slope is not None and not math.isnan(slope["low"]):
        sizes = slope["values"]
        fixed += (
            f"; from k = {sizes[0]} to {sizes[-1]} the slope is {slope['slope']:+.3f} points per "
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
    words = {"equivalent": "as good", "undecided": "not told apart"}
    parts = []
    for verdict in ("better", "worse", "equivalent", "undecided"):
        chosen = table.loc[table["verdict"] == verdict, "difference"]
        if len(chosen):
            arms = ", ".join(f"{arm} ({each:+.2f})" for arm, each in chosen.items())
            parts.append(f"{words.get(verdict, verdict)} {arms}")
    return f"{subject} against {baseline}, in points: {'; '.join(parts) or 'none'}"


def _power(comparison):
    from eca_lab.stats import DIFFERENCES, LEVEL, POWER

    known = comparison.table.dropna(subset="detectable")
    seeds = f"With n = {_range(comparison.table['n'], '{:.0f}')} seeds"
    if known.empty:
        return f"{seeds} no spread could be measured"
    closest, wanted = known["equivalent_within"].idxmin(), DIFFERENCES[1]
    equal = (known["p_equivalence"] < LEVEL).sum()
    return (
        f"{seeds} a true difference of {_range(known['detectable'], '{:.2f}')} points, depending "
        f"on the arm, would have been found with {POWER:.0%} probability (before adjustment), and "
        f"{wanted} points would take {_range(known[f'seeds_{wanted}'], '{:,.0f}')} seeds; equality "
        f"within the margin of {comparison.margin:g} points is shown for {equal} of {len(known)} "
        f"arms, the closest being {closest}, equal within "
        f"{known.loc[closest, 'equivalent_within']:.2f}"
    )


def _range(values, form):
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def _print_setting(trials):
    first = trials.iloc[0]
    print(
        f"\n{first['dataset']}, {first['train']:,} training images of {first['size']} x "
        f"{first['size']} pixels; {first['backbone']}; {first['recipe']}"
    )
    for name in (*results.RUN, "torch"):
        if len(different := trials[name].unique()) > 1:
            print(f"Caution, more than one {name}: {'; '.join(different)}")


def _print_table(table):
    print(table.to_string(index=False, float_format="{:.2f}".format, na_rep="-"))
