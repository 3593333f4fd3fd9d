"""What is known of metrics by their names; percent and fractions told apart."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eca_lab.checks import check_choice, check_number, shown

if TYPE_CHECKING:  # the command line's help needs no pandas
    import pandas as pd

SCALES = ("percent", "fractions")


@dataclass(frozen=True)
class Metric:
    """What is known of a metric.

    words and unit are as they are written for readers, the unit that of a difference: "points" for
    what is given in percent or in fractions. margin is the usual one, None where there is none:
    then who compares has to say which difference is too small to matter.
    """

    words: str
    unit: str
    higher_is_better: bool
    margin: float | None = None


# The columns that trials of this lab have.
METRICS = {
    "top1": Metric("top-1", "points", higher_is_better=True, margin=0.2),
    "top5": Metric("top-5", "points", higher_is_better=True, margin=0.2),
    "loss": Metric("training loss", "", higher_is_better=False),
    "seconds": Metric("seconds of training", "s", higher_is_better=False),
    "images_per_second": Metric("images per second", "images/s", higher_is_better=True),
    "parameters": Metric("parameters", "", higher_is_better=False),
}

# What others call theirs, as `_plain_name` gives it. Each kind is (unit, higher_is_better, margin).
_KINDS = {
    ("points", True, 0.2): (
        "accuracy", "acc", "top1", "top5", "acc1", "acc5", "top1acc", "top5acc", "acctop1",
        "acctop5", "top1accuracy", "top5accuracy",
    ),
    ("points", False, 0.2): (
        "error", "err", "errorrate", "top1error", "top5error", "top1err", "top5err",
    ),
    ("points", True, None): (
        "f1", "auc", "auroc", "iou", "miou", "map", "dice", "recall", "precision",
    ),
    ("", False, None): ("loss", "perplexity", "ppl", "nll", "mse", "rmse", "mae"),
}  # fmt: skip
_USUAL = {name: kind for kind, names in _KINDS.items() for name in names}
# Parts of a name that tell of which images or of which epoch, and not of what.
_WHERE = {"train", "val", "valid", "validation", "test", "eval", "dev"}
_WHEN = {"best", "final", "last", "mean", "max", "min"}


def known_metric(name: str) -> Metric | None:
    """What is known of a column by its name, None where nothing is.

    >>> known_metric("val/acc@1").higher_is_better, known_metric("test_loss").higher_is_better
    (True, False)
    """
    if name in METRICS:
        return METRICS[name]
    kind = _USUAL.get(_plain_name(name))
    if kind is None:
        return None
    unit, higher_is_better, margin = kind
    return Metric(name, unit, higher_is_better, margin)


def resolve_metric(
    metric: str, *, margin: float | None = None, higher_is_better: bool | None = None
) -> tuple[float, bool]:
    """Margin and direction of a metric, the usual ones where they are None.

    TypeError, ValueError: what is not accepted, or not known of this metric and has to be said.
    """
    known = known_metric(metric)
    if higher_is_better is None:
        if known is None:
            ways = "higher_is_better=True or False (--better higher or lower)"
            raise ValueError(f"metric={shown(metric)}: is more of it better? Say {ways}")
        higher_is_better = known.higher_is_better
    if not isinstance(higher_is_better, bool):
        raise TypeError(f"higher_is_better={shown(higher_is_better)}: accepted is True or False")
    if margin is None:
        if known is None or known.margin is None:
            ask = "which difference is too small to matter? Say margin=... (--margin), in its unit"
            raise ValueError(f"metric={shown(metric)}: {ask}")
        margin = known.margin
    check_number("margin", margin, above=0)
    return margin, higher_is_better


def told_scale(values: "pd.Series", metric: str, scale: str | None = None) -> str | None:
    """In which of SCALES a metric is given, None for what is in neither.

    What is known by its name to be a share is in fractions if all of it is from 0 to 1, and in
    percent if none is (but for 0). Where that leaves a doubt it has to be said: for some of both
    may be a mixture, or small and all in percent, and so may an error from 0 to 1.

    Args:
        values: of all runs, without those that are missing.
        metric: the name of their column.
        scale: one of SCALES where it was said, else it is told from the values.

    Raises:
        ValueError: a doubt, or values that are no such numbers.
    """
    known = known_metric(metric)
    if scale is None and (known is None or known.unit != "points"):
        return None
    if scale is not None:
        check_choice("scale", scale, SCALES)
    most = 1 if scale == "fractions" else 100
    outside = values[~values.between(0, most)]
    if len(outside):
        accepted = f"{scale or 'percent'} from 0 to {most}"
        raise ValueError(f"{metric}={outside.iloc[0]:g}: accepted are {accepted}")
    small, large = values[values.between(0, 1, inclusive="right")], values[values > 1]
    if scale is not None or small.empty:
        return scale or "percent"
    if large.empty and known is not None and known.higher_is_better:
        return "fractions"
    found = f"{metric} from {values.min():g} to {values.max():g}"
    if large.empty:
        found += " may be fractions or percent"
    else:
        found += f" may mix fractions, such as {small.iloc[0]:g}, with percent"
    accepted = "scale='percent' or 'fractions' (--scale), where all values are that"
    raise ValueError(f"{found}: accepted is {accepted}")


def _plain_name(name: str) -> str:
    """The last part of a name, in small letters and without what it tells of images and epochs.

    >>> [_plain_name(name) for name in ("val/top-1", "bestValAcc", "eval.mIoU", "test_acc@5")]
    ['top1', 'acc', 'miou', 'acc5']
    """
    last = re.split(r"[/.]", name)[-1]
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+", last)
    return "".join(word.lower() for word in words if word.lower() not in _WHERE | _WHEN)
