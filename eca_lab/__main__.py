"""Command line: ``python -m eca_lab sweep``, ``results``, ``compare`` and ``checkpoints``.

What a command needs is imported when it runs: help and mistyped options are answered at once.
"""

import argparse
import os
import re
import signal
import sys
import time
import warnings
from importlib.metadata import version

from eca_lab import checks, studies
from eca_lab.recipe import Recipe
from eca_lab.spec import BACKBONES, parse_spec

BASELINE, MARGIN = "eca", 0.2  # of a comparison that no study declares


def main(arguments=None):
    """Run a command; the exit status is 0 done, 1 trials failed, 2 bad input, 130 interrupted."""
    begin = time.monotonic()
    options = _parser().parse_args(arguments)
    options.begin = begin
    # Whoever reads a warning here is not the one who wrote the line that gave it.
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        return options.command(options)
    except LookupError as error:  # nothing to show, and why
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _sweep(options):
    if options.study is not None:
        _declare(options)
    _fill(options, _TRAINING)
    from eca_lab import commands

    return commands.run_sweep(options)


def _declare(options):
    """Take from the declaration of a study what it declares; ValueError for what contradicts it."""
    study = studies.load_study(options.study)
    if options.setting is None and len(study.settings) > 1:
        listed = ", ".join(study.settings)
        raise ValueError(f"--study {study.name}: its --setting is missing; accepted are {listed}")
    checks.check_choice("--setting", options.setting, tuple(study.settings))
    setting = study.settings[options.setting]
    declared = {
        "arms": setting.arms,
        "size": setting.size,
        "per_class": setting.per_class,
        "backbone": setting.backbone,
        "epochs": setting.epochs,
        "classes": None,
        "batch_size": None,
        "learning_rate": None,
        "out": study.results,
        "precision": setting.precision,
        "fused": setting.fused,
    }
    for name, value in declared.items():
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} with --study {study.name}: the study declares it")
        setattr(options, name, value)
    if options.data is None and setting.data == "folder:":
        raise ValueError(
            f"--study {study.name} --setting {setting.name}: its images are in no place known "
            "here; give their folder as --data folder:PATH"
        )
    options.data = options.data or setting.data
    options.device = options.device or setting.device
    options.seeds = options.seeds or setting.seeds


def _results(options):
    from eca_lab import report

    report.print_results(report.finished(options.path))
    return 0


def _compare(options):
    from eca_lab import report

    asked = options.path, options.baseline, options.arms, options.margin, options.metric
    if options.study is not None:
        if any(each is not None for each in asked):
            raise ValueError(
                f"--study {options.study} declares folder, baseline, arms, metric and margin: "
                "accepted is nothing beside it"
            )
        return 0 if report.print_study(studies.load_study(options.study)) else 1
    if options.path is None:
        raise ValueError("compare: the folder of results is missing, or --study NAME")
    table = report.finished(options.path)
    baseline = str(options.baseline or BASELINE)
    family = options.arms and [arm for arm in map(str, options.arms) if arm != baseline]
    recorded = list(dict.fromkeys(table["arm"]))
    listed = ", ".join(recorded)
    if family is not None:
        if not family:
            raise ValueError(
                f"--arms {baseline}: that is the baseline; accepted are others of {listed}"
            )
        if absent := [arm for arm in family if arm not in recorded]:
            raise ValueError(f"--arms {', '.join(absent)}: accepted are those recorded, {listed}")
    if baseline not in recorded:
        raise ValueError(f"--baseline {baseline}: accepted are those recorded, {listed}")
    margin = MARGIN if options.margin is None else options.margin
    metric = options.metric or "top1"
    return 0 if report.print_comparisons(table, baseline, family, metric, margin) else 1


def _checkpoints(options):
    _fill(options, _TRAINING | _CHECKPOINTS)
    from eca_lab import commands

    return commands.train_checkpoints(options)


def _fill(options, defaults):
    """Give what was not asked for its default; it is None until then, so that it can be told."""
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.device is None:
        import torch

        options.device = "cuda" if torch.cuda.is_available() else "cpu"


_TRAINING = {
    "data": "shapes",
    "backbone": "tiny",
    "arms": ["none", "se", "eca", "eca(k=3)"],
    "seeds": 3,
    "epochs": Recipe.epochs,
    "batch_size": Recipe.batch_size,
    "learning_rate": Recipe.learning_rate,
    "out": "data/results/mine",
    "precision": "auto",
    "fused": False,
}
_CHECKPOINTS = {
    "arms": ["none", "se", "eca", "eca(k=9)", "eca(order=shuffled)"],
    "epochs": 10,
    "out": "data/checkpoints",
    "precision": "float32",
}


def _count(text):
    return _checked(int, text, checks.check_integer)


def _positive(text):
    return _checked(float, text, checks.check_number, above=0)


def _arm(text):
    return _checked(parse_spec, text)


def _classes(text):
    return int(text) if text.isdecimal() else text.split(",")


def _seconds(text):
    """Seconds of a time such as "25m"."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    hours, minutes, seconds = (int(each or 0) for each in match.groups()) if match else (0, 0, 0)
    seconds += 60 * minutes + 3600 * hours
    if not seconds:
        raise argparse.ArgumentTypeError(
            f"{checks.shown(text)}: accepted is a time such as 90s, 25m or 1h30m"
        )
    return seconds


def _checked(read, text, check=None, **limits):
    """What is read from a text, checked; argparse prints the message of an ArgumentTypeError."""
    try:
        value = read(text)
    except ValueError as error:
        if check is None:
            raise argparse.ArgumentTypeError(str(error)) from None
        value = text  # which the check refuses in its own words
    try:
        if check is not None:
            check("value", value, **limits)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m eca_lab",
        description="Train networks with channel attention, and see what was recorded.",
    )
    parser.add_argument("--version", action="version", version=f"eca-lab {version('eca-lab')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "sweep",
        help="train every arm with every seed",
        description="Train every arm with every seed and print mean, standard deviation and n. "
        "Finished trials are kept in the output folder and skipped when the command is run again.",
        epilog="Example: python -m eca_lab sweep --data cifar10 --backbone resnet18 --arms none se "
        'eca "eca(k=3)" --seeds 5 --out data/results/mine',
    )
    command.set_defaults(command=_sweep)
    add = command.add_argument
    add("--study", metavar="NAME", help=f"what a study declares: {', '.join(studies.names())}")
    add("--setting", metavar="NAME", help="one of the study's settings, such as small")
    _add_training_arguments(command, _TRAINING)
    add("--workers", type=_count, metavar="N", help="run trials in N processes of this machine")
    add(
        "--gpu-share",
        type=_positive,
        default=1.0,
        metavar="SHARE",
        help="of a GPU for each worker, such as 0.25, which lets four share one (default: 1)",
    )
    add(
        "--ray",
        metavar="ADDRESS",
        help="run trials on the Ray cluster at HOST:PORT, or on the one of this machine: auto",
    )
    add(
        "--budget",
        type=_seconds,
        metavar="TIME",
        help="start no trial that would not end within this time from now, such as 25m",
    )
    add(
        "--any-device",
        action="store_true",
        help="go on with seeds that were begun on another device, where they find no pair",
    )

    command = commands.add_parser("results", help="print the table of recorded trials")
    command.set_defaults(command=_results)
    command.add_argument("path", help="folder of results")

    command = commands.add_parser(
        "compare",
        help="print the differences to a baseline arm",
        description="Print the paired differences of every arm to a baseline arm, with intervals, "
        "adjusted p and a verdict: better, worse, equivalent or undecided.",
    )
    command.set_defaults(command=_compare)
    add = command.add_argument
    add("path", nargs="?", help="folder of results")
    add("--study", metavar="NAME", help=f"as a study declares it: {', '.join(studies.names())}")
    add("--baseline", type=_arm, metavar="ARM", help=f"compare with this (default: {BASELINE})")
    add(
        "--arms",
        type=_arm,
        nargs="+",
        metavar="ARM",
        help="compare these alone, all arms if left out; p is adjusted over those compared, so "
        "declare them before the trials",
    )
    add("--metric", help="top1 or top5, for example (default: top1)")
    add(
        "--margin",
        type=_positive,
        help=f"differences below this many points do not matter (default: {MARGIN})",
    )

    command = commands.add_parser(
        "checkpoints",
        help="train networks and keep them",
        description="Train every arm with every seed and keep the networks, each with a card. "
        "Networks that are there already are kept.",
    )
    command.set_defaults(command=_checkpoints)
    _add_training_arguments(command, _TRAINING | _CHECKPOINTS)
    return parser


def _add_training_arguments(command, defaults):
    """What to train and where to, for a command that makes a plan of it."""

    def add(option, text, **how):
        default = defaults.get(option.strip("-").replace("-", "_"))
        default = " ".join(default) if isinstance(default, list) else default
        suffix = "" if default is None else f" (default: {default})"
        command.add_argument(option, help=text + suffix, **how)

    add(
        "--data",
        "shapes (embedded), cifar10, cifar100, imagenette (downloaded), or folder:PATH with "
        "train/ and test/ or val/ folders of one folder per class",
    )
    add("--backbone", f"one of {', '.join(BACKBONES)}", choices=BACKBONES, metavar="NAME")
    add(
        "--arms",
        "attention specs such as none, se, cbam, eca, eca(k=5), eca(k=3-5-5-7), eca(gamma=1, b=1); "
        "quote those with parentheses",
        nargs="+",
        type=_arm,
        metavar="ARM",
    )
    add("--seeds", "seeds 0 to N - 1", type=_count, metavar="N")
    add("--epochs", "epochs a trial", type=_count, metavar="N")
    add("--batch-size", "images a training step", type=_count, metavar="N")
    add("--learning-rate", "its peak; lower for smaller batches", type=_positive, metavar="RATE")
    add("--classes", "so many classes, or their names with commas between", type=_classes)
    add("--per-class", "training images a class", type=_count, metavar="N")
    add("--size", "resize images to a square of so many pixels", type=_count, metavar="N")
    add("--skip-unreadable", "leave out images that cannot be read", action="store_true")
    add("--device", "cpu or cuda (default: cuda where there is one)")
    add(
        "--precision",
        "of training; auto takes bfloat16 where the device is made for it",
        choices=("auto", "float32", "bfloat16"),
    )
    add(
        "--fused",
        "train the blocks fused, after up to a minute of compiling",
        action="store_true",
        default=None,
    )
    add("--out", "folder of the results")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    sys.exit(main())
