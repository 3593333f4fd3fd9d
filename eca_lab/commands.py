"""The commands that train, for `eca_lab.__main__`: what they check, print and leave behind."""

import sys
from datetime import timedelta
from math import ceil
from pathlib import Path
from tempfile import TemporaryFile

import torch

from eca_lab import checkpoints, data, probe, recording, results, sweep
from eca_lab.train import check_device, progress_bar
from eca_lab.workers import threads_each

AGAIN = "Run the same command again to"


def run_sweep(options):
    """Plan, estimate, train, and print the table; the exit status."""
    where = options.device, options.workers, options.gpu_share, options.ray
    devices = sweep.check_workers(*where)
    plan = _plan(options)
    out, count = Path(options.out), len(plan.trials)
    out.mkdir(parents=True, exist_ok=True)
    todo = sweep.remaining(plan, results.load_records(out, set_aside=True))
    _print_plan(plan)
    print(f"\n{count - len(todo)} of {count} trials are finished in {out}")
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
            whole = estimate and timedelta(seconds=round(ceil(len(todo) / at_once) * estimate))
            print(f"about {whole}." if estimate else "for an unknown time.")
        failed = sweep.run_sweep(plan, out, *where, options.budget, estimate, options.any_device)
    except (KeyboardInterrupt, OSError, RuntimeError) as stop:
        left = len(sweep.remaining(plan, results.load_records(out)))
        interrupted = isinstance(stop, KeyboardInterrupt)
        _complain(
            f"\n{'Interrupted' if interrupted else f'error: {stop}'}: {count - left} of {count} "
            f"trials are finished in {out}. {AGAIN} do the other {left}."
        )
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
    """Record the networks of a data set that are not recorded yet; the exit status."""
    folder, out = Path(options.checkpoints), Path(options.out)
    dataset = data.load_dataset(options.data, size=options.size)
    todo, found = [], 0
    for path in sorted(folder.glob("*.safetensors")):
        model, card = checkpoints.load_checkpoint(path)
        if card["trial"]["dataset"]["fingerprint"] == dataset.fingerprint:
            found += 1
            if probe.attention_layers(model) and not (out / path.name).exists():
                todo.append((path, model, card))
    if not found:
        raise ValueError(f"{folder}: no network was trained on {dataset.name} of this size")
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar(len(todo), "network") as bar:
        for path, model, card in todo:
            bar.set_postfix_str(path.stem)
            made = recording.record(model, dataset, options.per_class)
            recording.save_recording(out / path.name, made, card)
            bar.update()
    print(f"{len(todo)} of {found} networks recorded in {out}")
    return 0


def _complain(text):
    print(text, file=sys.stderr)


def _plan(options):
    """The plan that the options ask for. What needs no data is checked before a download."""
    arms = sweep.check_arms(options.backbone, options.arms, options.seeds)
    out = Path(options.out).absolute()
    place = next(each for each in (out, *out.parents) if each.exists())
    TemporaryFile(dir=place).close()  # OSError where nothing can be written
    names = ("size", "classes", "per_class", "skip_unreadable")
    dataset = data.load_dataset(options.data, **{name: getattr(options, name) for name in names})
    how = options.seeds, options.recipe, options.precision, options.fused, options.keep
    return sweep.plan_sweep(dataset, options.backbone, arms, *how)


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
