"""What a GPU machine is to be asked, in one go of ten minutes that may be cut off.

    make gpu
    make gpu ARGS="--minutes 30" CIFAR10=folder:PATH OUT=somewhere
    make gpu ARGS=--dry

One after the other, in order of worth: the tests that need a GPU; the cost of attention, by
modules, compiled and fused; the throughput of the training loop against the stock loop and timm's;
and in the time that is left, the declared study STUDY as far as it fits, all arms of one seed after
those of another. Each stage is a process with a limit of its own. One that fails or is cut off does
not stop the next.

In the folder of the output each stage writes what it prints, as it prints it, to NAME.txt, and its
figures, as they come, to NAME.csv. The records of the study lie in `study`; copied to the folder of
the study in data/results, they are its own. `summary.md` and `summary.json` are written anew after
each stage.

With --dry all of it runs on the CPU, at sizes at which the figures mean nothing: the tests are only
collected, nothing is compiled, and the sweep is one of the embedded shapes. That is for CI.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from eca_lab.checks import check_integer
from eca_lab.evidence import results, studies
from eca_lab.provenance import available_cores, provenance

ROOT = Path(__file__).resolve().parents[1]
STUDY, SETTING = "fixed-k", "resnet10"
MOST_COST = 1.03  # of a training step of ResNet-50 with fused ECA, to one without attention
LEAST_GAIN = 5  # of images per second, to those of the stock loop
LEAST_SECONDS = 5  # in which a stage is still worth its start
GRACE = 10  # seconds that a stage has to end once it is told to
SPARE = 15  # seconds before its limit after which no trial of a sweep may end
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Figure:
    """One thing that came out; value is None where it was not measured.

    met tells whether it reached the goal, and is None where that cannot be told.
    """

    what: str
    value: float | None
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Stage:
    """A process of a name, its limit in seconds, and what gives the figures that came of it.

    budgeted is for a sweep: it is told its time as --budget. What is new in the folder `records`
    is copied into the output, time and again while it runs.
    """

    name: str
    command: list[str]
    seconds: float
    figures: Callable[[], list[Figure]]
    budgeted: bool = False
    records: Path | None = None


@dataclass(frozen=True)
class Ended:
    """How a stage ended, after how many seconds, and what came out."""

    stage: str
    seconds: float
    how: str
    figures: list[Figure]


def stages(out, *, dry, data):
    """The stages, in order of worth, which write into the folder `out`."""
    device = "cpu" if dry else "cuda"
    return [
        _tests(out, dry=dry),
        _attention_cost(out, device=device, dry=dry),
        _train_throughput(out, device=device, dry=dry),
        _dry_sweep(out) if dry else _study(out, data=data),
    ]


def _tests(out, *, dry):
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *marked]
    if dry:
        command.append("--collect-only")
    printed = out / "tests.txt"

    def figures():
        return [Figure(_last_line(printed), None)]

    return Stage("tests", command, 90, figures)


def _attention_cost(out, *, device, dry):
    table = out / "attention_cost.csv"
    network = "tiny" if dry else "resnet50"
    size, batch_size, repeats = (8, 2, 1) if dry else (224, 64, 20)
    options = {
        "device": device,
        "backbone": network,
        "blocks-of": network,
        "sizes": size,
        "batch-size": batch_size,
        "repeats": repeats,
        "csv": table,
    }
    # That for which there is a goal comes first.
    command = [*_benchmark("attention_cost.py", options), "--precisions", "bfloat16", "float32"]
    return Stage("attention_cost", command, 180, lambda: cost_figures(table, network))


def cost_figures(path, network):
    """What attention costs, by the table of attention_cost.py for steps of the network."""
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["what", "arm", "ratio"])
    found = []
    for precision in ("bfloat16", "float32"):
        is_step = table["what"].str.startswith("step of") & table["what"].str.endswith(precision)
        ratios = table[is_step].set_index("arm")["ratio"]
        for path_of_block in ("modules", "fused"):
            what = f"step of {network}, {precision}, ECA {path_of_block} / plain by modules"
            value = ratios.get(f"eca, {path_of_block}")
            if path_of_block == "fused":
                found.append(_at_most(what, value, MOST_COST))
            else:
                found.append(Figure(what, _number(value)))
    ends = table[table["what"].str.startswith("end of a block")]
    for _, row in ends[ends["arm"].isin(("eca, compiled", "eca, fused"))].iterrows():
        found.append(Figure(f"passes, {row['what']}, {row['arm']}", float(row["passes"])))
    return found


def _train_throughput(out, *, device, dry):
    table = out / "train_throughput.csv"
    options = {"device": device, "csv": table}
    if dry:
        options |= {"backbone": "tiny", "size": 8, "batch-size": 4, "steps": 2, "repeats": 1}
        options |= {"loader-workers": 0}
    else:
        options |= {"backbone": "resnet10", "batch-size": 512, "steps": 98, "repeats": 3}
        options |= {"loader-workers": min(8, available_cores())}
    command = _benchmark("train_throughput.py", options)
    return Stage("train_throughput", command, 150, lambda: gain_figures(table))


def gain_figures(path):
    """How many times as fast our loop is, by the table of train_throughput.py."""
    if not path.exists():
        return [_at_least("our loop / DataLoader, images per second", None, LEAST_GAIN)]
    rates = pd.read_csv(path)
    ours = rates.columns[0]
    found = [Figure(f"{ours}, images per second", float(rates[ours].median()))]
    for other in rates.columns[1:]:
        what = f"our loop / {other}"
        ratio = (rates[ours] / rates[other]).median()
        is_stock = other.startswith("DataLoader")
        figure = _at_least(what, ratio, LEAST_GAIN) if is_stock else Figure(what, _number(ratio))
        found.append(figure)
    return found


def _study(out, *, data):
    study = studies.load_study(STUDY)
    setting = study.settings[SETTING]
    folder = ROOT / "data" / "results" / study.results
    command = [sys.executable, "-m", "eca_lab", "sweep", "--study", STUDY, "--setting", SETTING]
    command += ["--data", data, "--device", "cuda", "--workers", "4", "--gpu-share", "0.25"]

    def figures():
        return seed_figures(setting.trials(results.load_results(folder)), len(setting.arms))

    # As long as there is time: what is cut off here, is so by the whole.
    return Stage("study", command, float("inf"), figures, budgeted=True, records=folder)


def _dry_sweep(out):
    arms = ["none", "eca"]
    folder = out / "study"
    command = [sys.executable, "-m", "eca_lab", "sweep", "--data", "shapes", "--classes", "2"]
    command += ["--per-class", "16", "--size", "8", "--batch-size", "16", "--epochs", "1"]
    command += ["--arms", *arms, "--seeds", "2", "--device", "cpu", "--out", str(folder)]

    def figures():
        return seed_figures(results.load_results(folder), len(arms))

    return Stage("study", command, float("inf"), figures, budgeted=True)


def seed_figures(trials, arms):
    """How much of a study is finished, if it has so many arms."""
    of_seed = trials.groupby("seed")["arm"].nunique()
    return [
        Figure("finished trials", len(trials)),
        Figure("seeds finished with all arms", int((of_seed == arms).sum())),
    ]


def _benchmark(script, options):
    pairs = ((f"--{name}", str(value)) for name, value in options.items())
    return [
        sys.executable,
        str(ROOT / "benchmarks" / script),
        *(part for each in pairs for part in each),
    ]


def _number(value):
    return None if value is None else float(value)


def _at_most(what, value, most):
    met = None if value is None else bool(value <= most)
    return Figure(what, _number(value), f"at most {most}", met)


def _at_least(what, value, least):
    met = None if value is None else bool(value >= least)
    return Figure(what, _number(value), f"at least {least}", met)


def _last_line(path):
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was printed")


def run(stage, out, *, left, environment):
    """Run a stage for no more than its limit and the seconds that are left: how it `Ended`."""
    limit = min(stage.seconds, left)
    if limit < LEAST_SECONDS:
        return Ended(stage.name, 0, "no time was left", [])
    command = list(stage.command)
    if stage.budgeted:
        command += ["--budget", f"{max(1, int(limit - SPARE))}s"]
    printed = out / f"{stage.name}.txt"
    began, began_on = time.monotonic(), time.time()
    with printed.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that it ends with all that it started
        )
        try:
            in_time = _wait(process, limit, lambda: _carry(stage.records, out, began_on))
            how = None if in_time else "cut off"
        except KeyboardInterrupt:
            how = INTERRUPTED
        finally:
            _end(process)
            _carry(stage.records, out, began_on)
    seconds = round(time.monotonic() - began, 1)
    how = how or _how(stage, process.returncode, printed)
    return Ended(stage.name, seconds, how, _figures(stage))


def _wait(process, seconds, meanwhile):
    """Whether a process ends within so many seconds; meanwhile is called every few of them."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            process.wait(min(5, left))
            return True
        except subprocess.TimeoutExpired:
            meanwhile()
    return False


def _end(process):
    """End a process and all that it started: as Ctrl-C does, and by force where that takes long."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:  # none is left
            break
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _carry(records, out, since):
    """Copy the records that were written since then into the output."""
    if records is None:
        return
    target = out / "study"
    target.mkdir(exist_ok=True)
    for path in records.glob("*.json"):
        written = path.stat().st_mtime
        copy = target / path.name
        if written >= since and not (copy.exists() and copy.stat().st_mtime >= written):
            shutil.copy2(path, copy)


def _how(stage, status, printed):
    """How a stage ended by itself, with such an exit status."""
    if status == 0:
        return "done"
    # Where there is no GPU or no such study we would not be here: it has not got its images.
    is_skipped = status == 2 and stage.records is not None
    return f"{'skipped' if is_skipped else f'failed ({status})'}: {_last_line(printed)}"


def _figures(stage):
    """What came out; where it cannot be read, that is what came out."""
    try:
        return stage.figures()
    except Exception as error:
        return [Figure(f"cannot be read: {type(error).__name__}: {error}", None)]


def summary(ended, about, *, judged):
    """The table of all stages that have ended, as Markdown; goals are told only where judged."""
    lines = [about, "", "| stage | seconds | ended | what came out | figure | goal |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for stage in ended:
        head = [stage.stage, f"{stage.seconds:.0f}", stage.how]
        for figure in stage.figures or [Figure("", None)]:
            value = "" if figure.value is None else f"{figure.value:,.4g}"
            goal = _goal(figure) if judged else ""
            cells = [*head, figure.what, value, goal]
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
            head = ["", "", ""]
    return "\n".join(lines) + "\n"


def _goal(figure):
    words = {True: "met", False: "not met", None: "not measured"}
    return f"{figure.goal}: {words[figure.met]}" if figure.goal else ""


def run_all(planned, out, *, minutes, about, dry):
    """Run the stages within so many minutes, and write the summary after each: what `Ended`."""
    deadline = time.monotonic() + 60 * minutes
    environment = os.environ | {"TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    if dry:
        environment |= {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    ended = []
    for stage in planned:
        print(f"{stage.name} ...", flush=True)
        # Whoever cuts the whole off does it then, and finds it ended.
        left = deadline - time.monotonic() - GRACE
        ended.append(run(stage, out, left=left, environment=environment))
        text = summary(ended, about, judged=not dry)
        (out / "summary.md").write_text(text, encoding="utf-8")
        told = {"about": about, "dry": dry, "stages": [asdict(each) for each in ended]}
        (out / "summary.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        if ended[-1].how == INTERRUPTED:
            break
    return ended


def main(arguments=None):
    """Run all; the exit status is 0 done, 1 not all is done, 2 no GPU or other bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=10, help="for all of it (default: 10)")
    parser.add_argument("--dry", action="store_true", help="on the CPU, for the wiring alone")
    parser.add_argument("--data", default="cifar10", help="of the study, as folder:PATH")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, or a new one")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    try:
        check_integer("minutes", options.minutes)
        if out.exists() and any(out.iterdir()):
            raise ValueError(f"out={options.out}: accepted is an empty folder, or a new one")
        if not options.dry and not torch.cuda.is_available():
            built = torch.version.cuda
            of = f"CUDA {built}" if built else "the CPU alone"
            dry = "--dry (make gpu ARGS=--dry) tries all of it on the CPU"
            raise ValueError(f"no GPU: torch {torch.__version__}, of {of}, sees none; {dry}")
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    here = provenance(torch.device("cpu" if options.dry else "cuda"))
    about = ", ".join(
        [here["device"], *(f"{name} {version}" for name, version in here["versions"].items())]
    )
    planned = stages(out, dry=options.dry, data=options.data)
    ended = run_all(planned, out, minutes=options.minutes, about=about, dry=options.dry)
    print(f"\n{(out / 'summary.md').read_text(encoding='utf-8')}\nAll of it is in {out}")
    return 0 if all(stage.how.startswith(("done", "skipped")) for stage in ended) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the stage that runs, too
    sys.exit(main())
