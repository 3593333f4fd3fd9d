"""Tables of runs, this lab's and anybody's: read, and checked before anything is computed."""

from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from eca_lab.checks import shown
from eca_lab.evidence.results import RUN, SETTING, is_recorded, read_results

_MISSING = ("", "nan", "none", "null", "n/a", "na")  # in a column of numbers
_RUNS = "needed are columns of arm, seed and metric, a row a run"


def read_table(path: str | PathLike[str]) -> pd.DataFrame:
    """The trials in a folder of results, or the runs in a CSV file of anybody.

    A CSV of `python -m eca_lab results --csv` is read as `read_results` does. Of any other all
    cells are text, as they stand there: `checked` reads the numbers.

    LookupError without any run; FileNotFoundError; ValueError for what is no table of runs, such as
    the export of a chart of W&B.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder of results, and no such file")
    if not path.is_file():
        return read_results(path)
    try:
        # The header is read as a row, so that one that is shorter than the others is refused.
        rows = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        ).map(str.strip, na_action="ignore")
    except ValueError as error:  # pandas' own and those of decoding are ValueErrors
        raise ValueError(f"{path}: no table of runs as CSV: {str(error).strip()}") from None
    table = rows[1:].set_axis(rows.iloc[0].tolist(), axis="columns").reset_index(drop=True)
    if is_recorded(table):
        return read_results(path)
    if any(str(name).endswith("__MIN") for name in table):
        wanted = "wanted is that of the table of runs, with a row a run and its config in columns"
        raise ValueError(f"{path} is the export of a chart, with a row a step: {wanted}")
    if table.empty:
        raise LookupError(f"no runs in {path}")
    return table


def checked(
    results: pd.DataFrame, metric: str, *, arm: str = "arm", seed: str | None = "seed"
) -> pd.DataFrame:
    """Runs with columns of known names, and of one kind each.

    Gives the table with columns arm, text; seed, numbers if all of them are, else text, unless
    there are none; the metric, float, NaN where it is missing; those of RUN, text; all others as
    they are. Where the arms stand in a column of another name, the table is not of this lab's
    making, and what happens to be called as one of RUN is left out.

    Args:
        results: a row a run.
        metric: the column of the metric. It may have percent signs, in every row.
        arm: the column of the arms.
        seed: the column of the seeds; None, or "seed" where there is no such column, for none.

    Raises:
        TypeError, ValueError: what is no such table, and which columns there are.
    """
    if not isinstance(results, pd.DataFrame):
        kind = type(results).__name__
        raise TypeError(f"results of type {kind}: accepted is a DataFrame or a path; {_RUNS}")
    if seed == "seed" and seed not in results:
        seed = None
    names = {"arm": arm} if seed is None else {"arm": arm, "seed": seed}
    _check_columns(results, metric, names)
    values = _metric(results, metric, other=(*names, *names.values(), *SETTING))
    blank = {
        name: results[column].isna() | results[column].eq("") for name, column in names.items()
    }
    for name, where in blank.items():
        if count := (where & values.notna()).sum():
            ways = "; seed=None (--unpaired) does without" if name == "seed" else ""
            accepted = f"accepted is one in every row{ways}"
            raise ValueError(f"a trial without {names[name]}, {count} in all: {accepted}")
    run = [name for name in RUN if name in results and name != metric]
    dropped = [name for name, column in names.items() if name != column and name in results]
    if arm != "arm":
        dropped += [name for name in run if name not in names.values()]
        run = []
    table = results.assign(**{metric: values})[~blank["arm"]].drop(columns=dropped)
    table = table.rename(columns={column: name for name, column in names.items()})
    texts = {name: table[name].astype(object).fillna("unknown").map(str) for name in run}
    seeds = {"seed": _seeds(table["seed"])} if "seed" in names else {}
    table = table.assign(arm=table["arm"].map(str), **seeds, **texts)
    infinite = np.isinf(table[metric].to_numpy())
    if infinite.any():
        row = table[infinite].iloc[0]
        which = f"{row['arm']} with {seed} {row['seed']}" if "seed" in names else row["arm"]
        accepted = "accepted are finite numbers, and NaN for a missing trial"
        raise ValueError(f"{metric}={row[metric]} of {which}: {accepted}")
    return table


def has_percent_signs(column: pd.Series) -> bool:
    """Whether a column has something, and all of it is written with a percent sign."""
    if column.dtype.kind in "iuf":
        return False
    text = _text(column)
    signed, missing = text.str.endswith("%"), text.str.lower().isin(_MISSING)
    return bool(signed.any() and (signed | missing).all())


def _check_columns(results: pd.DataFrame, metric: str, names: Mapping[str, str]) -> None:
    if missing := [column for column in names.values() if column not in results]:
        listed = ", ".join(map(str, results.columns))
        yours = f"{_RUNS}, and arm=, seed= (--arm, --seed) say what yours are called"
        raise ValueError(f"no column {' or '.join(missing)}: there are {listed}; {yours}")
    if len(set(names.values())) < len(names):
        raise ValueError(f"arm and seed are both {names['arm']}: accepted are two columns")
    for name in (*names.values(), metric, *SETTING, *RUN):
        if (results.columns == name).sum() > 1:
            raise ValueError(f"two columns called {name}: accepted is one")


def _metric(results: pd.DataFrame, metric: str, other: Collection[str]) -> pd.Series:
    """The numbers of a metric; ValueError, naming the columns that have numbers, without any."""
    why = ""
    if metric in results and metric not in other:
        try:
            values = _numbers(results[metric])
        except ValueError as error:
            why = f": {error}"
        else:
            if values.notna().any():
                return values
            why = f": none of {len(values)} runs has it"
    columns = ((name, column) for name, column in results.items() if name not in other)
    accepted = ", ".join(str(name) for name, column in columns if _has_numbers(column))
    raise ValueError(
        f"metric={shown(metric)}{why}: accepted are {accepted or 'columns of numbers'}"
    )


def _has_numbers(column: pd.Series) -> bool:
    try:
        return bool(_numbers(column).notna().any())
    except ValueError:
        return False


def _numbers(column: pd.Series) -> pd.Series:
    """A column as floats, NaN where it says nothing; ValueError, naming it, for another text."""
    if column.dtype.kind in "iuf":
        return column.astype(float)
    text = _text(column)
    missing = text.str.lower().isin(_MISSING)
    if has_percent_signs(column):
        text = text.str.removesuffix("%")
    numbers = pd.to_numeric(text.mask(missing), errors="coerce")
    wrong = text[numbers.isna() & ~missing]
    if len(wrong):
        signs = ", as not all are in percent" if wrong.iloc[0].endswith("%") else ""
        raise ValueError(f"{shown(wrong.iloc[0])} is no number{signs}")
    return numbers.astype(float)


def _text(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").map(lambda cell: str(cell).strip())


def _seeds(column: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column.map(str)
