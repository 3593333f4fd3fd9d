"""Tables of recorded trials, printed. Without SciPy, which takes longer to import than to print."""

import pandas as pd

from eca_lab.evidence import results


def print_results(table: pd.DataFrame) -> None:
    """Mean, standard deviation and n of every arm, setting by setting."""
    for trials in results.settings(table):
        print_setting(trials)
        summary = results.summarize(trials).droplevel(list(results.SETTING)).reset_index()
        summary = summary.rename(columns={"mean": "top-1 %", "sd": "sd (points)"})
        print_table(summary[["arm", "parameters", "top-1 %", "sd (points)", "n"]])


def print_setting(trials: pd.DataFrame) -> None:
    """What the trials of one setting share, and a caution where they were not computed alike."""
    first = trials.iloc[0]
    print(
        f"\n{first['dataset']}, {first['train']:,} training images of {first['size']} x "
        f"{first['size']} pixels; {first['backbone']}; {first['recipe']}"
    )
    for name in (*results.RUN, "torch"):
        if len(different := trials[name].unique()) > 1:
            print(f"Caution, more than one {name}: {'; '.join(different)}")


def print_table(table: pd.DataFrame, form: str = "{:.2f}") -> None:
    """A table without its index, its numbers in that form, and "-" for those that are missing."""
    print(table.to_string(index=False, float_format=form.format, na_rep="-"))
