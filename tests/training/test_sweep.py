import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch

from eca_lab import __main__
from eca_lab.attention.spec import parse_spec
from eca_lab.evidence import results
from eca_lab.evidence.results import load_records, load_results, write_record
from eca_lab.networks import backbones
from eca_lab.networks.backbones import build_model
from eca_lab.networks.checkpoints import find_checkpoint, load_checkpoint
from eca_lab.networks.cost import parameters
from eca_lab.provenance import available_cores
from eca_lab.recipe import Recipe
from eca_lab.training import planning, sweep
from eca_lab.training.planning import check_arms, plan_sweep
from eca_lab.training.sweep import Sweep

QUICK = Recipe(epochs=1, batch_size=16, learning_rate=0.05)
ARGUMENTS = [
    *("sweep", "--data", "shapes", "--size", "8", "--per-class", "13", "--epochs", "1"),
    *("--device", "cpu"),
]
STUDY = Path(__file__).parents[2] / "data" / "results" / "study"
DONE = {  # the outcome of a training
    "top1": 50.0,
    "top5": 100.0,
    "loss_curve": [1.0],
    "seconds": 1.0,
    "images_per_second": 64.0,
    "correct": "AAA=",
    "precision": "float32",
    "path": "modules",
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def trained(monkeypatch):
    """Nothing is trained: a list of the (arm, seed) that would have been, all with `DONE`."""
    calls = []

    def fake(dataset, backbone, arm, seed, *_, **__):
        calls.append((str(arm), seed))
        return None, DONE

    monkeypatch.setattr(planning, "train_network", fake)
    return calls


def test_trials_are_seed_major(dataset):
    plan = plan_sweep(dataset, "tiny", ["none", "eca( )"], seeds=2, recipe=QUICK)
    assert [(trial.arm, trial.seed) for trial in plan.trials] == [
        (parse_spec(arm), seed) for seed in (0, 1) for arm in ("none", "eca")
    ]
    assert len({trial.identity for trial in plan.trials}) == 4
    none, eca = (trial.description["parameters"] for trial in plan.trials[:2])
    assert eca - none == 3 + 3 + 5 + 5
    assert none == parameters(build_model("tiny", "none", num_classes=2, stem="cifar"))


def test_arms_that_are_the_same_network_run_once(dataset):
    arms = ["eca", "none", "eca(k=3-3-5)", "eca(gamma=2,b=1)", "eca(k=3)", "none"]
    plan = plan_sweep(dataset, "tiny", arms, seeds=3, recipe=QUICK)
    assert list(map(str, plan.arms)) == ["eca(k=3-3-5)", "none", "eca(k=3)"]
    duplicates = {str(arm): str(same) for arm, same in plan.duplicates.items()}
    assert duplicates == {"eca": "eca(k=3-3-5)", "eca(gamma=2, b=1)": "eca(k=3-3-5)"}
    assert len(plan.trials) == 9


def test_a_plan_draws_no_weights(dataset, monkeypatch):
    devices = []
    genuine = backbones.add_attention

    def spy(model, arm):
        devices.append(next(model.parameters()).device.type)
        genuine(model, arm)

    monkeypatch.setattr(backbones, "add_attention", spy)
    monkeypatch.setattr(planning, "add_attention", spy)
    before = torch.get_rng_state()
    plan_sweep(dataset, "tiny", ["se", "eca(order=shuffled)"], seeds=3, recipe=QUICK)
    assert set(devices) == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


def test_recorded_trials_are_finished_to_this_day(dataset):
    # Zeros stand for the images: a trial is known by the fingerprint of its data.
    records = load_records(STUDY)
    record = next(each for each in records.values() if each["arm"] == "eca(order=shuffled)")
    described = record["trial"]["dataset"]
    size, classes = described["size"], described["classes"]
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    recorded = dataclasses.replace(
        dataset,
        train_images=images.expand(described["train"], -1, -1, -1),
        test_images=images.expand(described["test"], -1, -1, -1),
        classes=tuple(map(str, range(classes))),
        fingerprint=described["fingerprint"],
    )
    arms = dict.fromkeys(each["arm"] for each in records.values())
    recipe = Recipe(**record["trial"]["recipe"])
    plan = plan_sweep(recorded, record["trial"]["backbone"], arms, seeds=10, recipe=recipe)
    assert len(plan.trials) == len(records)
    assert Sweep(plan, STUDY).remaining() == []


def test_finished_trials_are_skipped(dataset, tmp_path, trained):
    small = plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK)
    assert Sweep(small, tmp_path).run() == []
    first = load_records(tmp_path)
    assert len(first) == 2

    large = plan_sweep(dataset, "tiny", ["none", "eca", "eca(k=3)"], seeds=2, recipe=QUICK)
    assert len(Sweep(large, tmp_path).remaining()) == 4
    Sweep(large, tmp_path).run()
    assert trained[2:] == [("eca(k=3)", 0), ("none", 1), ("eca", 1), ("eca(k=3)", 1)]
    records = load_records(tmp_path)
    assert len(records) == 6
    assert all(records[identity] == record for identity, record in first.items())


def test_records_say_where_they_come_from(dataset, tmp_path):
    Sweep(plan_sweep(dataset, "tiny", ["eca"], seeds=1, recipe=QUICK), tmp_path).run()
    (record,) = load_records(tmp_path).values()
    assert record["arm"] == "eca"
    assert record["trial"]["recipe"]["epochs"] == 1
    assert record["trial"]["dataset"]["fingerprint"] == "0" * 64
    assert record["trial"]["seed"] == 0
    assert record["device"].startswith("cpu: ")
    assert (record["precision"], record["path"]) == ("float32", "modules")
    assert {"python", "torch", "torchvision", "numpy"} <= record["versions"].keys()
    assert {"commit", "changed"} == record["code"].keys() or record["code"] == {}

    renamed = plan_sweep(dataset, "tiny", ["eca(k=3-3-5)"], seeds=1, recipe=QUICK)
    assert Sweep(renamed, tmp_path).remaining() == []
    assert Sweep(renamed, tmp_path).results()["arm"].tolist() == ["eca(k=3-3-5)"]
    assert load_results(tmp_path)["arm"].tolist() == ["eca"]


def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(dataset, tmp_path, monkeypatch):
    failing = ["eca"]

    def sometimes(dataset, backbone, arm, seed, *_, **__):
        if (arm.name, seed) == ("eca", 0) and failing:
            raise MemoryError("not today")
        return None, DONE

    monkeypatch.setattr(planning, "train_network", sometimes)
    plan = plan_sweep(dataset, "tiny", ["none", "eca", "se"], seeds=2, recipe=QUICK)
    (failed,) = Sweep(plan, tmp_path).run()
    assert (failed["arm"], failed["trial"]["seed"]) == ("eca", 0)
    assert failed["reason"] == "MemoryError: not today"
    assert len(load_results(tmp_path)) == 5
    failing.clear()
    assert [(trial.arm.name, trial.seed) for trial in Sweep(plan, tmp_path).remaining()] == [
        ("eca", 0)
    ]
    assert Sweep(plan, tmp_path).run() == []
    assert len(load_results(tmp_path)) == 6


def rewrite(folder, change):
    """Change the records in a folder as another machine would have written them."""
    for record in load_records(folder).values():
        record.pop("checksum", None)
        change(record)
        write_record(folder, record)


@pytest.mark.parametrize(
    ("planned", "message"),
    [
        (("tiny", ["senet"], 1), "attention 'senet': accepted are none, static, se"),
        (("tiny", [], 1), "arms="),
        (("tiny", ["eca"], 0), "seeds=0: accepted is an integer from 1 to 10000"),
        (("vgg16", ["eca"], 1), "backbone='vgg16': accepted are tiny"),
    ],
)
def test_what_cannot_be_planned(planned, message):
    backbone, arms, seeds = planned
    with pytest.raises(ValueError, match=message):
        check_arms(backbone, arms, seeds=seeds)


def test_seeds_begun_elsewhere_are_left_alone(dataset, tmp_path, trained):
    Sweep(plan_sweep(dataset, "tiny", ["none", "eca"], seeds=2, recipe=QUICK), tmp_path).run()
    here = load_records(tmp_path).values()
    assert (
        Sweep(
            plan_sweep(dataset, "tiny", ["se"], seeds=3, recipe=QUICK), tmp_path
        ).begun_elsewhere()
        == {}
    )

    def another_machine(record):
        record["device"] = "cpu: Another Processor, 2 threads"
        for name in ("precision", "path"):  # as in records of before
            del record[name]

    rewrite(tmp_path, another_machine)
    plan = plan_sweep(dataset, "tiny", ["none", "se"], seeds=3, recipe=QUICK)
    elsewhere = ("cpu: Another Processor", "float32", "modules")
    assert Sweep(plan, tmp_path).begun_elsewhere() == {0: {elsewhere}, 1: {elsewhere}}
    with pytest.warns(UserWarning, match=r"seeds 0, 1 were begun elsewhere \(cpu: Another"):
        Sweep(plan, tmp_path).run()
    assert trained[len(here) :] == [("none", 2), ("se", 2)]
    # Another recipe has no pairs there, whatever its device.
    other = plan_sweep(
        dataset, "tiny", ["none", "se"], seeds=3, recipe=Recipe(epochs=2, batch_size=16)
    )
    assert Sweep(other, tmp_path).begun_elsewhere() == {}
    assert Sweep(plan, tmp_path, any_device=True).run() == []
    assert trained[-2:] == [("se", 0), ("se", 1)]
    assert Sweep(plan, tmp_path).remaining() == []
    # Now there are trials from here, to pair others from here with.
    another = plan_sweep(dataset, "tiny", ["eca(k=9)"], seeds=3, recipe=QUICK)
    assert Sweep(another, tmp_path).begun_elsewhere() == {}


def test_another_kind_of_processor_under_the_same_name_is_elsewhere(
    dataset, tmp_path, monkeypatch, trained
):
    kind = ["AVX2"]
    monkeypatch.setattr("eca_lab.provenance._processor", lambda: "AMD EPYC")
    monkeypatch.setattr("eca_lab.provenance._instructions", lambda: kind[0])
    Sweep(plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK), tmp_path).run()
    kind[0] = "AVX512 with bfloat16"
    plan = plan_sweep(dataset, "tiny", ["none", "eca", "se"], seeds=2, recipe=QUICK)
    with pytest.warns(
        UserWarning, match=r"seeds 0 were .* \(cpu: AMD EPYC, AVX2, float32"
    ) as caught:
        Sweep(plan, tmp_path).run()
    assert "devices.toml" not in str(caught[0].message)
    assert trained[2:] == [("none", 1), ("eca", 1), ("se", 1)]


def test_a_kind_of_processor_that_older_records_do_not_tell(
    dataset, tmp_path, monkeypatch, trained
):
    monkeypatch.setattr("eca_lab.provenance._processor", lambda: "AMD EPYC")
    monkeypatch.setattr("eca_lab.provenance._instructions", lambda: "AVX2")
    Sweep(plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK), tmp_path).run()
    rewrite(tmp_path, lambda record: record.update(device="cpu: AMD EPYC, 1 threads"))
    plan = plan_sweep(dataset, "tiny", ["none", "eca", "se"], seeds=1, recipe=QUICK)
    with pytest.warns(UserWarning, match="seeds 0 were begun elsewhere") as caught:
        Sweep(plan, tmp_path).run()
    assert len(trained) == 2
    told = str(caught[0].message)
    assert "Records from before say cpu: AMD EPYC alone, which this processor is called" in told
    lines = '["cpu: AMD EPYC"]', 'device = "cpu: AMD EPYC, AVX2"'
    assert all(line in told for line in lines)
    # What the message says is what helps.
    (tmp_path / "devices.toml").write_text("\n".join(lines))
    Sweep(plan, tmp_path).run()
    assert trained[2:] == [("se", 0)]
    assert load_results(tmp_path)["device"].unique().tolist() == ["cpu: AMD EPYC, AVX2"]


def test_emulated_bfloat16_is_told_with_its_time(dataset, tmp_path, monkeypatch, trained):
    order = []
    monkeypatch.setattr(
        planning.Plan,
        "estimate_seconds",
        lambda plan, trial, device: order.append("estimate") or 90.0,
    )
    monkeypatch.setattr(planning, "cpu_has_bfloat16", lambda: False)
    plan = plan_sweep(
        dataset, "tiny", ["none", "eca", "se"], seeds=1, recipe=QUICK, precision="bfloat16"
    )
    with pytest.warns(UserWarning, match="bfloat16 is emulated on this processor, cpu: ") as caught:
        Sweep(plan, tmp_path / "a").run()
    assert "3 trials take about 0:04:30. precision='float32'" in str(caught[0].message)
    assert order == ["estimate"]
    with pytest.warns(UserWarning, match="3 trials take about 0:00:30"):
        Sweep(plan, tmp_path / "b").run(estimate=10.0)
    assert order == ["estimate"]  # what is known is not measured

    def failing(*_):
        return None

    monkeypatch.setattr(planning.Plan, "estimate_seconds", failing)
    with pytest.warns(UserWarning, match="3 trials take an unknown time"):
        Sweep(plan, tmp_path / "c").run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sweep(plan, tmp_path / "c").run()  # nothing is left to run
        for precision in ("float32", "auto"):
            monkeypatch.setattr("eca_lab.training.train.cpu_has_bfloat16", lambda: False)
            other = plan_sweep(
                dataset, "tiny", ["none"], seeds=1, recipe=QUICK, precision=precision
            )
            Sweep(other, tmp_path / precision).run()
        monkeypatch.setattr(planning, "cpu_has_bfloat16", lambda: True)
        Sweep(plan, tmp_path / "d").run()


def test_the_command_tells_of_emulated_bfloat16_before_it_trains(tmp_path, monkeypatch, capsys):
    said = []

    def fake(*_, **__):
        said.append(capsys.readouterr())
        return None, DONE

    monkeypatch.setattr(planning.Plan, "estimate_seconds", lambda *_: 100.0)
    monkeypatch.setattr(planning, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(planning, "train_network", fake)
    arguments = [*ARGUMENTS, "--arms", "eca", "se", "--seeds", "1", "--precision", "bfloat16"]
    assert __main__.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "2 to run on cpu, about 0:03:20" in said[0].out
    assert "warning: bfloat16 is emulated on this processor" in said[0].err
    assert "2 trials take about 0:03:20" in said[0].err


def test_seeds_that_are_left_alone_are_not_estimated(tmp_path, monkeypatch, trained, capsys):
    arguments = [*ARGUMENTS, "--seeds", "2", "--out", str(tmp_path), "--precision", "float32"]
    arguments = [*arguments, "--arms", "eca"]
    monkeypatch.setattr(planning.Plan, "estimate_seconds", lambda *_: 1.0)
    assert __main__.main([*arguments[:-1], "eca", "--seeds", "1"]) == 0
    rewrite(tmp_path, lambda record: record.update(device="cpu: Another, 1 threads"))
    assert __main__.main([*arguments, "se"]) == 0
    printed = capsys.readouterr()
    assert "1 of 4 trials are finished" in printed.out
    assert "2 to run on cpu" in printed.out
    assert "seeds 0 were begun elsewhere (cpu: Another" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "131"], "batch_size=131: accepted is an integer from 1 to 130"),
        (["--classes", "3"], "batch_size=128: accepted is an integer from 1 to 39"),
        (
            ["--data", "cifar100", "--per-class", "1"],
            "batch_size=128: accepted is an integer from 1",
        ),
    ],
)
def test_a_batch_of_more_than_all_images_is_known_before_they_are_loaded(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("eca_lab.data.load_dataset", None)
    arguments = [*ARGUMENTS, "--arms", "eca", "--out", str(tmp_path / "out"), *arguments]
    assert __main__.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_batch_of_more_than_all_images_is_no_plan(dataset):
    with pytest.raises(ValueError, match="batch_size=65: accepted is an integer from 1 to 64"):
        plan_sweep(dataset, "tiny", ["eca"], seeds=1, recipe=Recipe(batch_size=65))


def test_a_full_disk_ends_the_sweep_with_what_is_finished(dataset, tmp_path, monkeypatch, trained):
    genuine, written = results.write_record, []

    def full_after_two(out, record):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(record)
        genuine(out, record)

    monkeypatch.setattr(results, "write_record", full_after_two)
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], seeds=2, recipe=QUICK)
    with pytest.raises(OSError, match="No space left"):
        Sweep(plan, tmp_path).run()
    assert len(load_results(tmp_path)) == 2
    assert len(Sweep(plan, tmp_path).remaining()) == 2


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
    means = load_results(tmp_path / "demo").groupby("arm")["top1"].mean()
    for line in table:
        assert float(line.split()[2]) == pytest.approx(means[line.split()[0]], abs=0.006)

    assert __main__.main(arguments) == 0
    again = capsys.readouterr().out
    assert "6 of 6 trials are finished" in again
    assert again.endswith(done[done.rindex("shapes") :])


def test_two_recipes_are_not_averaged_together(dataset, tmp_path, capsys, trained):
    for rate in (0.05, 0.01):
        recipe = Recipe(epochs=1, batch_size=16, learning_rate=rate)
        Sweep(plan_sweep(dataset, "tiny", ["none"], seeds=2, recipe=recipe), tmp_path).run()
    assert __main__.main(["results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("learning_rate=0.05,") == text.count("learning_rate=0.01,") == 1
    assert [line.split()[-1] for line in text.splitlines() if line.split()[:1] == ["none"]] == [
        "2", "2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def plan_of_six(dataset):
    return plan_sweep(dataset, "tiny", ["none", "se", "eca"], seeds=2, recipe=QUICK)


def test_worker_processes_give_the_same_table(plan_of_six, tmp_path):
    # One thread there, so one thread here.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert Sweep(plan_of_six, tmp_path / "here").run() == []
    finally:
        torch.set_num_threads(threads)
    workers = max(2, available_cores())
    assert Sweep(plan_of_six, tmp_path / "processes", workers=workers).run() == []
    computed = ["arm", "seed", "top1", "top5", "loss", "identity"]
    here, processes = (load_results(tmp_path / each) for each in ("here", "processes"))
    pd.testing.assert_frame_equal(here[computed], processes[computed])
    records = load_records(tmp_path / "processes").values()
    assert all(record["device"].endswith(" 1 threads") for record in records)
    assert {path.suffix for path in (tmp_path / "processes").iterdir()} == {".json"}


def test_two_sweeps_in_one_folder_share_the_trials(plan_of_six, tmp_path, monkeypatch):
    ran = []

    def fake(dataset, backbone, arm, seed, *_, **__):
        ran.append((str(arm), seed))
        if ran[-1] == ("se", 0):  # in the middle of it, another sweep comes
            Sweep(plan_of_six, tmp_path).run()
        return None, DONE

    monkeypatch.setattr(planning, "train_network", fake)
    assert Sweep(plan_of_six, tmp_path).run() == []
    assert ran == [("none", 0), ("se", 0), ("eca", 0), ("none", 1), ("se", 1), ("eca", 1)]
    assert len(load_results(tmp_path)) == 6
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_a_deadline_starts_what_will_end(plan_of_six, tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(sweep.time, "monotonic", lambda: clock[0])

    def fake(*_, **__):
        clock[0] += 30
        return None, DONE

    monkeypatch.setattr(planning, "train_network", fake)
    Sweep(plan_of_six, tmp_path).run(deadline=1009, estimate=10)
    assert len(load_results(tmp_path)) == 0
    Sweep(plan_of_six, tmp_path).run(deadline=999)  # past, and nothing is known of the trials
    assert len(load_results(tmp_path)) == 0
    # 10 expected, then 30: 2 x 30 <= 65 < 3 x 30
    Sweep(plan_of_six, tmp_path).run(deadline=1065, estimate=10)
    assert load_results(tmp_path)[["arm", "seed"]].to_numpy().tolist() == [["none", 0], ["se", 0]]
    Sweep(plan_of_six, tmp_path).run(deadline=3000)
    assert len(load_results(tmp_path)) == 6


def test_the_budget_counts_from_the_start_of_the_command(tmp_path, monkeypatch, trained, capsys):
    now, estimates = time.monotonic(), []
    moments = iter([now, now + 50])
    monkeypatch.setattr(__main__.time, "monotonic", lambda: next(moments, now + 50))
    monkeypatch.setattr(planning.Plan, "estimate_seconds", lambda *_: estimates.append(1) or 1.0)
    arguments = [*ARGUMENTS, "--arms", "eca", "--seeds", "1", "--out", str(tmp_path)]
    assert __main__.main([*arguments, "--budget", "40s"]) == 0
    assert trained == []
    assert "1 of 1 trials are left" in capsys.readouterr().out
    assert __main__.main([*arguments, "--budget", "60s"]) == 0
    assert len(trained) == 1
    assert len(estimates) == 2  # one a command


def test_a_duration_in_words():
    assert planning.duration(5, at_once=2, seconds=60.4) == "about 0:03:01"
    assert planning.duration(5, at_once=2, seconds=None) == "an unknown time"
    assert planning.duration(10**6, at_once=1, seconds=1e9) == "more than a million years"


def test_estimate_is_from_the_rate_of_a_few_batches(dataset, monkeypatch):
    given = []

    def rate(sample, backbone, arm, seed, recipe, **_):
        given.append((len(sample.train_images), recipe.epochs))
        return None, {"images_per_second": 10.0}

    monkeypatch.setattr(planning, "train_network", rate)
    recipe = dataclasses.replace(QUICK, epochs=30, batch_size=4)
    plan = plan_sweep(dataset, "tiny", ["eca"], seeds=1, recipe=recipe)
    # Thirty epochs of 64 images, and a forward pass, a third of the work, of 20.
    assert plan.estimate_seconds(plan.trials[0]) == pytest.approx((30 * 64 + 20 / 3) / 10)
    assert given == [(16, 1)] * 2

    def none_in_sight(*_, **__):  # as it is recorded
        return None, {"images_per_second": 0.0}

    monkeypatch.setattr(planning, "train_network", none_in_sight)
    assert plan.estimate_seconds(plan.trials[0]) is None


def test_the_estimate_of_workers_is_with_their_threads(tmp_path, monkeypatch, capsys):
    threads = []
    monkeypatch.setattr("eca_lab.training.workers.available_cores", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(planning.Plan, "estimate_seconds", lambda *_: 60.0)
    monkeypatch.setattr(Sweep, "run", lambda *_, **__: [])
    arguments = [*ARGUMENTS, "--arms", "none", "eca", "--seeds", "2", "--out", str(tmp_path)]
    for workers, each, whole in ((1, 6, "0:04:00"), (3, 2, "0:02:00"), (8, 1, "0:01:00")):
        assert __main__.main([*arguments, "--workers", str(workers)]) == 0
        assert threads.pop() == each
        assert f"4 to run on cpu, about {whole}" in capsys.readouterr().out
    assert __main__.main(arguments) == 0
    assert threads == []
    assert "4 to run on cpu, about 0:04:00" in capsys.readouterr().out


def test_an_estimate_that_fails_ends_nothing(tmp_path, capsys):
    arguments = [*ARGUMENTS, "--arms", "none", "eca", "--seeds", "1", "--learning-rate", "1e30"]
    arguments += ["--batch-size", "16", "--budget", "9h", "--out", str(tmp_path)]
    assert __main__.main(arguments) == 1
    printed = capsys.readouterr()
    assert "2 to run on cpu, for an unknown time" in printed.out
    assert printed.err.count("FloatingPointError: the loss is") == 2
    records = load_records(tmp_path).values()
    assert [record["status"] for record in records] == ["failed", "failed"]


def test_invalid_records_are_set_aside_and_their_trials_run_again(dataset, tmp_path, trained):
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK)
    Sweep(plan, tmp_path).run()
    truncated, whole = sorted(tmp_path.glob("*.json"))
    kept, text = whole.read_bytes(), truncated.read_text()
    truncated.write_text(text[:100])
    others = {"notes.json": "{}", f"{'0' * 16}.json": text[:100]}  # not in the way of any trial
    for name, content in others.items():
        (tmp_path / name).write_text(content)
    with pytest.warns(UserWarning, match="was moved to .*rejected"):
        assert Sweep(plan, tmp_path).run() == []
    (moved,) = (tmp_path / "rejected").iterdir()
    assert moved.name.startswith(f"{truncated.stem}-")
    assert moved.read_text() == text[:100]
    with pytest.warns(UserWarning, match="is not counted"):
        assert len(load_records(tmp_path)) == 2
    assert whole.read_bytes() == kept

    for number, text in enumerate(["", "{}"], 2):
        truncated.write_text(text)
        with pytest.warns(UserWarning, match="was moved to .*rejected"):
            Sweep(plan, tmp_path).run()
        assert len(list((tmp_path / "rejected").iterdir())) == number  # none is overwritten
    assert {name: (tmp_path / name).read_text() for name in others} == others


def test_a_sweep_into_a_folder_of_other_files_leaves_them_alone(dataset, tmp_path, trained):
    saved = Path(STUDY).parents[1] / "checkpoints"
    for path in saved.glob("shapes*-seed0-*"):
        shutil.copy(path, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.warns(UserWarning, match="of what ends in .json, 3 are no records"):
        Sweep(plan_sweep(dataset, "tiny", ["eca"], seeds=1, recipe=QUICK), tmp_path).run()
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
    assert len(list(tmp_path.iterdir())) == len(before) + 1
    with pytest.raises(ValueError, match="out='': accepted is the path of a folder"):
        Sweep(plan_sweep(dataset, "tiny", ["eca"], seeds=1, recipe=QUICK), "").run()


def test_records_that_cannot_be_read_stop_a_sweep_before_it_trains(
    dataset, tmp_path, monkeypatch, trained
):
    Sweep(plan_sweep(dataset, "tiny", ["eca"], seeds=1, recipe=QUICK), tmp_path).run()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    def failing(path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OSError, match="cannot be read: Too many open files"):
        Sweep(plan_sweep(dataset, "tiny", ["eca", "se"], seeds=2, recipe=QUICK), tmp_path).run()
    assert len(trained) == 1
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_no_record_is_moved_for_lack_of_file_handles(tmp_path, make_record):
    identities = []
    for seed in range(3):
        record = make_record(seed=seed)
        identities.append(record["identity"])
        write_record(tmp_path, record)
    code = f"""
import os, resource
from eca_lab.evidence.results import load_records
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    os.close(taken.pop())  # enough to list a folder, and a thread to read a file in
genuine = os.listdir
def listdir(folder):
    names = genuine(folder)
    taken.append(os.open(os.devnull, os.O_RDONLY))
    return names
os.listdir = listdir
try:
    load_records({str(tmp_path)!r}, set_aside={identities!r})
except OSError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be read: Too many open files" in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


@pytest.mark.parametrize("workers", [None, 2])
def test_a_folder_that_moves_away_ends_the_sweep_and_loses_no_trial(
    dataset, tmp_path, monkeypatch, workers
):
    out, away, calls = tmp_path / "out", tmp_path / "away", []

    def fake(dataset, backbone, arm, seed, *_, **__):
        calls.append((str(arm), seed))
        if len(calls) == 2:
            out.rename(away)
        return None, DONE

    class Pool:  # of one process, which begins two trials before the first ends
        size = 2

        def __init__(self, job, *_, **__):
            self.job, self.events = job, []

        def start(self):
            self.events.append((len(self.events), "ready"))

        def submit(self, worker, trial):
            self.events.append((worker, self.job(trial, "cpu", on_epoch=id)))

        def wait(self):
            events, self.events = self.events, []
            return events

        def close(self):
            pass

    monkeypatch.setattr(planning, "train_network", fake)
    monkeypatch.setattr(sweep, "ProcessPool", Pool)
    plan = plan_sweep(dataset, "tiny", ["none", "eca", "se"], seeds=1, recipe=QUICK)
    with pytest.raises(OSError, match=f"{out} was moved or removed while the sweep ran") as error:
        Sweep(plan, out, workers=workers).run()
    assert "is in a new folder of that name; put the two together" in str(error.value)
    assert len(calls) == 2  # no other trial is started
    recorded = {path.name for path in (*out.glob("*.json"), *away.glob("*.json"))}
    assert len(recorded) == 2
    assert len(list(out.glob("*.json"))) == (workers or 1)


def test_a_lock_that_cannot_be_taken_loses_no_trial(dataset, tmp_path, monkeypatch, trained):
    genuine = sweep.FileLock

    def out_of_handles(path):
        if trained:
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return genuine(path)

    monkeypatch.setattr(sweep, "FileLock", out_of_handles)
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK)
    with pytest.raises(OSError, match=f"{tmp_path} cannot be used any more: .*Too many open"):
        Sweep(plan, tmp_path).run()
    assert [each["arm"] for each in load_records(tmp_path).values()] == ["none"]


def test_a_folder_that_moves_away_between_trials(dataset, tmp_path, monkeypatch, trained):
    out = tmp_path / "out"
    genuine = results.write_record

    def moved_then(folder, record):
        genuine(folder, record)
        out.rename(tmp_path / "away")

    monkeypatch.setattr(results, "write_record", moved_then)
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK)
    with pytest.raises(FileNotFoundError, match=f"{out} was moved or removed while the sweep ran"):
        Sweep(plan, out).run()
    assert len(trained) == 1
    assert not out.exists()


def test_a_record_that_its_folder_cannot_take_is_kept_elsewhere(
    dataset, tmp_path, monkeypatch, trained
):
    out, genuine = tmp_path / "out", results.write_record

    def full(folder, record):
        if Path(folder) == out:
            raise OSError(errno.ENOSPC, "No space left on device")
        genuine(folder, record)

    monkeypatch.setattr(results, "write_record", full)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK)
    with pytest.raises(OSError, match=r"No space left on device: the record of none, seed 0") as e:
        Sweep(plan, out).run()
    (rescued,) = tmp_path.glob("eca-lab-*/*.json")
    assert f"is kept in {rescued.parent}; move it to {out}" in str(e.value)
    assert list(load_records(rescued.parent)) == [plan.trials[0].identity]
    assert len(trained) == 1


def test_the_message_of_a_folder_that_moved_away(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def fake(*_, **__):
        out.rename(tmp_path / "away")
        return None, DONE

    monkeypatch.setattr(planning, "train_network", fake)
    monkeypatch.setattr(planning.Plan, "estimate_seconds", lambda *_: 1.0)
    arguments = [*ARGUMENTS, "--arms", "eca", "se", "--seeds", "1", "--out"]
    assert __main__.main([*arguments, str(out)]) == 1
    error = capsys.readouterr().err
    assert f"error: {out} was moved or removed while the sweep ran: the record of eca" in error
    assert "1 of 2 trials are finished" in error

    other = tmp_path / "other"

    def gone(*_, **__):
        shutil.rmtree(other)
        raise KeyboardInterrupt

    monkeypatch.setattr(planning, "train_network", gone)
    assert __main__.main([*arguments, str(other)]) == 130
    assert f"cannot be told: {other}: no such folder of results" in capsys.readouterr().err


# Ctrl-C in a terminal reaches every process of it; a job scheduler's SIGTERM only the first.
@pytest.mark.parametrize(
    ("stop", "number", "workers"),
    [(os.killpg, signal.SIGINT, ["--workers", "2"]), (os.kill, signal.SIGTERM, [])],
    ids=["SIGINT", "SIGTERM"],
)
def test_stopped_it_says_what_is_kept_and_leaves_nobody_behind(tmp_path, stop, number, workers):
    arguments = ["--arms", "none", "eca", "--seeds", "99", *workers]
    command = [sys.executable, "-m", "eca_lab", *ARGUMENTS, *arguments, "--out", str(tmp_path)]
    environment = {**os.environ, "TQDM_DISABLE": ""}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    stop(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("\nInterrupted: ")  # no progress bar on a pipe
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

    monkeypatch.setattr(planning, "train_network", interrupted)
    assert (
        __main__.main([*ARGUMENTS, "--arms", "eca", "--seeds", "1", "--out", str(tmp_path)]) == 130
    )
    assert "0 of 1 trials are finished" in (error := capsys.readouterr().err)
    assert "Run the same command again" in error


def test_a_failed_trial_gives_a_nonzero_exit(tmp_path, monkeypatch, capsys):
    def diverges(*_, **__):
        raise FloatingPointError("the loss is nan in epoch 1")

    monkeypatch.setattr(planning, "train_network", diverges)
    assert __main__.main([*ARGUMENTS, "--arms", "eca", "--seeds", "1", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "failed: eca, seed 0: FloatingPointError: the loss is nan in epoch 1" in error
    assert "1 of 1 trials failed" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "eca(k=17)"], "kernel_size=17: accepted are at most channels=16"),
        (["--device", "cuda:77"], "device='cuda:77': torch sees"),
        (["--data", "folder:/no/such/folder"], "/no/such/folder"),
        (["--data", "mnist"], "mnist"),
        (["--out", "/dev/null/results"], "Not a directory: '/dev/null/"),
        (["--gpu-share", "0.5", "--workers", "2"], "gpu_share=0.5: accepted with workers or ray"),
        (["--ray", "auto", "--workers", "2"], "workers=2 with ray='auto'"),
        (["--ray", "auto", "--device", "cuda:1"], "device='cuda:1': accepted are cpu, cuda"),
        (["--ray", ""], "ray='': accepted is auto, or HOST:PORT"),
        (["--ray", "localhost:" + "9" * 30], "no cluster answers: "),
        (["--device", ""], "device='': accepted are 'cpu' and 'cuda'"),
        (["--device", "cuda:" + "9" * 20], "device='cuda:99999999999999999999': torch sees"),
        (["--device", "cuda:\u0661"], "device='cuda:\u0661': accepted are 'cpu' and 'cuda'"),
        (["--epochs", "9" * 30], "accepted is an integer from 1 to 100000"),
        (["--seeds", "1000000"], "seeds=1000000: accepted is an integer from 1 to 10000"),
        (["--seeds", "1" + "0" * 30], "accepted is an integer from 1 to 10000"),
        (["--workers", "1" + "0" * 30], "accepted is an integer from 1 to 1000"),
        (
            ["--gpu-share", "1e-320", "--ray", "auto"],
            "gpu_share=1e-320: accepted is a finite number",
        ),
        (["--out", ""], "out='': accepted is the path of a folder"),
        (["--out", __file__], f"out: Not a directory: '{__file__}', since '{__file__}' is none"),
        (["--setting", "small"], "--setting small: its --study is missing"),
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


def test_the_command_for_checkpoints(tmp_path, monkeypatch, capsys):
    arguments = [*ARGUMENTS[1:], "--classes", "2", "--batch-size", "16", "--seeds", "1"]
    arguments += ["--arms", "eca", "--device", "cpu", "--out", str(tmp_path)]
    assert __main__.main(["checkpoints", *arguments]) == 0
    path = find_checkpoint(tmp_path, "eca", seed=0, dataset="shapes8")
    top1 = load_checkpoint(path)[1]["top1"]
    assert capsys.readouterr().out == f"{path}: top-1 {top1:.2f} %\n"

    def diverges(*_, **__):
        raise FloatingPointError("the loss is nan in epoch 1")

    monkeypatch.setattr(planning, "train_network", diverges)
    assert __main__.main(["checkpoints", *arguments, "--arms", "eca", "se"]) == 1
    assert f"the loss is nan in epoch 1. The networks trained before it are kept in {tmp_path}" in (
        capsys.readouterr().err
    )
    assert path.exists()


def test_all_arms_train_by_one_path(dataset):
    assert plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK, fused=True).fused
    with pytest.warns(UserWarning, match="all arms train by the modules, not fused: cbam: its"):
        plan = plan_sweep(
            dataset, "tiny", ["none", "cbam", "eca"], seeds=1, recipe=QUICK, fused=True
        )
    assert not plan.fused


def test_networks_of_the_first_seeds_are_kept(dataset, tmp_path):
    plan = plan_sweep(dataset, "tiny", ["eca"], seeds=2, recipe=QUICK, keep=1)
    plan = dataclasses.replace(plan, checkpoints=tmp_path / "kept")
    with pytest.warns(UserWarning, match="a network is not kept: .*kept"):
        Sweep(
            plan, tmp_path
        ).run()  # there is no such folder, and the trial is finished all the same
    assert len(Sweep(plan, tmp_path).remaining()) == 0
    (tmp_path / "kept").mkdir()
    Sweep(plan, tmp_path / "again").run()
    path = find_checkpoint(tmp_path / "kept", "eca", seed=0, dataset="colours16")
    _, card = load_checkpoint(path)
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 1  # and none of seed 1
    record = load_records(tmp_path / "again")[plan.trials[0].identity]
    assert all(card[key] == record[key] for key in ("correct", "loss_curve", "device", "trial"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sweep(plan, tmp_path / "anew").run()  # what is kept already stays
    assert load_checkpoint(path)[1] == card
