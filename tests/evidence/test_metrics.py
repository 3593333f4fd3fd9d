import pandas as pd
import pytest

from eca_lab.evidence.metrics import METRICS, known_metric, resolve_metric, told_scale


@pytest.mark.parametrize(
    ("names", "unit", "higher_is_better", "margin"),
    [
        (("accuracy", "val/accuracy", "acc", "val_acc", "Test Acc@1"), "points", True, 0.2),
        (("test/top1", "eval.top-5", "bestValAcc", "acc_top1"), "points", True, 0.2),
        (("error", "val/top1_err", "test_error_rate"), "points", False, 0.2),
        (("F1", "val/mIoU", "AUROC", "mAP"), "points", True, None),
        (("val/loss", "train_loss", "perplexity", "eval/ppl"), "", False, None),
    ],
)
def test_what_is_known_by_a_name(names, unit, higher_is_better, margin):
    for name in names:
        known = known_metric(name)
        assert known.words == name
        assert (known.unit, known.higher_is_better, known.margin) == (
            unit, higher_is_better, margin,
        )  # fmt: skip


def test_a_column_of_this_lab_is_known_as_it_is():
    assert known_metric("loss") is METRICS["loss"]
    assert known_metric("seconds").unit == "s"


@pytest.mark.parametrize("name", ["score", "val/", "", "accuracy/spread", "lossless", "epoch"])
def test_what_is_not_known_is_asked_for(name):
    assert known_metric(name) is None
    with pytest.raises(ValueError, match=r"is more of it better\?"):
        resolve_metric(name, margin=1)
    assert resolve_metric(name, margin=1, higher_is_better=False) == (1, False)


def test_a_margin_is_asked_for_where_none_is_usual():
    assert resolve_metric("val/acc") == (0.2, True)
    assert resolve_metric("val/acc", margin=0.5) == (0.5, True)
    assert resolve_metric("val/f1", margin=0.5) == (0.5, True)
    for name in ("val/f1", "val/loss"):
        with pytest.raises(ValueError, match="which difference is too small to matter"):
            resolve_metric(name)


@pytest.mark.parametrize(
    ("metric", "values", "scale"),
    [
        ("accuracy", [0.84, 0.86], "fractions"),
        ("accuracy", [0, 1], "fractions"),
        ("accuracy", [84, 86.5], "percent"),
        ("accuracy", [0, 86.5], "percent"),
        ("accuracy", [0, 0], "percent"),
        ("val/f1", [0.5], "fractions"),
        ("error", [3.5, 16], "percent"),
        ("loss", [0.5, 0.6], None),
        ("score", [0.5, 0.6], None),
    ],
)
def test_fractions_and_percent_are_told_apart(metric, values, scale):
    assert told_scale(pd.Series(values, dtype=float), metric) == scale


@pytest.mark.parametrize(
    ("metric", "values", "message"),
    [
        ("error", [0.3, 0.5], r"error from 0\.3 to 0\.5 may be fractions or percent: accepted is"),
        ("accuracy", [0.84, 84.2], r"accuracy .* may mix fractions, such as 0\.84, with percent"),
        ("error", [0.9, 1.2], r"error from 0\.9 to 1\.2 may mix .*\(--scale\)"),
        ("accuracy", [84, 842], "accuracy=842: accepted are percent from 0 to 100"),
        ("accuracy", [84, -1], "accuracy=-1: accepted are percent from 0 to 100"),
    ],
)
def test_a_doubt_has_to_be_resolved(metric, values, message):
    with pytest.raises(ValueError, match=message):
        told_scale(pd.Series(values, dtype=float), metric)


def test_what_is_said_counts():
    small = pd.Series([0.3, 0.5])
    for scale in ("percent", "fractions"):
        assert told_scale(small, "error", scale) == told_scale(small, "score", scale) == scale
    assert told_scale(pd.Series([0.9, 1.2]), "error", "percent") == "percent"
    with pytest.raises(ValueError, match=r"error=1\.2: accepted are fractions from 0 to 1"):
        told_scale(pd.Series([0.9, 1.2]), "error", "fractions")
    with pytest.raises(ValueError, match="scale='points': accepted are percent, fractions"):
        told_scale(small, "error", "points")
