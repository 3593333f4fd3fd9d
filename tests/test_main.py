import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eca_lab.__main__ import _parser, main
from eca_lab.evidence import results, stats, studies
from eca_lab.evidence.results import load_results, trial_identity, write_record
from eca_lab.networks.checkpoints import load_checkpoint
from eca_lab.recipe import Recipe

PILOT = "data/results/cifar10-tiny"
HEAVY = ("torch", "torchvision", "numpy", "pandas", "scipy", "statsmodels", "matplotlib")


def run(arguments, code="from eca_lab.__main__ import main", **options):
    """Exit status, output, errors, and which heavy packages a fresh interpreter imported."""
    script = f"""
import json, sys
{code}
try:
    status = main(json.loads(sys.argv[1]))
except SystemExit as stop:
    status = stop.code
print(json.dumps([status, [each for each in {HEAVY} if each in sys.modules]]), file=sys.stderr)
"""
    command = [sys.executable, "-c", script, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    *errors, last = done.stderr.splitlines()
    status, imported = json.loads(last)
    return status, done.stdout, errors, imported


@pytest.mark.parametrize(
    ("arguments", "status", "imported"),
    [
        (["--help"], 0, []),
        (["sweep", "--help"], 0, []),
        (["sweep", "--arms", "senet"], 2, []),
        (["results", PILOT], 0, ["numpy", "pandas"]),
    ],
)
def test_commands_import_only_what_they_need(arguments, status, imported):
    found = run(arguments)
    assert (found[0], found[3]) == (status, imported)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sweep --arms senet", "attention 'senet': accepted are none, static, se"),
        ("sweep --backbone resnet9", "backbone='resnet9': accepted are tiny, resnet10, resnet18"),
        ("sweep --backbone nets:", "backbone='nets:': accepted are tiny, resnet10, resnet18"),
        ("sweep --backbone nowhere:net", "backbone='nowhere:net': ModuleNotFoundError: No module"),
        ("sweep --backbone math:sin", "backbone='math:sin': accepted is a function that takes num"),
        ("sweep --at *.bn", "at='*.bn': tiny has a place in every block; accepted is backbone=pac"),
        ("sweep --study ladder --setting small --at *.bn", "--at with --study ladder"),
        ("sweep --study ladder --setting small --backbone nets:net", "--backbone with --study lad"),
        ("sweep --epochs 0", "epochs=0: accepted is an integer from 1 to 100000"),
        ("sweep --epochs many", "argument --epochs: invalid int value: 'many'"),
        ("sweep --learning-rate inf", "learning_rate=inf: accepted is a finite number above 0"),
        ("sweep --momentum 1", "momentum=1.0: accepted is a finite number from 0 below 1"),
        ("sweep --weight-decay -1", "weight_decay=-1.0: accepted is a finite number from 0"),
        ("sweep --label-smoothing 1", "label_smoothing=1.0: accepted is a finite number from 0"),
        ("checkpoints --warmup 1.5", "warmup=1.5: accepted is a finite number from 0 below 1"),
        ("sweep --seeds 0", "seeds=0: accepted is an integer from 1 to 10000"),
        ("sweep --workers 0", "workers=0: accepted is an integer from 1 to 1000"),
        ("sweep --arms eca(gamma=1e-310)", "gamma=1e-310: accepted is a finite number from"),
        (f"sweep --size {'9' * 400}", "accepted is an integer from 4 to 1024"),
        ("sweep --budget 25", "'25': accepted is a time such as 90s"),
        (f"sweep --budget {'9' * 30}h", "accepted is a time such as 90s"),
        (f"sweep --budget {'9' * 5000}h", "accepted is a time such as 90s"),
        ("sweep --budget \u0661m", "accepted is a time such as 90s"),
        ("sweep --setting small", "--setting small: its --study is missing"),
        ("checkpoints --setting small", "--setting small: its --study is missing"),
        ("record --out= --data shapes", "out='': accepted is the path of a folder"),
        ("record --checkpoints= --data shapes", "checkpoints='': accepted is the path of a folder"),
        ("checkpoints --out=", "out='': accepted is the path of a folder"),
        ("results /dev/null", "folder: Not a directory: '/dev/null', since '/dev/null' is none"),
        ("sweep --study ladder", "--study ladder: its --setting is missing; accepted are small"),
        ("sweep --study ladder --setting big", "--setting='big': accepted are small, resnet10"),
        ("sweep --study ladder --setting small --epochs 2", "--epochs with --study ladder"),
        ("sweep --study ladder --setting small --warmup 0", "--warmup with --study ladder"),
        ("sweep --study fixed-k --setting tiny-imagenet", "Give their folder as --data"),
        ("compare", "the table of runs is missing, or --study NAME"),
        ("compare --study ladder --margin 1", "--study ladder: accepted is neither a table nor"),
        ("compare --study ladder --unpaired", "--study ladder: accepted is neither a table nor"),
        (f"compare {PILOT} --seed run --unpaired", "--seed run with --unpaired: accepted is one"),
        (f"compare {PILOT} --seed run", "no column run: there are dataset, fingerprint"),
        (f"compare {PILOT} --margin 0", "margin=0.0: accepted is a finite number above 0"),
        ("compare --study ladders", "study='ladders': accepted are fixed-k, imagenet"),
        (f"compare {PILOT} --baseline cbam", "--baseline='cbam': accepted are none"),
        (f"compare {PILOT} --arms se cbam", "--arms='cbam': accepted are none, se"),
        (f"compare {PILOT} --arms eca", "--arms='eca': accepted are none, se"),
        (f"compare {PILOT} --metric loss", "metric='loss': which difference is too small"),
        (f"compare {PILOT} --metric acc", "metric='acc': accepted are test, epochs, top1, top5"),
        (f"compare {PILOT} --metric test --margin 1", "metric='test': is more of it better? Say"),
        (f"compare {PILOT} --baseline senet", "--baseline='senet': accepted are none"),
        ("compare README.md", "README.md: no"),
        ("compare nowhere", "nowhere: no such folder of results, and no such file"),
        ("results nowhere", "nowhere: no such folder of results"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, capsys):
    try:
        status = main(arguments.split())
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert message in error
    assert len(error) < 400


def test_the_recipe_of_the_options(monkeypatch):
    recipes = []
    monkeypatch.setattr("eca_lab.commands.sweep", lambda options: recipes.append(options.recipe))
    values = "--epochs 2 --momentum 0.5 --weight-decay 0 --label-smoothing 0 --warmup 0.1"
    main(["sweep"])
    main(["sweep", *values.split()])
    assert recipes == [
        Recipe(),
        Recipe(epochs=2, momentum=0.5, weight_decay=0, label_smoothing=0, warmup=0.1),
    ]
    assert recipes[0].describe()["decay"] == "linear"  # of which every identity knows


def test_arms_that_are_given_in_several_places():
    options = _parser().parse_args(["sweep", "--arms", "none", "se", "--arms", "eca"])
    assert list(map(str, options.arms)) == ["none", "se", "eca"]
    assert _parser().parse_args(["sweep"]).arms is None


def test_an_output_that_knows_no_accents(tmp_path, make_record):
    record = make_record()
    record["trial"]["dataset"]["name"] = "fl\u00f6he"
    write_record(tmp_path, record)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "eca_lab", "results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "fl\\xf6he, 64 training images" in done.stdout
    assert done.stderr == ""


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("eca-lab ")


def test_a_reader_that_has_seen_enough(tmp_path):
    command = f"{sys.executable} -m eca_lab results {PILOT} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_the_table_of_a_comparison(capsys):
    assert main(["compare", PILOT, "--baseline", "eca()", "--arms", "none", " eca( k=3 )"]) == 0
    out = capsys.readouterr().out
    assert "top-1 minus that of eca in points; higher is better" in out
    assert "p by Holm over 2 comparisons" in out
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("eca(k=3)"))
    assert row[1:3] == ["5", "0.23"]  # of five seeds, as data/results/README.md tells
    assert [len(p.partition(".")[2]) for p in row[5:8]] == [3, 3, 3]


@pytest.mark.parametrize(
    ("study", "rows", "said"),
    [
        ("fixed-k", 11, "Contrast beside them: -0.008 points per unit of k"),
        ("ladder", 10, "Primary contrast: +0.038 points per halving of r"),
    ],
)
def test_the_tables_of_the_declarations(study, rows, said, capsys):
    assert main(["compare", "--study", study]) == 0
    out = capsys.readouterr().out
    assert f"p by Holm over {rows} comparisons" in out
    assert out.count("decided\n") + out.count("worse\n") + out.count("better\n") == rows
    assert said in out
    assert "Left out" not in out
    assert f"resnet10: no trials yet. python -m eca_lab sweep --study {study}" in out


def test_a_setting_without_the_baseline_is_skipped(tmp_path, make_record, capsys):
    for seed in range(3):
        for epochs, arms in ((2, ("none", "se")), (3, ("none", "eca"))):
            for arm in arms:
                record = make_record(arm, seed, 50.0 + seed, recipe=Recipe(epochs=epochs))
                write_record(tmp_path, record)
    assert main(["compare", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "epochs=2" in out
    assert "Skipped: no trial of eca: there are none, se." in out
    assert out.count("undecided") == 1


def test_a_study_that_is_partly_run(tmp_path, make_record, monkeypatch, capsys):
    study = studies.load_study("fixed-k")
    for seed in range(3):
        for arm in ("eca", "eca(k=1)"):  # of one k there is no slope
            record = make_record(arm, seed, 50.0 + seed, recipe=Recipe(epochs=4))
            write_record(tmp_path, record)
    monkeypatch.setattr(studies, "load_study", lambda _: replace(study, results=tmp_path))
    assert main(["compare", "--study", "fixed-k"]) == 0
    out = capsys.readouterr().out
    assert "No trials yet: none, se, eca(k=3)" in out
    assert "No contrast beside the family: a trend over [1]: accepted are at least two" in out
    assert "resnet18: no trials yet" in out


def test_networks_beside_a_study_are_trained_as_it_declares(dataset, tmp_path, monkeypatch, capsys):
    study = studies.load_study("photographs")
    setting = study.settings["cifar10"]
    recipe = Recipe(epochs=2, batch_size=16, crop=2, scales=((0.5, 1),))
    setting = replace(setting, recipe=recipe, size=16, fused=False, precision="float32")
    study = replace(study, settings={"cifar10": setting})
    monkeypatch.setattr(studies, "load_study", lambda _: study)
    monkeypatch.setattr("eca_lab.data.load_dataset", lambda name, **_: dataset)
    command = "checkpoints --study photographs --setting cifar10 --seeds 1 --device cpu"
    assert main([*command.split(), "--arms", "eca(order=shuffled)", "--out", str(tmp_path)]) == 0
    assert "top-1" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.safetensors")
    _, card = load_checkpoint(path)
    assert (card["arm"], card["trial"]["recipe"]) == ("eca(order=shuffled)", recipe.describe())
    assert main([*command.split(), "--epochs", "3"]) == 2
    assert "--epochs with --study photographs: the study declares it" in capsys.readouterr().err


def test_the_primary_contrast_is_not_adjusted(tmp_path, make_record, monkeypatch, capsys):
    study = replace(studies.load_study("fixed-k"), results=tmp_path, primary="eca(k=3)", slope=None)
    declared = study.settings["small"]
    monkeypatch.setattr(studies, "load_study", lambda _: study)
    for seed in range(8):
        for arm, top1 in {"eca": 60 + seed % 2, "eca(k=3)": 58 + seed % 3, "none": 50}.items():
            if arm != "eca(k=3)" or seed:  # of seven pairs
                record = make_record(arm, seed, top1 + seed / 8, recipe=Recipe(epochs=4))
                write_record(tmp_path, record)
    early = "no verdict before the 8 seeds that were declared"
    for seeds, verdict in ((8, early), (7, "eca is better")):
        study.settings["small"] = replace(declared, seeds=seeds)
        assert main(["compare", "--study", "fixed-k"]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert ("A look on the way: 8 seeds are declared." in printed) == (seeds == 8)
        line = next(each for each in printed if "Primary" in each)
        assert line.endswith(f": {verdict}")
    table = stats.compare(load_results(tmp_path), "eca", ["eca(k=3)"]).table
    difference, low, high, p = table.loc["eca(k=3)", ["difference", "low", "high", "p"]]
    assert line.startswith("Primary contrast, not adjusted: eca minus eca(k=3)")
    assert f"{-difference:+.3f} points ({-high:+.3f} to {-low:+.3f}, p {p:.2f}" in line
    assert "n = 7, a t-test has 80% power for" in line
    assert "); p of equivalence within 0.2 points" in line
    for path in tmp_path.glob("*.json"):
        path.unlink()
    for seed in range(3):
        for arm in ("eca", "none"):
            write_record(tmp_path, make_record(arm, seed, 50.0 + seed, recipe=Recipe(epochs=4)))
    assert main(["compare", "--study", "fixed-k"]) == 0
    printed = capsys.readouterr().out
    assert "No contrast beside the family: no trial of eca(k=3)" in printed
    assert "A look on the way: 7 seeds are declared." in printed


def test_data_sets_that_share_the_folder_of_a_study_are_compared_apart(
    tmp_path, make_record, monkeypatch, capsys
):
    study = replace(studies.load_study("fixed-k"), results=tmp_path, primary="eca(k=3)", slope=None)
    monkeypatch.setattr(studies, "load_study", lambda _: study)
    for own in (False, True):
        for seed in range(3):
            for arm in ("eca", "eca(k=3)"):
                top1 = 50.0 + seed + (arm == "eca") * (1 + own + seed % 2)
                record = make_record(arm, seed, top1, recipe=Recipe(epochs=4))
                if own:
                    record["trial"]["dataset"]["fingerprint"] = "f" * 64
                    record["identity"] = trial_identity(record["trial"])
                write_record(tmp_path, record)
    assert main(["compare", "--study", "fixed-k"]) == 0
    lines = [each for each in capsys.readouterr().out.splitlines() if "Primary" in each]
    assert len(lines) == 2
    assert {line.split("minus eca(k=3) ")[1][:6] for line in lines} == {"+1.333", "+2.333"}


def test_all_trials_as_one_csv_are_compared_as_their_folders_are(tmp_path, capsys):
    folders = results.recorded()
    assert {Path(folder).name for folder in folders} >= {"photographs", "study", "study-xeon"}
    assert main(["results", "--csv"]) == 0
    csv = capsys.readouterr().out
    path = tmp_path / "trials.csv"
    path.write_text(csv)
    tables = {folder: results.load_results(folder) for folder in folders}
    read = results.read_results(path)
    expected = pd.concat([table.assign(folder=folder) for folder, table in tables.items()])
    columns = ["folder", *tables[folders[0]].columns]
    pd.testing.assert_frame_equal(
        read.astype(object), expected[columns].reset_index(drop=True).astype(object)
    )
    assert main(["compare", str(path)]) == 0
    of_all = capsys.readouterr().out
    for folder in ("cifar10-tiny", "photographs"):
        assert main(["compare", next(each for each in folders if each.endswith(folder))]) == 0
        assert capsys.readouterr().out in of_all


def test_what_is_no_csv_of_trials(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    for text, message in (
        ("run,accuracy\n1,60\n", "no column arm: there are run, accuracy; needed are columns of"),
        ("", "no table of runs as CSV"),
        ('a,b\n1,2,3\n"', "no table of runs as CSV"),
        ("\x00\xff", "runs.csv: no "),
    ):
        path.write_bytes(text.encode("latin-1"))
        assert main(["compare", str(path)]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def runs(tmp_path):
    """A function that writes a table of runs as CSV, and gives its path as text."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 0.004, 8)
    noise = {arm: seeds + rng.normal(0, 0.002, 8) for arm in ("none", "resnet", "with eca")}
    rows = [
        {"method": arm, "run": run, "accuracy": round(0.842 + number * 0.005 + value, 4)}
        for number, (arm, values) in enumerate(noise.items())
        for run, value in enumerate(values)
    ]

    def write(change=lambda table: table):
        path = tmp_path / "runs.csv"
        change(pd.DataFrame(rows)).to_csv(path, index=False)
        return str(path)

    return write


OWN = ["--arm", "method", "--metric", "accuracy", "--baseline", "none"]


def test_runs_of_ones_own_are_paired_by_the_column_that_is_named(runs, capsys):
    path = runs()
    assert main(["compare", path, *OWN, "--seed", "run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1:4] == [
        "Paired by column run: intervals are by Student's t, p by sign flips.",
        "accuracy was given in fractions: 0.01 is 1 point, and the margin is in points.",
        "accuracy minus that of none in points; higher is better; 95% intervals; p by Holm over 2 "
        "comparisons; equivalence within 0.2 points, by Holm as well; detectable with 80% power",
    ]
    assert out[5].split()[:3] == ["method", "n", "difference"]
    table = stats.compare(path, "none", arm="method", seed="run", metric="accuracy").table
    for line, (arm, row) in zip(out[6:8], table.iterrows(), strict=True):
        shown = [f"{row[name]:.2f}" for name in ("difference", "low", "high")]
        assert line.strip().removeprefix(arm).split()[:4] == ["8", *shown]
        assert line.endswith(row["verdict"])


@pytest.mark.parametrize(
    ("options", "change", "why"),
    [
        ([], lambda table: table, "for there is no column seed"),
        (["--unpaired"], lambda table: table, "as was asked"),
        (
            ["--seed", "run"],
            lambda table: table.assign(run=range(len(table))),
            "for no arm has a run in common with none",
        ),
    ],
)
def test_runs_that_are_no_pairs_are_told_so(runs, capsys, options, change, why):
    path = runs(change)
    assert main(["compare", path, *OWN, *options, "--arms", "with eca"]) == 0
    out = capsys.readouterr().out.splitlines()
    welch = "intervals and p are by Welch's t-test, of independent runs"
    assert out[1] == f"Not paired, {why}: {welch}."
    assert out[5].split()[:4] == ["method", "n", "n_baseline", "difference"]
    row = stats.compare(
        path, "none", ["with eca"], arm="method", metric="accuracy", seed=None
    ).table
    shown = [f"{row[name].item():.2f}" for name in ("difference", "low", "high")]
    assert out[6].split()[2:7] == ["8", "8", *shown]
    assert out[6].split()[7] == "<0.001"


def test_what_was_left_out_of_runs_is_told(runs, capsys):
    def change(table):
        table.loc[[8, 9, 17], "accuracy"] = None
        table.loc[23, "run"] = 99
        return table.assign(State=["finished"] * 9 + ["crashed"] * 3 + ["finished"] * 12)

    assert main(["compare", runs(change), *OWN, "--seed", "run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[3:7] == [
        "Left out, since they have no accuracy: 2 of resnet, 1 of with eca.",
        "Left out, since the other has no such run: 0 of resnet, 2 of none; "
        "1 of with eca, 2 of none.",
        "Caution, so few pairs can tell no arms apart: by Holm the least p is 0.062.",
        "Caution, runs that have not finished are counted: 2 crashed.",
    ]
    assert [line.split()[-9] for line in out[10:12]] == ["6", "6"]


def test_runs_on_several_data_sets_are_compared_apart(runs, capsys):
    def change(table):
        both = [table.assign(dataset="cifar10"), table.assign(dataset="svhn")]
        return pd.concat([*both, table[table["method"] != "none"].assign(dataset="mnist")])

    path = runs(change)
    assert main(["compare", path, *OWN, "--seed", "run"]) == 0
    out = capsys.readouterr().out
    assert [out.count(f"dataset {name}\nPaired by") for name in ("cifar10", "svhn")] == [1, 1]
    assert "dataset mnist\nSkipped: no trial of none: there are resnet, with eca.\n" in out


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda table: table, "--baseline eca", "--baseline='eca': accepted are none, resnet, wit"),
        (lambda table: table, "--arms cbam", "--arms='cbam': accepted are resnet, with eca"),
        (lambda table: table, "--metric method", "metric='method': accepted are run, accuracy"),
        (lambda table: table, "--metric top1", "metric='top1': accepted are run, accuracy"),
        (lambda table: table, "--seed seeds", "no column seeds: there are method, run, accuracy"),
        (lambda table: table, "--scale percent --margin 0", "margin=0.0: accepted is a finite num"),
        (
            lambda table: table.rename(columns={"accuracy": "psnr"}),
            "--metric psnr",
            "Say higher_is",
        ),
        (
            lambda table: table.rename(columns={"accuracy": "error"}),
            "--metric error",
            "may be fractions or percent: accepted is scale='percent' or 'fractions' (--scale)",
        ),
        (
            lambda table: table.assign(accuracy=table["accuracy"].where(table["run"] > 3, 84.2)),
            "--seed run",
            "may mix fractions, such as 0.8",
        ),
        (
            lambda table: table.assign(run=0),
            "--seed run",
            "two results of none with seed 0: accepted are those of one data set",
        ),
        (lambda table: table[table["method"] == "none"], "", "no arm beside none: accepted is one"),
        (lambda table: table[:0], "", "no runs in "),
    ],
)
def test_tables_of_runs_that_are_refused(runs, change, options, message, capsys):
    assert main(["compare", runs(change), *OWN, *options.split()]) == 2 - (message == "no runs in ")
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_an_error_rate_is_better_where_it_is_lower(runs, capsys):
    path = runs(lambda table: table.assign(err=table["accuracy"].map("{:.2%}".format)))
    assert main(["compare", path, "--metric", "err", *OWN[:2], *OWN[4:], "--seed", "run"]) == 0
    out = capsys.readouterr().out
    assert "err minus that of none in points; lower is better" in out
    assert "fractions" not in out
    assert out.splitlines()[-1].endswith("worse")


def test_trials_of_this_lab_that_are_compared_unpaired_are_told_so(capsys):
    assert main(["compare", PILOT, "--unpaired"]) == 0
    out = capsys.readouterr().out
    assert "of 16 x 16 pixels" in out
    assert "Not paired, as was asked: intervals and p are by Welch's t-test" in out


def test_the_families_of_a_study(tmp_path, make_record, monkeypatch, capsys):
    study = studies.load_study("why")
    setting = replace(study.settings["cifar10"], size=16, seeds=3, recipe=Recipe(epochs=4))
    study = replace(study, results=tmp_path, settings={"cifar10": setting})
    monkeypatch.setattr(studies, "load_study", lambda _: study)
    rng = np.random.default_rng(0)

    def record(arms, seeds):
        for arm in arms:
            for seed in range(seeds):
                top1 = 60 + rng.normal()
                write_record(tmp_path, make_record(arm, seed, top1, recipe=setting.recipe))

    ladder = ["se", "se(r=4)", "se(r=2)", "se(r=1)", "se_gc(groups=8)", "se_var3"]
    record(ladder, 2)
    assert main(["compare", "--study", "why"]) == 0
    out = capsys.readouterr().out
    assert "A look on the way: 3 seeds are declared, and no verdict before." in out
    assert out.count("not yet") == 2
    assert "Not yet: no trial of se_var2, eca(k=1): there are" in out
    record(setting.arms, 3)
    assert main(["compare", "--study", "why"]) == 0
    out = capsys.readouterr().out
    assert "not yet" not in out.lower()
    table = load_results(tmp_path)
    for family in study.families:
        found = stats.contrasts(table, family)
        for name, row in found.iterrows():
            line = next(each.split() for each in out.splitlines() if each.split()[:1] == [name])
            shown = [f"{row[column]:.3f}" for column in ("estimate", "low", "high", "p_holm")]
            assert line[1:6] == ["3", *shown]
            assert line[-1] == row["verdict"]
    assert "slope: SE's top-1 rises as its reduction goes away, per halving of r" in out


def test_a_mistake_of_ours_is_no_message(tmp_path, monkeypatch):
    monkeypatch.setattr("eca_lab.evidence.results.finished", lambda _: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        main(["results", str(tmp_path)])


def test_failed_trials_alone(tmp_path, make_record, capsys):
    for seed in range(3):
        record = make_record(seed=seed, status="failed", reason="FloatingPointError: it diverged")
        write_record(tmp_path, record)
    for command in ("compare", "results"):
        assert main([command, str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert "and 3 failed: FloatingPointError: it diverged (3)" in error


def test_warnings_come_without_lines_of_code(tmp_path, make_record):
    write_record(tmp_path, make_record())
    (tmp_path / f"{'0' * 16}.json").write_text("[")
    status, _, errors, _ = run(["results", str(tmp_path)])
    assert status == 0
    assert len(errors) == 1
    assert errors[0].startswith(f"warning: {tmp_path}/{'0' * 16}.json is not counted")
