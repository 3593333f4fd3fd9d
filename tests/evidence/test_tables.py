import csv

import numpy as np
import pandas as pd
import pytest

from eca_lab.evidence import results as recorded
from eca_lab.evidence.stats import compare
from eca_lab.evidence.tables import checked, has_percent_signs, read_table

HEADER = ["Name", "State", "Created", "Runtime", "device", "path", "method", "seed", "val/accuracy"]


def wandb(path, rows):
    """A table of runs as W&B exports it: all cells quoted, empty where a run has nothing."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(HEADER)
        for number, (state, arm, seed, value) in enumerate(rows):
            created = "2026-03-01T10:00:00.000Z"
            setup = [f"cuda:{number % 2}", f"out/{number}"]  # its own in every run
            writer.writerow(
                [f"sun-{number}", state, created, 90 + number, *setup, arm, seed, value]
            )
    return path


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    values = {"none": 0.84, "se": 0.85}
    return [
        ("finished", arm, f"s{seed}", f"{value + rng.normal(0, 0.004):.6f}")
        for arm, value in values.items()
        for seed in range(6)
    ]


def test_runs_that_wandb_exports_are_paired_by_the_column_that_is_named(tmp_path, rows):
    path = wandb(tmp_path / "runs.csv", rows)
    comparison = compare(path, "none", arm="method", metric="val/accuracy")
    assert (comparison.paired_by, comparison.scale, comparison.unit) == (
        "seed",
        "fractions",
        "points",
    )
    values = np.array([float(row[3]) for row in rows]).reshape(2, 6) * 100
    row = comparison.table.loc["se"]
    assert row["n"] == 6  # whatever the devices and paths are
    assert row["difference"] == pytest.approx((values[1] - values[0]).mean())
    assert comparison.differences.index.tolist() == [f"s{seed}" for seed in range(6)]
    read = pd.read_csv(path)
    for given in (str(path), read, read.assign(seed=read["seed"].str[1:].astype(int))):
        other = compare(given, "none", arm="method", metric="val/accuracy")
        pd.testing.assert_frame_equal(other.table, comparison.table)
    by_name = compare(path, "none", arm="method", seed="Name", metric="val/accuracy")
    assert by_name.why_unpaired == "for no arm has a Name in common with none"
    by_time = compare(
        path, "none", arm="method", metric="Runtime", higher_is_better=False, margin=1
    )
    assert by_time.table.loc["se", "difference"] == pytest.approx(6)


def test_runs_that_crashed_are_missing(tmp_path, rows):
    rows[8] = ("crashed", "se", "s2", "")
    rows[9] = ("crashed", "se", "s3", "NaN")
    again = [("finished", "se", "s3", "0.85"), ("failed", "", "", "")]  # run again; not begun
    path = wandb(tmp_path / "runs.csv", [*rows, *again])
    comparison = compare(path, "none", arm="method", metric="val/accuracy")
    assert comparison.table["n"].to_dict() == {"se": 5}
    assert comparison.trials["val/accuracy"].isna().sum() == 2
    unpaired = compare(path, "none", arm="method", metric="val/accuracy", seed=None)
    assert unpaired.table[["n", "n_baseline"]].to_numpy().tolist() == [[5, 6]]


def test_a_run_without_a_seed_or_an_arm_is_refused(tmp_path, rows):
    rows[8] = ("finished", "se", "", "0.85")
    path = wandb(tmp_path / "runs.csv", rows)
    with pytest.raises(ValueError, match=r"a trial without seed, 1 in all: .*\(--unpaired\)"):
        compare(path, "none", arm="method", metric="val/accuracy")
    assert (
        compare(path, "none", arm="method", metric="val/accuracy", seed=None).table["n"].item() == 6
    )
    rows[8] = ("finished", "", "s2", "0.85")
    with pytest.raises(ValueError, match="a trial without method, 1 in all: accepted is one in"):
        compare(wandb(path, rows), "none", arm="method", metric="val/accuracy", seed=None)


def test_the_columns_that_there_are_stand_in_a_refusal(tmp_path, rows):
    path = wandb(tmp_path / "runs.csv", rows)
    listed = "Name, State, Created, Runtime, device, path, method, seed, val/accuracy"
    for options, message in (
        ({"metric": "val/accuracy"}, f"no column arm: there are {listed}; needed are columns of"),
        ({"arm": "model", "metric": "val/accuracy"}, f"no column model: there are {listed}; "),
        ({"arm": "method", "seed": "run", "metric": "val/accuracy"}, f"no column run: .* {listed}"),
        ({"arm": "model", "seed": "run", "metric": "val/accuracy"}, "no column model or run: "),
        (
            {"arm": "method", "metric": "accuracy"},
            "metric='accuracy': accepted are Runtime, val/acc",
        ),
        (
            {"arm": "method", "metric": "State"},
            "'State': 'finished' is no number: accepted are Run",
        ),
        ({"arm": "method", "metric": "seed"}, "metric='seed': accepted are Runtime, val/accuracy"),
        ({"arm": "seed", "metric": "val/accuracy"}, "arm and seed are both seed: accepted are two"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(path, "none", **options)


def test_the_export_of_a_chart_is_no_table_of_runs(tmp_path):
    path = tmp_path / "chart.csv"
    names = ("Step", "sun-1 - val/acc", "sun-1 - val/acc__MIN", "sun-1 - val/acc__MAX")
    path.write_text(",".join(f'"{name}"' for name in names) + '\n"0","0.1","0.1","0.1"\n')
    message = "chart.csv is the export of a chart, with a row a step: wanted is that of the table"
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_a_csv_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "runs.csv"
    text = '\ufeffarm , seed,accuracy\n none,00, 84.2%\nnone,1,\n"NA",0,85%\nNA,1,86.5 %\n'
    path.write_text(text, encoding="utf-8")
    table = read_table(path)
    assert table.columns.tolist() == ["arm", "seed", "accuracy"]
    runs = checked(table, "accuracy")
    assert runs["arm"].tolist() == ["none", "none", "NA", "NA"]  # text, whatever it looks like
    assert runs["seed"].tolist() == [0, 1, 0, 1]
    assert runs["accuracy"].tolist() == pytest.approx([84.2, np.nan, 85, 86.5], nan_ok=True)
    assert has_percent_signs(table["accuracy"])
    assert compare(path, "none", metric="accuracy").table["n"].to_dict() == {"NA": 1}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "runs.csv: no table of runs as CSV"),
        ("arm,seed,top1\n", LookupError, "no runs in .*runs.csv"),
        ("arm,seed\nnone,1,60\n", ValueError, "no table of runs as CSV: .*Expected 2 fields"),
        ("\x00\xff", ValueError, "no table of runs as CSV"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text, error, message):
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(error, match=message) as refused:
        read_table(path)
    assert "\n" not in str(refused.value)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of results, and no such file"):
        compare(tmp_path / "runs.csv", "none")


def test_results_of_this_lab_are_read_from_their_folder_and_their_csv(tmp_path, make_record):
    folder, path = tmp_path / "mine", tmp_path / "trials.csv"
    folder.mkdir()
    for arm, shift in {"eca": 0, "se": 1}.items():
        for seed in range(3):
            recorded.write_record(folder, make_record(arm, seed, 60.0 + seed * (1 + shift)))
    with open(path, "w", encoding="utf-8") as file:
        recorded.write_csv({"mine": recorded.load_results(folder)}, file)
    expected = compare(recorded.load_results(folder), "eca")
    for given in (folder, str(folder), path):
        found = compare(given, "eca")
        pd.testing.assert_frame_equal(found.table, expected.table)
        assert found.words == "top-1"


def test_a_column_of_another_name_makes_ours_of_other_people_s(results):
    frame = results(eca=[60, 61, 63], se=[61, 62, 65]).assign(device=list("abcdef"))
    with pytest.raises(ValueError, match="nothing to pair with eca: eca ran on a"):
        compare(frame, "eca")
    theirs = frame.rename(columns={"arm": "method"}).assign(arm="left", precision=range(6))
    expected = compare(frame.drop(columns="device"), "eca").table
    pd.testing.assert_frame_equal(compare(theirs, "eca", arm="method").table, expected)
    by_run = theirs.rename(columns={"seed": "run"}).assign(seed=7)
    pd.testing.assert_frame_equal(compare(by_run, "eca", arm="method", seed="run").table, expected)
    measured = {"metric": "precision", "scale": "percent", "margin": 1}
    assert compare(theirs, "eca", arm="method", **measured).table["difference"].tolist() == [3]
    networks = frame.rename(columns={"arm": "backbone"}).drop(columns="device")
    pd.testing.assert_frame_equal(compare(networks, "eca", arm="backbone").table, expected)
