"""The commands that train, for `eca_lab.__main__`: what they check, print and leave behind."""

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryFile

import torch

from eca_lab import data
from eca_lab.attention.spec import DATASETS
from eca_lab.checks import check_integer
from eca_lab.evidence import results
from eca_lab.files import check_folder, listed
from eca_lab.looking import probe, recording
from eca_lab.networks import checkpoints
from eca_lab.training import sweep
from eca_lab.training.train import check_device, progress_bar
from eca_lab.training.workers import threads_each

AGAIN = "Run the same command again to"


def run_sweep(options):
    """Plan, estimate, train, and print the table; the exit status."""
    where = options.device, options.workers, options.gpu_share, options.ray
    devices = sweep.check_workers(*where)
    plan = _plan(options)
    out, count = Path(options.out), len(plan.trials)
    out.mkdir(parents=True, exist_ok=True)
    records = results.load_records(out, set_aside=plan.identities)
    todo, _ = sweep.to_run(plan, records, options.device, options.ray, options.any_device)
    _print_plan(plan)
    left = len(sweep.remaining(plan, records))
    print(f"\n{count - left} of {count} trials are finished in {out}")
    estimate = None
    try:
        if todo and devices:
            print(f"{len(todo)} to run on {options.device}, ", end="", flush=True)
            # Several trials on one GPU take about as long as one after the other.
            at_once = min(len(set(devices)), len(todo))
            if options.workers and options.device == "cpu":
                at_once = min(options.workers, len(todo))
                torch.set_num_threads(threads_each(at_once))  # those of a worker
            estimate = plan.estimate_seconds(todo[-1], options.device)
            whole = sweep.duration(len(todo), at_once, estimate)
            print(f"{whole}." if estimate else f"for {whole}.")
        failed = sweep.run_sweep(plan, out, *where, options.budget, estimate, options.any_device)
    except (KeyboardInterrupt, OSError, RuntimeError) as stop:
        interrupted = isinstance(stop, KeyboardInterrupt)
        why = "Interrupted" if interrupted else f"error: {stop}"
        _complain(f"\n{why}: {_kept(plan, out)}")
        return 130 if interrupted else 1
    table = sweep.plan_results(plan, out)
    results.print_results(table)
    for record in failed:
        _complain(f"failed: {record['arm']}, seed {record['trial']['seed']}: {record['reason']}")
    if failed:
        _complain(f"{len(failed)} of {count} trials failed. {AGAIN} try them once more.")
    if left := count - len(table) - len(failed):
        why = "the budget is used up, another sweep runs them, or they were begun elsewhere"
        print(f"\n{left} of {count} trials are left: {why}. {AGAIN} go on.")
    return 1 if failed else 0


def _kept(plan, out):
    """How many trials of a plan are finished when it ends early, and how to go on."""
    count = len(plan.trials)
    try:
        left = len(sweep.remaining(plan, results.load_records(out)))
    except OSError as error:
        return f"how many trials are finished cannot be told: {error}"
    return f"{count - left} of {count} trials are finished in {out}. {AGAIN} do the other {left}."


def train_checkpoints(options):
    """Train the networks that are not there yet, and print where they are; the exit status."""
    check_device(options.device)
    plan = _plan(options)
    try:
        paths = checkpoints.train_checkpoints(plan, options.out, options.device)
    except FloatingPointError as error:
        _complain(f"error: {error}. The networks trained before it are kept in {options.out}.")
        return 1
    for path in paths:
        print(f"{path}: top-1 {checkpoints.load_checkpoint(path)[1]['top1']:.2f} %")
    return 0


def record_networks(options):
    """Record the networks of a data set that are not recorded yet; the exit status.

    ValueError, before anything is recorded, for a recording that is there and does not fit.
    """
    folder, out = Path(options.checkpoints), Path(options.out)
    check_folder("checkpoints", options.checkpoints)
    check_folder("out", options.out)
    paths = listed(folder, checkpoints.SUFFIX)
    dataset = data.load_dataset(options.data, size=options.size)
    todo, found = [], 0
    for path in paths:
        try:
            model, card = checkpoints.load_checkpoint(path)
        except (FileNotFoundError, ValueError) as error:  # no card, or another one
            warnings.warn(f"{path} is left out: {error}", stacklevel=1)
            continue
        if card["trial"]["dataset"].get("fingerprint") != dataset.fingerprint:
            continue
        found += 1
        if probe.attention_layers(model) and not _is_recorded(out / path.name, card, options):
            todo.append((path, model, card))
    if not found:
        raise ValueError(f"{folder}: no network was trained on {dataset.name} of this size")
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar(len(todo), "network") as bar:
        for path, model, card in todo:
            bar.set_postfix_str(path.stem)
            made = recording.record(model, dataset, per_class=options.per_class)
            recording.save_recording(out / path.name, made, card)
            bar.update()
    print(f"{len(todo)} of {found} networks recorded in {out}")
    return 0


def _is_recorded(path, card, options):
    """Whether a network has a recording of as many images; ValueError for one that does not fit."""
    advice = "remove it to record the network again"
    try:
        images = len(recording.load_recording(path, card).labels)
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    wanted = options.per_class * card["trial"]["dataset"]["classes"]
    if images != wanted:
        raise ValueError(f"{path} is of {images} images, asked for are {wanted}; {advice}")
    return True


def _complain(text):
    print(text, file=sys.stderr)


def _plan(options):
    """The plan that the options ask for. What needs no data is checked before a download."""
    arms = sweep.check_arms(options.backbone, options.arms, options.seeds)
    place = check_folder("out", options.out)
    TemporaryFile(dir=place).close()  # OSError where nothing can be written
    _check_batch(options)
    names = ("size", "classes", "per_class", "skip_unreadable")
    dataset = data.load_dataset(options.data, **{name: getattr(options, name) for name in names})
    how = options.seeds, options.recipe, options.precision, options.fused, options.keep
    return sweep.plan_sweep(dataset, options.backbone, arms, *how)


def _check_batch(options):
    """Raise ValueError for more images a batch than there will be, as far as that is known."""
    classes = options.classes or DATASETS.get(options.data)
    if classes and options.per_class:
        count = classes if isinstance(classes, int) else len(classes)
        most = count * options.per_class
        check_integer("batch_size", options.recipe.batch_size, most=most)


def _print_plan(plan):
    dataset = plan.dataset
    size, skipped = f"{dataset.size} x {dataset.size} pixels", dataset.skipped
    count = f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images"
    print(f"{dataset.name}: {count} of {size} in {len(dataset.classes)} classes", end="")
    print(f", {skipped} unreadable ones left out" if skipped else "")
    seeds = len(plan.trials) // len(plan.arms)
    grid = f"{len(plan.arms)} arms x {seeds} seeds = {len(plan.trials)} trials"
    print(f"{plan.backbone}: {grid} of {plan.recipe.epochs} epochs\n")
    width = max(len(str(arm)) for arm in plan.arms)
    for trial in plan.trials[: len(plan.arms)]:
        attention = ", ".join(dict.fromkeys(trial.description["attention"]))
        parameters = trial.description["parameters"]
        print(f"  {trial.arm!s:{width}}  {parameters:>11,} parameters  {attention}")
    for arm, same in plan.duplicates.items():
        print(f"  `{arm}` on {plan.backbone} is `{same}`: the same trials, run once")
