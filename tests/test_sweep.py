import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch

from eca_lab import __main__, stats, sweep
from eca_lab.checkpoints import load_checkpoint
from eca_lab.data import available_cores
from eca_lab.models import build_model
from eca_lab.results import load_records, load_results
from eca_lab.sweep import plan_results, plan_sweep, remaining, run_sweep, train_checkpoints
from eca_lab.train import Recipe

QUICK = Recipe(epochs=1, batch_size=16, learning_rate=0.05)
ARGUMENTS = [
    *("sweep", "--data", "shapes", "--size", "8", "--per-class", "13", "--epochs", "1"),
    *("--device", "cpu"),
]
DONE = {  # what run_trial returns
    "top1": 50.0,
    "top5": 100.0,
    "loss_curve": [1.0],
    "seconds": 1.0,
    "images_per_second": 64.0,
    "correct": "AAA=",
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_trials_are_seed_major(dataset):
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], 2, QUICK)
    assert [(trial.arm, trial.seed) for trial in plan.trials] == [
        ("none", 0), ("eca", 0), ("none", 1), ("eca", 1),
    ]  # fmt: skip
    assert len({trial.identity for trial in plan.trials}) == 4


def test_arms_that_are_the_same_network_run_once(dataset):
    arms = ["eca", "none", "eca(k=3-3-5)", "eca(gamma=2,b=1)", "eca(k=3)", "none"]
    plan = plan_sweep(dataset, "tiny", arms, 3, QUICK)
    assert plan.arms == ["eca(k=3-3-5)", "none", "eca(k=3)"]
    assert plan.duplicates == {"eca": "eca(k=3-3-5)", "eca(gamma=2, b=1)": "eca(k=3-3-5)"}
    assert len(plan.trials) == 9


def test_parameters_are_those_of_the_trained_network(dataset):
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], 1, QUICK)
    none, eca = (trial.description["parameters"] for trial in plan.trials)
    assert eca - none == 3 + 3 + 5 + 5
    model = build_model("tiny", "none", 2, "cifar")
    assert none == sum(each.numel() for each in model.parameters())


def test_finished_trials_are_skipped(dataset, tmp_path, monkeypatch):
    small = plan_sweep(dataset, "tiny", ["none", "eca"], 1, QUICK)
    assert run_sweep(small, tmp_path) == []
    first = load_records(tmp_path)
    assert len(first) == 2

    ran = []
    genuine = sweep.run_trial
    monkeypatch.setattr(sweep, "run_trial", lambda *a, **k: ran.append(a[2:4]) or genuine(*a, **k))
    large = plan_sweep(dataset, "tiny", ["none", "eca", "eca(k=3)"], 2, QUICK)
    assert len(remaining(large, tmp_path)) == 4
    run_sweep(large, tmp_path)
    assert ran == [("eca(k=3)", 0), ("none", 1), ("eca", 1), ("eca(k=3)", 1)]
    records = load_records(tmp_path)
    assert len(records) == 6
    assert all(records[identity] == record for identity, record in first.items())


def test_records_say_where_they_come_from(dataset, tmp_path):
    run_sweep(plan_sweep(dataset, "tiny", ["eca"], 1, QUICK), tmp_path)
    (record,) = load_records(tmp_path).values()
    assert record["trial"]["recipe"]["epochs"] == 1
    assert record["trial"]["dataset"]["fingerprint"] == "0" * 64
    assert record["trial"]["seed"] == 0
    assert record["device"].startswith("cpu: ")
    assert {"python", "torch", "torchvision", "numpy"} <= record["versions"].keys()
    assert {"commit", "changed"} == record["code"].keys() or record["code"] == {}


def test_results_bear_the_names_of_the_plan(dataset, tmp_path):
    run_sweep(plan_sweep(dataset, "tiny", ["none", "eca"], 1, QUICK), tmp_path)
    renamed = plan_sweep(dataset, "tiny", ["eca(k=3-3-5)"], 1, QUICK)
    assert remaining(renamed, tmp_path) == []
    assert plan_results(renamed, tmp_path)["arm"].tolist() == ["eca(k=3-3-5)"]
    assert load_results(tmp_path)["arm"].tolist() == ["none", "eca"]


def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(dataset, tmp_path, monkeypatch):
    genuine = sweep.run_trial

    def sometimes(dataset, backbone, arm, seed, *arguments, **keywords):
        if (arm, seed) == ("eca", 0):
            raise MemoryError("not today")
        return genuine(dataset, backbone, arm, seed, *arguments, **keywords)

    monkeypatch.setattr(sweep, "run_trial", sometimes)
    plan = plan_sweep(dataset, "tiny", ["none", "eca", "se"], 2, QUICK)
    (failed,) = run_sweep(plan, tmp_path)
    assert (failed["arm"], failed["trial"]["seed"]) == ("eca", 0)
    assert failed["reason"] == "MemoryError: not today"
    assert len(load_results(tmp_path)) == 5
    monkeypatch.undo()
    assert [(trial.arm, trial.seed) for trial in remaining(plan, tmp_path)] == [("eca", 0)]
    assert run_sweep(plan, tmp_path) == []
    assert len(load_results(tmp_path)) == 6


def test_a_full_disk_ends_the_sweep_with_what_is_finished(dataset, tmp_path, monkeypatch):
    genuine, written = sweep.write_record, []

    def full_after_two(out, record):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(record)
        genuine(out, record)

    monkeypatch.setattr(sweep, "write_record", full_after_two)
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], 2, QUICK)
    with pytest.raises(OSError, match="No space left"):
        run_sweep(plan, tmp_path)
    assert len(load_results(tmp_path)) == 2
    assert len(remaining(plan, tmp_path)) == 2


def test_command_prints_plan_and_table(tmp_path, capsys):
    arguments = ["--arms", "none", "eca", "eca(k=3-3-5)", "eca(k=3)", "--seeds", "2"]
    arguments = [*ARGUMENTS, *arguments, "--out", str(tmp_path / "demo")]
    assert __main__.main(arguments) == 0
    done = capsys.readouterr().out
    assert "3 arms x 2 seeds = 6 trials of 1 epochs" in done
    assert "`eca` on tiny is `eca(k=3-3-5)`: the same trials, run once" in done
    assert "0 of 6 trials are finished" in done
    table = done[done.index("top-1 %") :].splitlines()[1:]
    assert [line.split()[0] for line in table] == ["none", "eca(k=3)", "eca(k=3-3-5)"]
    results = load_results(tmp_path / "demo")
    means = results.groupby("arm")["top1"].mean()
    for line in table:
        assert float(line.split()[2]) == pytest.approx(means[line.split()[0]], abs=0.006)

    assert __main__.main(arguments) == 0
    again = capsys.readouterr().out
    assert "6 of 6 trials are finished" in again
    assert again.endswith(done[done.rindex("shapes") :])


def test_two_recipes_are_not_averaged_together(dataset, tmp_path, capsys):
    for rate in (0.05, 0.01):
        recipe = Recipe(epochs=1, batch_size=16, learning_rate=rate)
        run_sweep(plan_sweep(dataset, "tiny", ["none"], 2, recipe), tmp_path)
    assert __main__.main(["results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("learning_rate=0.05,") == text.count("learning_rate=0.01,") == 1
    assert [line.split()[-1] for line in text.splitlines() if line.split()[:1] == ["none"]] == [
        "2", "2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def plan_of_six(dataset):
    return plan_sweep(dataset, "tiny", ["none", "se", "eca"], 2, QUICK)


def test_worker_processes_give_the_same_table(plan_of_six, tmp_path):
    # One thread there, so one thread here.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run_sweep(plan_of_six, tmp_path / "here") == []
    finally:
        torch.set_num_threads(threads)
    workers = max(2, available_cores())
    assert run_sweep(plan_of_six, tmp_path / "processes", workers=workers) == []
    computed = ["arm", "seed", "top1", "top5", "loss", "identity"]
    here, processes = (load_results(tmp_path / each) for each in ("here", "processes"))
    pd.testing.assert_frame_equal(here[computed], processes[computed])
    assert all(device.endswith(" 1 threads") for device in processes["device"])
    assert {path.suffix for path in (tmp_path / "processes").iterdir()} == {".json"}


def test_two_sweeps_in_one_folder_share_the_trials(plan_of_six, tmp_path, monkeypatch):
    ran = []

    def trial(dataset, backbone, arm, seed, *_, **__):
        ran.append((arm, seed))
        if (arm, seed) == ("se", 0):  # in the middle of it, another sweep comes
            run_sweep(plan_of_six, tmp_path)
        return {**DONE, "top1": float(seed)}

    monkeypatch.setattr(sweep, "run_trial", trial)
    assert run_sweep(plan_of_six, tmp_path) == []
    assert ran == [("none", 0), ("se", 0), ("eca", 0), ("none", 1), ("se", 1), ("eca", 1)]
    assert len(load_results(tmp_path)) == 6
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_a_budget_starts_what_will_end(plan_of_six, tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(sweep.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sweep, "estimate_seconds", lambda *_: 10.0)

    def trial(*_, **__):
        clock[0] += 30
        return DONE

    monkeypatch.setattr(sweep, "run_trial", trial)
    run_sweep(plan_of_six, tmp_path, budget=9)
    assert len(load_results(tmp_path)) == 0
    run_sweep(plan_of_six, tmp_path, budget=65)  # 10 expected, then 30: 2 x 30 <= 65 < 3 x 30
    assert load_results(tmp_path)[["arm", "seed"]].to_numpy().tolist() == [["none", 0], ["se", 0]]
    run_sweep(plan_of_six, tmp_path, budget=1000)
    assert len(load_results(tmp_path)) == 6


def test_invalid_files_are_set_aside_and_their_trials_run_again(dataset, tmp_path):
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], 1, QUICK)
    run_sweep(plan, tmp_path)
    truncated, whole = sorted(tmp_path.glob("*.json"))
    kept, text = whole.read_bytes(), truncated.read_text()
    truncated.write_text(text[:100])
    (tmp_path / "notes.json").write_text("{}")
    with pytest.warns(UserWarning, match="was moved to .*rejected") as caught:
        assert run_sweep(plan, tmp_path) == []
    assert len(caught) == 2
    assert (tmp_path / "rejected" / truncated.name).read_text() == text[:100]
    assert (tmp_path / "rejected" / "notes.json").read_text() == "{}"
    assert len(load_records(tmp_path)) == 2
    assert whole.read_bytes() == kept

    truncated.write_text("")
    with pytest.warns(UserWarning, match="rejected"):
        run_sweep(plan, tmp_path)
    assert len(list((tmp_path / "rejected").iterdir())) == 3  # the first is not overwritten


def test_ctrl_c_in_a_terminal_leaves_no_worker_behind(tmp_path):
    arguments = ["--arms", "none", "eca", "--seeds", "99", "--workers", "2"]
    command = [sys.executable, "-m", "eca_lab", *ARGUMENTS, *arguments, "--out", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted: " in error
    assert "Traceback" not in error
    assert list(tmp_path.glob("*.json"))
    with suppress(ProcessLookupError):  # soon, nobody is left in its session
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        pytest.fail("a process of the sweep is still there")


def test_killed_and_run_again_it_repeats_nothing(tmp_path, capsys):
    arguments = ["--arms", "none", "eca", "se", "--seeds", "2", "--epochs", "12"]
    arguments = [*ARGUMENTS, *arguments, "--out", str(tmp_path)]
    command = [sys.executable, "-m", "eca_lab", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert 2 <= len(before) < 6
    assert __main__.main(arguments) == 0
    assert f"{len(before)} of 6 trials are finished" in capsys.readouterr().out
    after = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert len(after) == 6
    assert all(after[name] == content for name, content in before.items())


def test_interrupted_it_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run_trial", interrupted)
    assert (
        __main__.main([*ARGUMENTS, "--arms", "eca", "--seeds", "1", "--out", str(tmp_path)]) == 130
    )
    assert "0 of 1 trials are finished" in (error := capsys.readouterr().err)
    assert "Run the same command again" in error


def test_a_failed_trial_gives_a_nonzero_exit(tmp_path, monkeypatch, capsys):
    def diverges(*_, **__):
        raise FloatingPointError("the loss is nan in epoch 1")

    monkeypatch.setattr(sweep, "run_trial", diverges)
    assert __main__.main([*ARGUMENTS, "--arms", "eca", "--seeds", "1", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "failed: eca, seed 0: FloatingPointError: the loss is nan in epoch 1" in error
    assert "1 of 1 trials failed" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "senet"], "attention 'senet': accepted are none, se"),
        (["--arms", "eca(k=4)"], "kernel_size=4: accepted are odd integers"),
        (["--arms", "eca(k=17)"], "kernel_size=17: accepted are at most channels=16"),
        (["--seeds", "0"], "seeds=0: accepted is a positive integer"),
        (["--epochs", "0"], "epochs=0: accepted is a positive integer"),
        (["--device", "cuda:77"], "device='cuda:77': torch sees"),
        (["--data", "folder:/no/such/folder"], "/no/such/folder"),
        (["--data", "mnist"], "mnist"),
        (["--backbone", "vgg16"], "backbone='vgg16': accepted are tiny"),
        (["--out", "/dev/null/results"], "/dev/null is not a folder"),
        (["--workers", "0"], "workers=0: accepted is a positive integer"),
        (["--gpu-share", "2"], "gpu_share=2.0: accepted are 0 < gpu_share <= 1"),
        (["--gpu-share", "0.5", "--workers", "2"], "gpu_share=0.5: accepted on a CUDA device"),
        (["--ray", "auto", "--workers", "2"], "workers=2 with ray='auto'"),
        (["--budget", "25"], "--budget 25: accepted is a time such as 90s, 25m or 1h30m"),
        (["--budget", "soon"], "--budget soon: accepted is a time"),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    # The last of two options counts.
    status = __main__.main([*ARGUMENTS, "--arms", "eca", "--out", str(out), *arguments])
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not out.exists()


def test_help_names_the_choices(capsys):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["sweep", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "shapes",
        "folder:PATH",
        "resnet18",
        "eca(k=3-5-5-7)",
        "--per-class",
        "(default: 15)",
    ):
        assert word in text


def test_results_command_prints_the_table(dataset, tmp_path, capsys):
    run_sweep(plan_sweep(dataset, "tiny", ["none"], 1, QUICK), tmp_path)
    assert __main__.main(["results", str(tmp_path)]) == 0
    assert "colours" in capsys.readouterr().out
    assert __main__.main(["results", str(tmp_path / "none")]) == 2
    assert "no such folder of results" in capsys.readouterr().err


def test_the_command_that_compares(capsys):
    pilot = str(Path(__file__).parents[1] / "data" / "results" / "cifar10-tiny")
    trials = load_results(pilot)
    for arms in (None, ["eca( k=3 )", "se"]):
        chosen = [] if arms is None else ["--arms", *arms]
        assert __main__.main(["compare", pilot, "--baseline", "none", *chosen]) == 0
        text = capsys.readouterr().out
        assert "16 x 16 pixels; tiny; " in text
        assert "Minus none, in points of top1" in text
        family = trials if arms is None else trials[trials["arm"].isin(["none", "se", "eca(k=3)"])]
        expected = stats.compare(family, "none").set_index("arm")
        rows = [line.split() for line in text.splitlines() if line.split()[-1:] == ["undecided"]]
        assert [row[0] for row in rows] == list(expected.index)
        for arm, n, difference, _, _, p, *_ in rows:
            assert int(n) == expected.loc[arm, "n"]
            assert float(difference) == pytest.approx(expected.loc[arm, "difference"], abs=0.006)
            assert float(p) == pytest.approx(expected.loc[arm, "p_holm"], abs=0.006)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "se", "eca(k=11)"], "--arms eca(k=11): accepted are those in"),
        (["--arms", "se", "eca(k=2"], "attention 'eca(k=2'"),
        (["--baseline", "cbam"], "baseline='cbam': accepted are none"),
        (["--baseline", "cbam", "--arms", "se"], "baseline='cbam': accepted are se"),
        (["--metric", "accuracy"], "metric='accuracy'"),
        (["--margin", "-1"], "margin=-1.0"),
    ],
)
def test_what_cannot_be_compared_is_named(arguments, message, capsys):
    pilot = str(Path(__file__).parents[1] / "data" / "results" / "cifar10-tiny")
    assert __main__.main(["compare", pilot, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_training_needs_no_notebook_packages(tmp_path):
    # Where training runs there may be only what pyproject.toml lists as dependencies.
    code = """
import json, sys
import eca_lab.__main__
status = eca_lab.__main__.main(json.loads(sys.argv[1]))
absent = ["ipywidgets", "IPython", "matplotlib", "seaborn", "jupyterlab", "nbval", "timm",
          "playwright", "ray"]
assert not (loaded := [name for name in absent if name in sys.modules]), loaded
sys.exit(status)
"""
    arguments = [*ARGUMENTS, "--arms", "eca", "--seeds", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(load_results(tmp_path)) == 1


def test_a_record_is_plain_json(dataset, tmp_path):
    run_sweep(plan_sweep(dataset, "tiny", ["none"], 1, QUICK), tmp_path)
    (path,) = Path(tmp_path).glob("*.json")
    assert json.loads(path.read_text())["status"] == "finished"


def test_checkpoints_are_trained_once_and_kept(dataset, tmp_path, monkeypatch):
    plan = plan_sweep(dataset, "tiny", ["none", "eca(k=3)"], 1, QUICK)
    paths = train_checkpoints(plan, tmp_path / "new")
    assert [path.name for path in paths] == [
        "colours16-tiny-none-seed0.safetensors",
        "colours16-tiny-eca_k_3-seed0.safetensors",
    ]
    model, card = load_checkpoint(paths[1])
    assert card["trial"] == plan.trials[1].description
    assert card["classes"] == ["red", "green"]
    assert card["device"].startswith("cpu: ")
    assert 100 * correct_predictions(model, dataset).mean() == pytest.approx(card["top1"])

    trained = []
    genuine = sweep.train_network
    monkeypatch.setattr(
        sweep, "train_network", lambda *a, **k: trained.append(a[2:4]) or genuine(*a, **k)
    )
    tensors = paths[0].read_bytes()
    assert train_checkpoints(plan, tmp_path / "new") == paths
    assert trained == []
    paths[0].write_bytes(tensors[:1000])  # damaged: trained again, to the same weights
    train_checkpoints(plan, tmp_path / "new")
    assert trained == [("none", 0)]
    assert paths[0].read_bytes() == tensors
    longer = plan_sweep(dataset, "tiny", ["none"], 1, dataclasses.replace(QUICK, epochs=2))
    train_checkpoints(longer, tmp_path / "new")  # another recipe under the same name
    assert trained == [("none", 0)] * 2


def test_the_command_for_checkpoints(tmp_path, monkeypatch, capsys):
    arguments = [*ARGUMENTS[1:], "--classes", "2", "--batch-size", "16", "--seeds", "1"]
    arguments += ["--arms", "eca", "--device", "cpu", "--out", str(tmp_path)]
    assert __main__.main(["checkpoints", *arguments]) == 0
    path = tmp_path / "shapes8-tiny-eca-seed0.safetensors"
    top1 = load_checkpoint(path)[1]["top1"]
    assert capsys.readouterr().out == f"{path}: top-1 {top1:.2f} %\n"
    assert __main__.main(["checkpoints", *arguments, "--arms", "eca(k=4)"]) == 2

    def diverges(*_, **__):
        raise FloatingPointError("the loss is nan in epoch 1")

    monkeypatch.setattr(sweep, "train_network", diverges)
    assert __main__.main(["checkpoints", *arguments, "--arms", "eca", "se"]) == 1
    assert f"the loss is nan in epoch 1. The networks trained before it are kept in {tmp_path}" in (
        capsys.readouterr().err
    )
    assert path.exists()
