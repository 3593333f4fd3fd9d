"""Command line: ``python -m eca_lab sweep``, ``results``, ``compare``, ``lab`` and others.

What a command needs is imported when it runs: help and mistyped options are answered at once.
"""

import argparse
import os
import re
import signal
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from eca_lab import checks
from eca_lab.attention.spec import BACKBONES, Spec, check_backbone, parse_spec
from eca_lab.evidence import studies
from eca_lab.evidence.metrics import SCALES
from eca_lab.recipe import PRECISIONS, Recipe

# What the command line may say of a recipe. Studies say the rest, see `eca_lab.evidence.studies`.
RECIPE = (
    "epochs",
    "batch_size",
    "learning_rate",
    "momentum",
    "weight_decay",
    "label_smoothing",
    "warmup",
    "least_area",
)
# What an option is where it is not given. Until then it is None, so that it can be told.
TRAINING = {
    "data": "shapes",
    "backbone": "tiny",
    "arms": ["none", "se", "eca", "eca(k=3)"],
    "seeds": 3,
    **{name: getattr(Recipe, name) for name in RECIPE},
    "out": "data/results/mine",
    "precision": "auto",
    "gpu_share": 1.0,
    "keep": 0,  # this and a whole recipe a study alone asks for
    "recipe": None,
}
CHECKPOINTS = TRAINING | {
    "arms": ["se", "eca"],
    "epochs": 10,
    "out": "data/checkpoints",
    "precision": "float32",
}
RECORDING = {
    "data": "shapes",
    "per_class": 100,
    "checkpoints": "data/checkpoints",
    "out": "data/recordings",
}
EXAMINATION = {"data": "shapes", "out": "report"}
COMPARISON = {"baseline": "eca", "metric": "top1", "arm": "arm", "seed": "seed"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 done, 1 failed, 2 bad input, 130 interrupted."""
    # Whoever reads a warning here is not the one who wrote the line that gave it.
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        options = _parser().parse_args(arguments)
        return options.run(options)
    except LookupError as error:  # nothing to show, and why
        if isinstance(error, KeyError | IndexError):  # a mistake of ours
            raise
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


# The docstrings of the commands are what their --help begins with.


def _sweep(options: Namespace) -> int:
    """Train every arm with every seed and print mean, standard deviation and n. Finished trials
    are kept in the output folder and skipped when the command is run again. Example: python -m
    eca_lab sweep --data cifar10 --backbone resnet18 --arms none se eca "eca(k=3)" --seeds 5
    """
    return _train(options, "sweep")


def _checkpoints(options: Namespace) -> int:
    """Train every arm with every seed and keep the networks, each with a card. Those that are there
    are kept. With --study they are trained as its setting declares; --arms may be others.
    """
    return _train(options, "checkpoints", free=("arms", "out"))


def _record(options: Namespace) -> int:
    """Record what the kept networks of a data set do with its test images: the channel weights of
    every image, whether it is still classified rightly when they are changed, and what freezing
    each attention costs. What is recorded already is kept. Example: python -m eca_lab record --data
    cifar10
    """
    _fill(options)
    from eca_lab import commands

    return commands.record(options)


def _examine(options: Namespace) -> int:
    """Write a report on the channel attention of any network into a folder: a table of what stands
    where, the weights of all test images, what freezing each costs, and a page to read. Example:
    python -m eca_lab examine timm:seresnet18 --data folder:PATH --weights FILE --out report
    """
    _fill(options)
    import torch

    from eca_lab import commands

    if options.device is None:
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return commands.examine(options)


def _train(options: Namespace, command: str, *, free: Collection[str] = ()) -> int:
    """Run a command of `eca_lab.commands`; free is what may differ from what a study declares."""
    if options.study is not None:
        _declare(options, free)
    elif options.setting is not None:
        raise ValueError(f"--setting {options.setting}: its --study is missing")
    _fill(options)
    if options.recipe is None:
        options.recipe = Recipe(**{name: getattr(options, name) for name in RECIPE})
    import torch  # when the options that can be checked without it are

    from eca_lab import commands

    if options.device is None:
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return getattr(commands, command)(options)


def _declare(options: Namespace, free: Collection[str]) -> None:
    """Take from a study what it declares; ValueError for what contradicts it and is not free."""
    study = studies.load_study(options.study)
    if options.setting is None:
        listed = ", ".join(study.settings)
        raise ValueError(f"--study {study.name}: its --setting is missing; accepted are {listed}")
    checks.check_choice("--setting", options.setting, tuple(study.settings))
    setting = study.settings[options.setting]
    names = ("arms", "size", "per_class", "backbone", "recipe", "precision", "fused", "keep")
    declared = {name: getattr(setting, name) for name in names} | {"out": study.results}
    declared = {name: value for name, value in declared.items() if name not in free}
    # The usual ones, or said by the recipe.
    undeclared = dict.fromkeys(("classes", "at", *RECIPE))
    for name, value in (declared | undeclared).items():
        if getattr(options, name, None) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} with --study {study.name}: the study declares it")
        setattr(options, name, value)
    if options.data is None and setting.data == "folder:":
        where = f"--study {study.name} --setting {setting.name}"
        raise ValueError(f"{where}: where are its images? Give their folder as --data folder:PATH")
    usual = {name: getattr(setting, name) for name in ("data", "device", "seeds", "arms")}
    options.defaults = options.defaults | usual


def _fill(options: Namespace) -> None:
    """Give what was not asked for its default."""
    for name, value in options.defaults.items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)


def _results(options: Namespace) -> int:
    """Print mean, standard deviation and n of every arm. Example, all recorded trials in one file:
    python -m eca_lab results --csv > trials.csv
    """
    from eca_lab.evidence import results
    from eca_lab.evidence.printing import print_results

    tables = {path: results.read_results(path) for path in options.paths or results.recorded()}
    if options.csv:
        results.write_csv(tables, sys.stdout)
        return 0
    for table in tables.values():
        print_results(table)
    return 0


def _compare(options: Namespace) -> int:
    """Print the differences of every arm to a baseline arm, with intervals, adjusted p and a
    verdict: better, worse, equivalent or undecided. Example, a table of your own runs: python -m
    eca_lab compare runs.csv --arm method --seed run --metric accuracy --baseline none
    """
    from eca_lab.evidence import report, tables

    if options.study is not None:
        declared = set(vars(options)) - {"study", "run", "defaults"}
        if any(getattr(options, name) is not None for name in declared):
            accepted = "accepted is neither a table nor another option beside it"
            raise ValueError(f"--study {options.study}: {accepted}")
        return 0 if report.print_study(studies.load_study(options.study)) else 1
    if options.path is None:
        raise ValueError("compare: the table of runs is missing, or --study NAME")
    if options.unpaired and options.seed is not None:
        raise ValueError(f"--seed {options.seed} with --unpaired: accepted is one of them")
    _fill(options)
    if options.margin is not None:
        checks.check_number("margin", options.margin, above=0)
    columns = {"arm": options.arm, "seed": None if options.unpaired else options.seed}
    table = tables.read_table(options.path)
    arms = tuple(tables.checked(table, options.metric, **columns)["arm"].unique())
    baseline = _recorded_arm(options.baseline, arms)
    checks.check_choice("--baseline", baseline, arms)
    family = options.arms and [_recorded_arm(arm, arms) for arm in options.arms]
    for arm in family or ():
        checks.check_choice("--arms", arm, [other for other in arms if other != baseline])
    compared = report.print_comparisons(
        table,
        baseline,
        family,
        metric=options.metric,
        margin=options.margin,
        higher_is_better=None if options.better is None else options.better == "higher",
        scale=options.scale,
        **columns,
    )
    return 0 if compared else 1


def _recorded_arm(text: str, arms: Collection[str]) -> str:
    """An arm as it stands in a table, where one of this lab may be written in other ways."""
    if text in arms:
        return text
    try:
        return str(parse_spec(text))
    except ValueError:  # of others, and not there
        return text


def _lab(options: Namespace) -> int:
    """Open JupyterLab on the first notebook, in a checkout. It answers this machine alone, and asks
    for the token that is in the address. Example: python -m eca_lab lab -- --no-browser --port 9000
    """
    from eca_lab import lab

    lab.start(options.arguments)
    return 0


def _arm(text: str) -> Spec:
    try:
        return parse_spec(text)
    except ValueError as error:  # of which argparse would not print the message
        raise argparse.ArgumentTypeError(str(error)) from None


def _backbone(text: str) -> str:
    try:
        check_backbone(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _classes(text: str) -> int | list[str]:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else text.split(",")


def _deadline(text: str) -> float:
    """When a time from now such as "25m" will be over, by `time.monotonic`."""
    number = "([0-9]{1,9})"
    match = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text)
    hours, minutes, seconds = map(int, match.groups("0")) if match else (0, 0, 0)
    seconds += 60 * minutes + 3600 * hours
    if not seconds:
        accepted = "accepted is a time such as 90s, 25m or 1h30m"
        raise argparse.ArgumentTypeError(f"{checks.shown(text)}: {accepted}")
    return time.monotonic() + seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eca_lab",
        description="Train networks with channel attention, and see what was recorded.",
    )
    parser.add_argument("--version", action="version", version=f"eca-lab {version('eca-lab')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    declared = f"what a study declares: {', '.join(studies.names())}"

    def command(
        run: Callable[[Namespace], int], defaults: Mapping[str, Any], *, text: str
    ) -> Callable[..., None]:
        """A command; gives the function that adds an option of it, with the default in its help."""
        name = run.__name__.strip("_")
        made = commands.add_parser(name, help=text, description=run.__doc__)
        made.set_defaults(run=run, defaults=defaults)
        return partial(_add_option, made, defaults)

    add = command(_sweep, TRAINING, text="train every arm with every seed")
    _add_training_options(add, declared)
    add("--workers", "run trials in N processes of this machine", type=int, metavar="N")
    add("--gpu-share", "of a GPU for each worker, such as 0.25", type=float, metavar="SHARE")
    add("--ray", "run trials on the Ray cluster at HOST:PORT; auto finds one", metavar="ADDRESS")
    add("--budget", "start no trial that would end later, as 25m", type=_deadline, metavar="TIME")
    add("--any-device", "go on with seeds that another device has begun", action="store_true")

    add = command(_results, {}, text="print the table of recorded trials")
    add("paths", "folders of results; all of data/results, if left out", nargs="*")
    add("--csv", "write the trials as CSV, one row each", action="store_true")

    add = command(_compare, COMPARISON, text="print the differences to a baseline arm")
    text = "folder of results; or a CSV with a row a run, your own or of `results --csv`"
    add("path", text, nargs="?")
    add("--study", declared, metavar="NAME")
    add("--baseline", "compare with this", metavar="ARM")
    add("--arms", "the family over which p is adjusted", nargs="+", metavar="ARM")
    add("--metric", "a column of numbers, such as top1, loss or val/accuracy")
    add("--arm", "the column of arms", metavar="COLUMN")
    add("--seed", "the column of seeds: runs of one seed are a pair", metavar="COLUMN")
    add("--unpaired", "the runs are no pairs", action="store_true", default=None)
    text = "differences below this do not matter; 0.2 points for accuracy and error"
    add("--margin", text, type=float)
    add("--better", "which values of the metric are better", choices=("higher", "lower"))
    add("--scale", "what the metric is given in", choices=SCALES)

    add = command(_lab, {}, text="open JupyterLab on the notebooks")
    add("arguments", "for JupyterLab, behind --", nargs="*", metavar="ARGUMENT")

    add = command(_checkpoints, CHECKPOINTS, text="train networks and keep them")
    _add_training_options(add, declared)

    add = command(_record, RECORDING, text="record what kept networks do with test images")
    add("--data", "what they were trained on, as for checkpoints")
    add("--size", "resize images to a square of so many pixels", type=int, metavar="N")
    add("--per-class", "test images a class", type=int, metavar="N")
    add("--checkpoints", "folder of the networks", metavar="FOLDER")
    add("--out", "folder of the recordings")

    add = command(_examine, EXAMINATION, text="report on the channel attention of any network")
    add("model", "timm:NAME, torchvision:NAME, or package.module:function, which makes a network")
    add("--data", "whose test images it is asked with, as for sweep")
    add("--size", "resize images to a square of so many pixels", type=int, metavar="N")
    add("--per-class", "so many test images a class", type=int, metavar="N")
    add("--weights", "a file of safetensors, or of torch.save; random without", metavar="FILE")
    text = "images by imagenet's mean, the data's, or none (default: as its library says)"
    add("--normalize", text, choices=("imagenet", "data", "none"))
    add("--device", "cpu or cuda (default: cuda where there is one)")
    add("--out", "folder of the report", metavar="FOLDER")
    return parser


def _add_option(
    parser: argparse.ArgumentParser,
    defaults: Mapping[str, Any],
    option: str,
    text: str = "",
    **how: Any,
) -> None:
    """Add an option to the parser of a command, as `add_argument`, and tell its default."""
    default = defaults.get(option.strip("-").replace("-", "_"))
    if isinstance(default, list):
        default = " ".join(default)
    if default is not None:
        text += f" (default: {default})"
    parser.add_argument(option, help=text, **how)


def _add_training_options(add: Callable[..., None], declared: str) -> None:
    """What to train and where to, for a command that makes a plan of it."""
    add("--study", declared, metavar="NAME")
    add("--setting", "one of the study's settings, such as small", metavar="NAME")
    add("--data", "shapes, cifar10, cifar100, imagenette, or folder:PATH with train/ and test/")
    text = f"one of {', '.join(BACKBONES)}, or package.module:function, which makes a network"
    add("--backbone", text, type=_backbone, metavar="NAME")
    text = 'where attention goes in a function\'s network, as "layer*.bn3"; else before additions'
    add("--at", text, metavar="PATTERN")
    text = 'attention specs such as none, se, cbam, eca, "eca(k=5)", "eca(k=3-5-5-7)"'
    add("--arms", text, nargs="+", action="extend", type=_arm, metavar="ARM")
    add("--seeds", "seeds 0 to N - 1", type=int, metavar="N")
    add("--epochs", "epochs a trial", type=int, metavar="N")
    add("--batch-size", "images a training step", type=int, metavar="N")
    add("--learning-rate", "its peak; lower for smaller batches", type=float, metavar="RATE")
    add("--momentum", "of SGD, by Nesterov", type=float, metavar="SHARE")
    add("--weight-decay", "of all but biases and normalisation", type=float, metavar="RATE")
    add("--label-smoothing", "share of a label for all classes", type=float, metavar="SHARE")
    add("--warmup", "share of the steps in which the rate rises", type=float, metavar="SHARE")
    text = "crop boxes that cover at least this share of an image; 0.08 is usual for ImageNet"
    add("--least-area", text, type=float, metavar="SHARE")
    add("--classes", "so many classes, or their names with commas between", type=_classes)
    add("--per-class", "training images a class", type=int, metavar="N")
    add("--size", "resize images to a square of so many pixels", type=int, metavar="N")
    add("--skip-unreadable", "leave out images that cannot be read", action="store_true")
    add("--device", "cpu or cuda (default: cuda where there is one)")
    add("--precision", "auto: bfloat16 where that is fast", choices=PRECISIONS)
    add("--fused", "train the blocks fused: compiles first", action="store_true", default=None)
    add("--out", "folder of the results")


def program() -> None:
    """What a shell calls: `main` with its exit status, and what becomes of signals and output."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    if sys.stdout is not None:  # as it is where it was closed
        sys.stdout.reconfigure(errors="backslashreplace")  # a name is not worth a traceback
    sys.exit(main())


if __name__ == "__main__":
    program()
