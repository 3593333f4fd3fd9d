"""The commands that train, for `eca_lab.__main__`: what they check, print and leave behind.

Each is named as on the command line, takes the parsed options, and gives the exit status.
"""

import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import nn

from eca_lab import data
from eca_lab.attention.spec import DATASETS, parse_spec
from eca_lab.checks import check_integer
from eca_lab.data.augmentation import input_transform, normalize
from eca_lab.evidence.printing import print_results
from eca_lab.files import check_folder, listed
from eca_lab.looking import ranking, recording
from eca_lab.networks import named
from eca_lab.networks.checkpoints import SUFFIX, load_checkpoint
from eca_lab.networks.passes import Prepare
from eca_lab.progress import progress_bar
from eca_lab.training.keeping import train_checkpoints
from eca_lab.training.placing import placement
from eca_lab.training.planning import Plan, check_arms, duration, plan_sweep
from eca_lab.training.sweep import Sweep, check_workers
from eca_lab.training.train import check_device
from eca_lab.training.workers import threads_each

AGAIN = "Run the same command again to"


def sweep(options: Namespace) -> int:
    """Plan, estimate, train, and print the table."""
    where = {name: getattr(options, name) for name in ("device", "workers", "gpu_share", "ray")}
    check_workers(**where)
    plan = _plan(options)
    planned = Sweep(plan, options.out, any_device=options.any_device, **where)
    planned.out.mkdir(parents=True, exist_ok=True)
    left = planned.remaining()
    count = len(plan.trials)
    _print_plan(plan)
    if options.ray is None:
        batch_size, share = plan.recipe.batch_size, options.gpu_share
        device = check_device(options.device)
        print(placement(plan.dataset, device, batch_size=batch_size, gpu_share=share))
    print(f"\n{count - len(left)} of {count} trials are finished in {planned.out}")
    try:
        estimate = _estimate(planned, options)
        failed = planned.run(deadline=options.budget, estimate=estimate)
    except KeyboardInterrupt:
        _complain(f"\nInterrupted: {_kept(planned)}")
        return 130
    except (OSError, RuntimeError) as error:
        _complain(f"\nerror: {error}: {_kept(planned)}")
        return 1
    table = planned.results()
    print_results(table)
    for record in failed:
        _complain(f"failed: {record['arm']}, seed {record['trial']['seed']}: {record['reason']}")
    if failed:
        _complain(f"{len(failed)} of {count} trials failed. {AGAIN} try them once more.")
    unstarted = count - len(table) - len(failed)
    if unstarted:
        why = "the budget is used up, another sweep runs them, or they were begun elsewhere"
        print(f"\n{unstarted} of {count} trials are left: {why}. {AGAIN} go on.")
    return 1 if failed else 0


def _estimate(planned: Sweep, options: Namespace) -> float | None:
    """Say how long the sweep will take; the seconds of a trial, where they can be told.

    They cannot on Ray, whose devices are not known before.
    """
    todo = planned.to_run()
    if not todo or options.ray is not None:
        return None
    print(f"{len(todo)} to run on {options.device}, ", end="", flush=True)
    at_once = planned.at_once(len(todo))
    if options.workers and options.device == "cpu":
        torch.set_num_threads(threads_each(at_once))  # those of a worker
    seconds = planned.plan.estimate_seconds(todo[-1], options.device)
    whole = duration(len(todo), at_once=at_once, seconds=seconds)
    print(f"{whole}." if seconds else f"for {whole}.")
    return seconds


def _kept(planned: Sweep) -> str:
    """How many trials are finished when a sweep ends early, and how to go on."""
    count = len(planned.plan.trials)
    try:
        left = len(planned.remaining())
    except OSError as error:
        return f"how many trials are finished cannot be told: {error}"
    finished = f"{count - left} of {count} trials are finished in {planned.out}"
    return f"{finished}. {AGAIN} do the other {left}."


def checkpoints(options: Namespace) -> int:
    """Train the networks that are not there yet, and print where they are."""
    check_device(options.device)
    plan = _plan(options)
    try:
        paths = train_checkpoints(plan, options.out, device=options.device)
    except FloatingPointError as error:
        _complain(f"error: {error}. The networks trained before it are kept in {options.out}.")
        return 1
    for path in paths:
        _, card = load_checkpoint(path)
        print(f"{path}: top-1 {card['top1']:.2f} %")
    return 0


def record(options: Namespace) -> int:
    """Record and rank the networks of a data set where that is not done yet.

    ValueError, before anything is recorded, for a file that is there and does not fit.
    """
    check_folder("checkpoints", options.checkpoints)
    check_folder("out", options.out)
    folder, out = Path(options.checkpoints), Path(options.out)
    paths = listed(folder, SUFFIX)
    dataset = data.load_dataset(options.data, size=options.size)
    todo = []
    found = 0
    for path in paths:
        try:
            model, card = load_checkpoint(path)
        except (FileNotFoundError, ValueError) as error:  # no card, or another one
            warnings.warn(f"{path} is left out: {error}", stacklevel=1)
            continue
        if card["trial"]["dataset"].get("fingerprint") != dataset.fingerprint:
            continue
        found += 1
        recorded = out / path.name
        if parse_spec(card["arm"]).name in ("none", "static"):
            continue  # without weights that an image would move
        is_recorded = _is_recorded(recorded, card, per_class=options.per_class)
        is_ranked = _is_ranked(recorded.with_suffix(".json"), card)
        if not (is_recorded and is_ranked):
            todo.append((recorded, model, card, is_recorded, is_ranked))
    if not found:
        raise ValueError(f"{folder}: no network was trained on {dataset.name} of this size")
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar(len(todo), "network") as bar:
        for path, model, card, is_recorded, is_ranked in todo:
            bar.set_postfix_str(path.stem)
            if not is_recorded:
                made = recording.record(model, dataset, per_class=options.per_class)
                recording.save_recording(path, made, card)
            if not is_ranked:
                _rank(path.with_suffix(".json"), model, card, dataset)
            bar.update()
    print(f"{len(todo)} of {found} networks recorded in {out}")
    return 0


def examine(options: Namespace) -> int:
    """Write a report on the channel attention of a network, whatever it is."""
    from eca_lab.examine import examine as write_report  # which draws, and needs what notebooks do

    wanted = named.expected_images(options.model)
    check_folder("out", options.out)
    dataset = data.load_dataset(options.data, size=options.size or wanted.size)
    classes = dataset.classes
    model = named.named_network(options.model, num_classes=len(classes))
    if options.weights is not None:
        named.load_weights(model, options.weights)
    images, labels = dataset.test_images, dataset.test_labels
    if options.per_class is not None:
        chosen = recording.in_turns(labels, options.per_class)
        images, labels = images[chosen], labels[chosen]
    prepare, normalised = _normalisation(options.normalize, wanted, dataset)
    page = write_report(
        model.to(check_device(options.device)),
        images,
        labels,
        classes=classes,
        prepare=prepare,
        out=options.out,
        title=f"The channel attention of {options.model}",
        about={
            "network": options.model,
            "weights": options.weights or "random: its accuracy and its costs mean nothing",
            "data": f"{dataset.name}, {len(classes)} classes, test images",
            "normalised": normalised,
        },
    )
    print(f"{page} is the page to read")
    return 0


def _normalisation(
    asked: str | None, wanted: named.Images, dataset: data.Dataset
) -> tuple[Prepare, str]:
    """What makes a network's input of uint8 images, and in words."""
    if asked == "data":
        return input_transform(dataset), "with mean and standard deviation of the training images"
    if asked == "none":
        return lambda images: images / 255, "not at all, from 0 to 1"
    mean, std = named.IMAGENET if asked == "imagenet" else (wanted.mean, wanted.std)
    words = f"with mean {mean} and standard deviation {std} of RGB from 0 to 1"
    return lambda images: normalize(images, torch.tensor(mean), torch.tensor(std)), words


def _is_recorded(path: Path, card: Mapping[str, Any], *, per_class: int) -> bool:
    """Whether a network has a recording of as many images; ValueError for one that does not fit."""
    advice = "remove it to record the network again"
    try:
        images = len(recording.load_recording(path, card).labels)
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    wanted = per_class * card["trial"]["dataset"]["classes"]
    if images != wanted:
        raise ValueError(f"{path} is of {images} images, asked for are {wanted}; {advice}")
    return True


def _is_ranked(path: Path, card: Mapping[str, Any]) -> bool:
    """Whether a network has a ranking; ValueError for one that does not fit."""
    try:
        ranking.load_ranking(path, card)
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ValueError(f"{error}; remove it to rank the network again") from None
    return True


def _rank(path: Path, model: nn.Module, card: Mapping[str, Any], dataset: data.Dataset) -> None:
    """Rank the attention of a network by all test images, and keep that."""
    found = ranking.rank_attention(
        model,
        dataset.test_images,
        dataset.test_labels,
        prepare=input_transform(dataset),
    )
    ranking.save_ranking(path, found, card)


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _plan(options: Namespace) -> Plan:
    """The plan that the options ask for. What needs no data is checked before a download."""
    arms = check_arms(options.backbone, options.arms, seeds=options.seeds, at=options.at)
    place = check_folder("out", options.out)
    TemporaryFile(dir=place).close()  # OSError where nothing can be written
    _check_batch(options)
    dataset = data.load_dataset(
        options.data,
        size=options.size,
        classes=options.classes,
        per_class=options.per_class,
        skip_unreadable=options.skip_unreadable,
    )
    return plan_sweep(
        dataset,
        options.backbone,
        arms,
        seeds=options.seeds,
        recipe=options.recipe,
        precision=options.precision,
        fused=options.fused,
        keep=options.keep,
        at=options.at,
    )


def _check_batch(options: Namespace) -> None:
    """Raise ValueError for more images a batch than there will be, as far as that is known."""
    classes = options.classes or DATASETS.get(options.data)
    if classes and options.per_class:
        count = classes if isinstance(classes, int) else len(classes)
        most = count * options.per_class
        check_integer("batch_size", options.recipe.batch_size, most=most)


def _print_plan(plan: Plan) -> None:
    dataset = plan.dataset
    images = (
        f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images "
        f"of {dataset.size} x {dataset.size} pixels in {len(dataset.classes)} classes"
    )
    skipped = f", {dataset.skipped} unreadable ones left out" if dataset.skipped else ""
    print(f"{dataset.name}: {images}{skipped}")
    seeds = len(plan.trials) // len(plan.arms)
    grid = f"{len(plan.arms)} arms x {seeds} seeds = {len(plan.trials)} trials"
    print(f"{plan.backbone}: {grid} of {plan.recipe.epochs} epochs\n")
    width = max(len(str(arm)) for arm in plan.arms)
    for trial in plan.trials[: len(plan.arms)]:
        attention = ", ".join(dict.fromkeys(trial.description["attention"]))
        parameters = trial.description["parameters"]
        print(f"  {trial.arm!s:{width}}  {parameters:>11,} parameters  {attention}")
    if places := list(plan.trials[0].description.get("places", ())):
        shown = ", ".join(places if len(places) < 4 else [*places[:2], "...", places[-1]])
        print(f"  attention goes behind {len(places)} modules: {shown}")
    for arm, same in plan.duplicates.items():
        print(f"  `{arm}` on {plan.backbone} is `{same}`: the same trials, run once")
