"""That `make gpu` can be trusted where nobody has seen it: its stages, their ends and its table."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from eca_lab import __main__ as command_line

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu
import train_throughput


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def quick(monkeypatch):
    """Limits of a second where the command has many."""
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(gpu, "GRACE", 1)


def stub(name, code, *, seconds=60, figures=lambda: [], **options):
    return gpu.Stage(name, [sys.executable, "-S", "-c", code], seconds, figures, **options)


def run_all(stages, out, minutes=10):
    return gpu.run_all(stages, out, minutes=minutes, about="here", dry=False)


def test_without_a_gpu_one_line_says_what_is_missing(no_gpu, capsys, tmp_path):
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert output.err.startswith(f"error: no GPU: torch {torch.__version__}")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_earlier_results_is_refused(capsys, tmp_path):
    (tmp_path / "summary.md").write_text("earlier")
    assert gpu.main(["--dry", "--out", str(tmp_path)]) == 2
    assert "accepted is an empty folder, or a new one" in capsys.readouterr().err
    assert (tmp_path / "summary.md").read_text() == "earlier"


def test_the_commands_for_a_gpu_lack_nothing_but_the_gpu(no_gpu, capsys, tmp_path):
    """Every option is accepted: the first thing that is refused is the device."""
    planned = gpu.stages(tmp_path, dry=False, data="folder:nowhere")
    tests, cost, throughput, study = planned
    assert [stage.name for stage in planned] == gpu_stages_of_the_readme()
    assert all((gpu.ROOT / name).exists() for name in tests.command if name.startswith("tests"))
    # In a process of its own: it changes for good how torch compiles.
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    refused = subprocess.run(cost.command, env=hidden, capture_output=True, text=True)
    assert "ValueError: device='cuda'" in refused.stderr
    assert train_throughput.main(throughput.command[2:]) == 2
    assert "device='cuda'" in capsys.readouterr().err
    assert study.command[1:3] == ["-m", "eca_lab"]
    assert command_line.main([*study.command[3:], "--budget", "60s"]) == 2
    assert "device='cuda'" in capsys.readouterr().err


def gpu_stages_of_the_readme():
    text = (gpu.ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    section = text.split("## `gpu.py`")[1].split("\n## ")[0]
    return [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]


def test_a_stage_that_fails_or_is_cut_off_does_not_stop_the_next(quick, tmp_path):
    overrun = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid)\n"
        "time.sleep(60)"
    )
    ended = run_all(
        [
            stub("fails", "raise SystemExit('it broke')"),
            stub("overruns", overrun, seconds=2),
            stub("misread", "print('well')", figures=lambda: 1 / 0),
            stub("works", "print('well')", figures=lambda: [gpu.Figure("answer", 42.0)]),
        ],
        tmp_path,
    )
    assert [each.how for each in ended] == ["failed (1): it broke", "cut off", "done", "done"]
    child = int((tmp_path / "overruns.txt").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert ended[1].seconds < 10
    assert ended[2].figures[0].what == "cannot be read: ZeroDivisionError: division by zero"
    rows = (tmp_path / "summary.md").read_text().splitlines()[4:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| fails",
        "| overruns",
        "| misread",
        "| works",
    ]
    assert rows[-1].endswith("| done | answer | 42 |  |")
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["stages"][-1]["figures"][0]["value"] == 42


def test_what_has_ended_is_told_before_the_next_begins(tmp_path):
    """The second stage reads the summary of the first, as whoever cuts it off then would."""
    summary = tmp_path / "summary.md"
    ended = run_all(
        [stub("first", ""), stub("second", f"print(open({str(summary)!r}).read())")], tmp_path
    )
    assert [each.how for each in ended] == ["done", "done"]
    assert "| first |" in (tmp_path / "second.txt").read_text()


def test_no_stage_begins_when_the_time_is_over(tmp_path):
    (ended,) = run_all([stub("late", "print('ran')")], tmp_path, minutes=gpu.GRACE / 60)
    assert ended.how == "no time was left"
    assert not (tmp_path / "late.txt").exists()


def test_an_interruption_ends_all_and_is_told(monkeypatch, quick, tmp_path):
    def interrupt(process, seconds, meanwhile):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "_wait", interrupt)
    ended = run_all([stub("first", "import time; time.sleep(60)"), stub("second", "")], tmp_path)
    assert [each.how for each in ended] == ["interrupted"]
    assert "| first | 0 | interrupted |" in (tmp_path / "summary.md").read_text()


def test_records_that_are_new_are_carried_and_a_sweep_knows_its_time(tmp_path):
    folder, out = tmp_path / "records", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "old.json").write_text("old")
    an_hour_ago = time.time() - 3600
    os.utime(folder / "old.json", (an_hour_ago, an_hour_ago))
    code = (
        f"import sys; open({str(folder / 'new.json')!r}, 'w').write('new')\n"
        "print(*sys.argv[1:]); print('error: no images'); sys.exit(2)"
    )
    (ended,) = run_all([stub("study", code, seconds=50, budgeted=True, records=folder)], out)
    assert ended.how == "skipped: error: no images"
    assert [path.name for path in (out / "study").iterdir()] == ["new.json"]
    assert (out / "study.txt").read_text().splitlines()[0] == f"--budget {50 - gpu.SPARE}s"


def test_bad_input_of_another_stage_is_a_failure(tmp_path):
    (ended,) = run_all([stub("tests", "raise SystemExit(2)")], tmp_path)
    assert ended.how.startswith("failed (2)")


def test_the_cost_is_read_and_judged(tmp_path):
    path = tmp_path / "cost.csv"
    (nothing, *_) = [each for each in gpu.cost_figures(path, "resnet50") if each.goal]
    assert (nothing.value, nothing.met) == (None, None)
    path.write_text(
        "what,arm,ratio,passes\n"
        '"step of resnet50, 224 px, bfloat16","eca, modules",1.2,\n'
        '"step of resnet50, 224 px, bfloat16","eca, fused",1.03,\n'
        '"step of resnet50, 224 px, float32","eca, fused",1.04,\n'
        '"end of a block, 1 x 2 x 3 x 3, bfloat16","eca, fused",0.5,11.5\n'
    )
    found = {each.what: each for each in gpu.cost_figures(path, "resnet50")}
    steps = "step of resnet50, {}, ECA {} / plain by modules"
    assert found[steps.format("bfloat16", "modules")].value == 1.2
    assert found[steps.format("bfloat16", "fused")].met is True
    assert found[steps.format("float32", "fused")].met is False
    assert found[steps.format("float32", "modules")].value is None
    assert found["passes, end of a block, 1 x 2 x 3 x 3, bfloat16, eca, fused"].value == 11.5


def test_the_gain_is_that_of_each_repeat_and_judged(tmp_path):
    path = tmp_path / "gain.csv"
    assert [(each.value, each.met) for each in gpu.gain_figures(path)] == [(None, None)]
    path.write_text('ours,"DataLoader, float32",timm\n1000,200,500\n1200,400,300\n1100,200,550\n')
    ours, stock, timm = gpu.gain_figures(path)
    assert (ours.value, stock.value, timm.value) == (1100, 5, 2)
    assert (ours.met, stock.met, timm.met) == (None, True, None)
    path.write_text('ours,"DataLoader, float32"\n499,100\n')
    assert gpu.gain_figures(path)[1].met is False


def test_whole_seeds_are_counted(results):
    trials = results(none=[50, 51, 52], eca=[50, None, 52])
    assert [each.value for each in gpu.seed_figures(trials, 2)] == [5, 2]


def test_goals_are_not_judged_by_a_dry_run():
    ended = [gpu.Ended("cost", 1, "done", [gpu.Figure("ratio", 2.0, "at most 1.03", False)])]
    assert gpu.summary(ended, "here", judged=True).endswith("| 2 | at most 1.03: not met |\n")
    assert "1.03" not in gpu.summary(ended, "here", judged=False)
