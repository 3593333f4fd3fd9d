"""Command line: ``python -m eca_lab sweep``, ``results``, ``compare`` and ``checkpoints``."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import torch

from eca_lab import checkpoints, data, models, results, stats, sweep, train
from eca_lab.spec import parse_spec


def main(arguments=None):
    """Run a command; the exit status is 0 done, 1 trials failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _sweep(options):
    begin, budget = time.monotonic(), _seconds(options.budget)
    deadline = None if budget is None else begin + budget
    sweep.check_workers(options.device, options.workers, options.gpu_share, options.ray)
    plan = _plan(options)
    estimate = _print_plan(plan, options)
    again = "Run the same command again to"
    try:
        failed = sweep.run_sweep(
            plan,
            options.out,
            options.device,
            options.workers,
            options.gpu_share,
            options.ray,
            deadline,
            estimate,
        )
    except (KeyboardInterrupt, OSError, RuntimeError) as stop:
        left = len(sweep.remaining(plan, options.out))
        interrupted = isinstance(stop, KeyboardInterrupt)
        print(
            f"\n{'Interrupted' if interrupted else f'error: {stop}'}: "
            f"{len(plan.trials) - left} of {len(plan.trials)} trials are finished in "
            f"{options.out}. {again} do the other {left}.",
            file=sys.stderr,
        )
        return 130 if interrupted else 1
    _print_results(sweep.plan_results(plan, options.out))
    for record in failed:
        seed = record["trial"]["seed"]
        print(f"failed: {record['arm']}, seed {seed}: {record['reason']}", file=sys.stderr)
    left = len(sweep.remaining(plan, options.out)) - len(failed)
    if failed:
        print(
            f"{len(failed)} of {len(plan.trials)} trials failed. {again} try them once more.",
            file=sys.stderr,
        )
    if left > 0:
        print(
            f"\n{left} of {len(plan.trials)} trials are left: the budget is used up, or another "
            f"sweep is running them. {again} go on."
        )
    return 1 if failed else 0


def _checkpoints(options):
    train.check_device(options.device)
    plan = _plan(options)
    try:
        paths = checkpoints.train_checkpoints(plan, options.out, options.device)
    except FloatingPointError as error:
        print(
            f"error: {error}. The networks trained before it are kept in {options.out}; a lower "
            "--learning-rate may help.",
            file=sys.stderr,
        )
        return 1
    for path in paths:
        print(f"{path}: top-1 {checkpoints.load_checkpoint(path)[1]['top1']:.2f} %")
    return 0


def _plan(options):
    """The plan that the options ask for. What needs no data is checked before a download."""
    sweep.check_arms(options.backbone, options.arms, options.seeds)
    recipe = train.Recipe(options.epochs, options.batch_size, options.learning_rate)
    _check_writable(options.out)
    dataset = data.load_dataset(
        options.data,
        size=options.size,
        classes=options.classes,
        per_class=options.per_class,
        unreadable="skip" if options.skip_unreadable else "error",
    )
    return sweep.plan_sweep(dataset, options.backbone, options.arms, options.seeds, recipe)


def _results(options):
    _print_results(results.load_results(options.path))
    return 0


def _compare(options):
    table = results.load_results(options.path)
    if table.empty:
        raise ValueError(f"{options.path}: no finished trials to compare")
    if options.arms is not None:
        arms = [str(parse_spec(arm)) for arm in options.arms]
        recorded = dict.fromkeys(table["arm"])
        if absent := [arm for arm in arms if arm not in recorded]:
            raise ValueError(
                f"--arms {', '.join(absent)}: accepted are those in {options.path}, "
                f"{', '.join(recorded)}"
            )
        table = table[table["arm"].isin([options.baseline, *arms])]
    for _, trials in table.groupby(list(results.SETTING), sort=False):
        compared = stats.compare(trials, options.baseline, options.metric, options.margin)
        _print_setting(trials)
        print(
            f"Minus {options.baseline}, in points of {options.metric}; 95% intervals; p by Holm; "
            f"p of equivalence within {options.margin:g}; detectable with 80% power\n"
        )
        columns = ["arm", "n", "difference", "low", "high", "p_holm", "p_equivalence"]
        _print_table(compared[[*columns, "detectable", "verdict"]])
        print()
    return 0


def _print_plan(plan, options):
    """Print a plan; gives the estimate of a trial's seconds, None where there is none."""
    estimate = None
    dataset, out = plan.dataset, options.out
    print(
        f"{dataset.name}: {len(dataset.train_images):,} training and "
        f"{len(dataset.test_images):,} test images of {dataset.size} x {dataset.size} pixels in "
        f"{len(dataset.classes)} classes"
        + (f", {dataset.skipped} unreadable ones left out" if dataset.skipped else "")
    )
    seeds = len(plan.trials) // len(plan.arms)
    print(
        f"{plan.backbone}: {len(plan.arms)} arms x {seeds} seeds = {len(plan.trials)} trials of "
        f"{plan.recipe.epochs} epochs\n"
    )
    width = max(len(str(arm)) for arm in plan.arms)
    for trial in plan.trials[: len(plan.arms)]:
        attention = ", ".join(dict.fromkeys(trial.description["attention"]))
        parameters = trial.description["parameters"]
        print(f"  {trial.arm!s:{width}}  {parameters:>11,} parameters  {attention}")
    for arm, same in plan.duplicates.items():
        print(f"  `{arm}` on {plan.backbone} is `{same}`: the same trials, run once")
    todo = len(sweep.remaining(plan, out))
    print(f"\n{len(plan.trials) - todo} of {len(plan.trials)} trials are finished in {out}", end="")
    if options.ray is not None and todo:
        print(f"; {todo} to run on the Ray cluster at {options.ray}.")
    elif todo:
        print(f"; {todo} to run on {options.device}, ", end="", flush=True)
        trial = (plan.dataset, plan.backbone, plan.arms[-1], plan.recipe)
        estimate = train.estimate_seconds(*trial, options.device)
        print(f"about {_duration(todo * estimate)}." if estimate else "for an unknown time.")
    else:
        print(".")
    return estimate


def _print_results(table):
    if table.empty:
        print("No finished trials.")
    for _, trials in table.groupby(list(results.SETTING), sort=False):
        _print_setting(trials)
        summary = results.summarize(trials).droplevel(list(results.SETTING)).reset_index()
        summary = summary.rename(columns={"mean": "top-1 %", "sd": "sd (points)"})
        _print_table(summary[["arm", "parameters", "top-1 %", "sd (points)", "n"]])


def _print_setting(trials):
    first = trials.iloc[0]
    print(
        f"\n{first['dataset']}, {first['train']:,} training images of {first['size']} x "
        f"{first['size']} pixels; {first['backbone']}; {first['recipe']}"
    )
    for name in ("device", "torch"):
        if len(different := trials[name].unique()) > 1:
            print(f"Caution, more than one {name}: {'; '.join(different)}")


def _print_table(table):
    print(table.to_string(index=False, float_format="{:.2f}".format, na_rep="-"))


def _seconds(text):
    """Seconds of a time such as "25m"; None of None."""
    if text is None:
        return None
    try:
        seconds = pd.Timedelta(text).total_seconds()
    except ValueError:
        seconds = 0
    if not seconds >= 1:  # a bare number would be nanoseconds
        raise ValueError(f"--budget {text}: accepted is a time such as 90s, 25m or 1h30m")
    return seconds


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _check_writable(folder):
    """Raise OSError unless the folder, or the nearest one above it that exists, can be written."""
    nearest = Path(folder).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(f"--out {folder}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder}: {nearest} cannot be written")


def _classes(text):
    return int(text) if text.isdecimal() else text.split(",")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m eca_lab",
        description="Train networks with channel attention, and see what was recorded.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "sweep",
        help="train every arm with every seed",
        description="Train every arm with every seed and print mean, standard deviation and n. "
        "Finished trials are kept in the output folder and skipped when the command is run again.",
        epilog="Example: python -m eca_lab sweep --data cifar10 --backbone resnet18 --arms none se "
        'eca "eca(k=3)" --seeds 5 --out data/results/mine',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(command=_sweep)
    _add_training_arguments(command)
    command.add_argument(
        "--workers", type=int, metavar="N", help="run trials in N processes of this machine"
    )
    command.add_argument(
        "--gpu-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of a GPU for each worker, such as 0.25, which lets four share one",
    )
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run trials on the Ray cluster at HOST:PORT, or on the one of this machine: auto",
    )
    command.add_argument(
        "--budget",
        metavar="TIME",
        help="start no trial that would not end within this time, such as 25m",
    )

    command = commands.add_parser("results", help="print the table of recorded trials")
    command.set_defaults(command=_results)
    command.add_argument("path", help="folder of results")

    command = commands.add_parser(
        "compare",
        help="print the differences to a baseline arm",
        description="Print the paired differences of every arm to a baseline arm, with intervals, "
        "adjusted p and a verdict: better, worse, equivalent or undecided.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(command=_compare)
    command.add_argument("path", help="folder of results")
    command.add_argument("--baseline", default="eca", metavar="ARM", help="the arm to compare with")
    command.add_argument(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="compare these alone, all arms if left out; p is adjusted over those compared, so "
        "declare them before the trials",
    )
    command.add_argument("--metric", default="top1", help="top1 or top5, for example")
    command.add_argument(
        "--margin", type=float, default=0.2, help="differences below this many points do not matter"
    )

    command = commands.add_parser(
        "checkpoints",
        help="train networks and keep them",
        description="Train every arm with every seed and keep the networks, each with a card. "
        "Networks that are there already are kept.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_training_arguments(command)
    command.set_defaults(
        command=_checkpoints,
        arms=["none", "se", "eca", "eca(k=9)", "eca(order=shuffled)"],
        epochs=10,
        out="data/checkpoints",
    )
    return parser


def _add_training_arguments(command):
    """What to train and where to, for a command that makes a plan of it."""
    command.add_argument(
        "--data",
        default="shapes",
        help="shapes (embedded), cifar10, cifar100, imagenette (downloaded), or folder:PATH with "
        "train/ and test/ or val/ folders of one folder per class",
    )
    command.add_argument("--backbone", default="tiny", help=f"one of {', '.join(models.BACKBONES)}")
    command.add_argument(
        "--arms",
        nargs="+",
        default=["none", "se", "eca", "eca(k=3)"],
        metavar="ARM",
        help="attention specs such as none, se, cbam, eca, eca(k=5), eca(k=3-5-5-7), "
        "eca(gamma=1, b=1); quote those with parentheses",
    )
    command.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    command.add_argument("--epochs", type=int, default=15, help="epochs a trial")
    command.add_argument("--batch-size", type=int, default=128, help="images a training step")
    command.add_argument(
        "--learning-rate", type=float, default=0.2, help="its peak; lower for smaller batches"
    )
    command.add_argument(
        "--classes", type=_classes, help="so many classes, or their names with commas between"
    )
    command.add_argument("--per-class", type=int, help="training images a class")
    command.add_argument("--size", type=int, help="resize images to a square of so many pixels")
    command.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )
    command.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    command.add_argument("--out", default="data/results/mine", help="folder of the results")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    sys.exit(main())
