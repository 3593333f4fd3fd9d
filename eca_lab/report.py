"""What the command line prints of recorded trials. Needs no torch; what compares needs SciPy."""

from collections import Counter

from eca_lab import results, studies


def print_results(table):
    """Mean, standard deviation and n of every arm, setting by setting."""
    for _, trials in table.groupby(list(results.SETTING), sort=False):
        _print_setting(trials)
        summary = results.summarize(trials).droplevel(list(results.SETTING)).reset_index()
        summary = summary.rename(columns={"mean": "top-1 %", "sd": "sd (points)"})
        _print_table(summary[["arm", "parameters", "top-1 %", "sd (points)", "n"]])


def finished(folder):
    """The finished trials in a folder, as `eca_lab.results.load_results` gives them.

    Raises:
        FileNotFoundError: no such folder.
        LookupError: no finished trial. The message says how many failed, and why.
    """
    records = results.load_records(folder).values()
    table = results.as_results(each for each in records if each["status"] == "finished")
    if table.empty:
        reasons = Counter(each["reason"] for each in records if each["status"] == "failed")
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        failed = f", and {reasons.total()} failed: {why}" if reasons else ""
        raise LookupError(f"no finished trials in {folder}{failed}")
    return table


def print_comparisons(table, baseline, family, metric, margin):
    """Every arm of the family, or all, against the baseline, setting by setting.

    A setting without the baseline, or without a pair, is named with the reason and skipped.

    Returns:
        how many settings were compared.
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
        print_comparison(comparison)
        if missing := [arm for arm in family or () if arm not in there]:
            print(f"No trials yet: {', '.join(missing)}.")
    return compared


def print_comparison(comparison):
    """The table of a comparison, and what was left out."""
    print(
        f"Minus {comparison.baseline}, in points of {comparison.metric}; 95% intervals; p by Holm "
        f"over {comparison.table['p'].count()} comparisons; p of equivalence within "
        f"{comparison.margin:g}; detectable with 80% power\n"
    )
    columns = ["n", "difference", "low", "high", "p_holm", "p_equivalence", "detectable", "verdict"]
    _print_table(comparison.table[columns].reset_index())
    for note in comparison.notes():
        print(note)


def print_study(study):
    """Every setting of a declared study: its family, its slope, and what can be concluded.

    Returns:
        how many settings have trials.

    Raises:
        LookupError: no finished trial in its folder.
    """
    from eca_lab import stats

    table, found = finished(study.results), 0
    print(f"{study.name}: {study.question}")
    for setting in study.settings.values():
        trials = setting.trials(table)
        if trials.empty:
            print(f"\n{setting.name}: no trials yet. {studies.command(study, setting)}")
            continue
        found += print_comparisons(trials, study.baseline, setting.family, "top1", study.margin) > 0
        if study.slope is not None:
            print_slope(stats.trend(trials, study.slope.over), study.slope)
    return found


def print_slope(found, slope):
    """The contrast of a study, and whether it is the one that is not adjusted."""
    print(
        f"{'Primary contrast' if slope.primary else 'Contrast beside them'}: "
        f"{found['slope']:+.3f} points per {slope.per} ({found['low']:+.3f} to "
        f"{found['high']:+.3f}, p {found['p']:.2f}, n = {found['n']}); 80% power for "
        f"{found['detectable']:.3f}"
    )


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
