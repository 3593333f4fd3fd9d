"""A sweep: every arm with every seed, each trial recorded as it finishes."""

import os
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from math import ceil
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from eca_lab.attention.spec import Spec, arm_order, parse_spec
from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.data.dataset import TENSORS, Dataset
from eca_lab.evidence import results
from eca_lab.files import DATA, check_folder
from eca_lab.networks.backbones import add_attention, build_model
from eca_lab.networks.checkpoints import describe, keep_checkpoint
from eca_lab.networks.fused import obstacle
from eca_lab.provenance import cpu_has_bfloat16, provenance
from eca_lab.recipe import MOST_SEEDS, PRECISIONS, Recipe
from eca_lab.training.train import (
    check_device,
    progress_bar,
    resolve_precision,
    train_network,
    trial_description,
)
from eca_lab.training.workers import ProcessPool, RayPool, check_ray, outcomes

MOST_WORKERS = 1000


@dataclass(frozen=True)
class Trial:
    arm: Spec
    seed: int
    identity: str
    description: dict


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep, in the order in which they run: all arms of seed 0, then of seed 1.

    duplicates maps an arm to the one that is the same network and runs in its place. The networks
    of the first `keep` seeds are kept in the folder `checkpoints`. The rest is what all trials
    share, see `eca_lab.training.train.train_network`.
    """

    dataset: Dataset
    backbone: str
    recipe: Recipe
    trials: tuple
    duplicates: dict
    precision: str = "float32"
    fused: bool = False
    keep: int = 0
    checkpoints: Path = DATA / "checkpoints"

    @property
    def arms(self):
        return list(dict.fromkeys(trial.arm for trial in self.trials))

    @property
    def identities(self):
        return {trial.identity for trial in self.trials}

    def train(self, trial, device="cpu", on_epoch=None):
        """Train one of the trials: network and outcome, as by `train_network`."""
        how = self.recipe, device, on_epoch, self.precision, self.fused
        return train_network(self.dataset, self.backbone, trial.arm, trial.seed, *how)

    def run(self, trial, device, on_epoch):
        """What is recorded of a trial by whoever trains it: no error in it ends a sweep."""
        where = provenance(torch.device(device))
        try:
            model, outcome = self.train(trial, device, on_epoch)
        except Exception as error:
            return {"status": "failed", "reason": f"{type(error).__name__}: {error}", **where}
        if trial.seed < self.keep:
            try:
                with suppress(FileExistsError):  # one that the same trial has left
                    keep_checkpoint(self.checkpoints, self, trial, model, {**outcome, **where})
            except OSError as error:  # the result counts for more than the network
                warnings.warn(f"a network is not kept: {error}", stacklevel=1)
        return {"status": "finished", **outcome, **where}

    def estimate_seconds(self, trial, device="cpu"):
        """About how many seconds a trial takes, from a few batches of it.

        None where it cannot be told, as for lack of memory: the trial itself will say why.
        """
        data, batch = self.dataset, self.recipe.batch_size
        few = replace(data, **{name: getattr(data, name)[: 4 * batch] for name in TENSORS})
        sample = replace(self, dataset=few, recipe=replace(self.recipe, epochs=1, scales=()))
        try:
            for _ in range(2):  # the first warms up
                _, outcome = sample.train(trial, device)
            rate = outcome["images_per_second"]
        except Exception:
            return None
        if not rate:  # rounded to 0.0
            return None
        # A forward pass takes about a third of a training step, and a pixel as long as another.
        epochs = sum(scale**2 for scale in self.recipe.epoch_scales)
        images = epochs * len(data.train_images) + len(data.test_images) / 3
        return images / rate

    def warn_of_emulation(self, trials, device, at_once=1, seconds=None):
        """Warn where trials are to run in bfloat16 on a processor that only emulates it.

        at_once of them run side by side; seconds is how many one takes, measured where not known.
        """
        device = check_device(device)
        precision = resolve_precision(self.precision, device)
        if not trials or device.type != "cpu" or precision != "bfloat16" or cpu_has_bfloat16():
            return
        seconds = seconds or self.estimate_seconds(trials[-1], device)
        warnings.warn(
            f"bfloat16 is emulated on this processor, {provenance(device)['device']}, and takes "
            f"about ten times as long as where it is built in: {len(trials)} trials take "
            f"{duration(len(trials), at_once, seconds)}. precision='float32' (--precision float32) "
            "is faster here, but no pair for trials in bfloat16",
            stacklevel=3,
        )


def duration(trials, at_once, seconds):
    """How long so many trials take, at_once side by side, of so many seconds each: in words."""
    if seconds is None:
        return "an unknown time"
    try:
        return f"about {timedelta(seconds=round(ceil(trials / at_once) * seconds))}"
    except OverflowError:
        return "more than a million years"


def check_arms(backbone, arms, seeds):
    """The arms as `Spec` objects; TypeError, ValueError unless the backbone takes them all."""
    check_integer("seeds", seeds, most=MOST_SEEDS)
    if not arms:
        raise ValueError("arms=[]: accepted is at least one spec, such as eca")
    arms = list(dict.fromkeys(map(parse_spec, arms)))
    with torch.device("meta"):
        model = build_model(backbone)
        for arm in arms:
            add_attention(model, arm)
    return arms


def plan_sweep(dataset, backbone, arms, seeds, recipe, precision="float32", fused=False, keep=0):
    """The `Plan` of a sweep: seeds 0 to seeds - 1 of every arm. Raises as `check_arms`, and
    ValueError for a batch of more than all training images.

    Arms that resolve to the same network are one trial per seed, under the name that gives the
    kernel size. What else is given is as for `eca_lab.training.train.train_network`; where one arm
    cannot train fused none does, with a warning: trials of different paths would be no pairs.
    """
    check_choice("precision", precision, PRECISIONS)
    check_integer("batch_size", recipe.batch_size, most=len(dataset.train_images))
    arms = check_arms(backbone, arms, seeds)
    if fused:
        with torch.device("meta"):
            found = {arm: obstacle(build_model(backbone, arm)) for arm in arms}
        if reasons := "; ".join(f"{arm}: {reason}" for arm, reason in found.items() if reason):
            fused = False
            warnings.warn(f"all arms train by the modules, not fused: {reasons}", stacklevel=2)
    described = {arm: trial_description(dataset, backbone, arm, 0, recipe) for arm in arms}
    networks = {arm: results.trial_identity(description) for arm, description in described.items()}
    chosen = {}  # network -> the arm that runs
    for arm in sorted(arms, key=lambda arm: arm.kernel_sizes is None):
        chosen.setdefault(networks[arm], arm)
    duplicates = {arm: chosen[networks[arm]] for arm in arms if arm not in chosen.values()}
    trials = []
    for seed in range(seeds):
        for arm in dict.fromkeys(chosen[network] for network in networks.values()):
            description = {**described[arm], "seed": seed}
            trials.append(Trial(arm, seed, results.trial_identity(description), description))
    return Plan(dataset, backbone, recipe, tuple(trials), duplicates, precision, fused, keep)


def run_sweep(
    plan,
    out,
    device="cpu",
    workers=None,
    gpu_share=1.0,
    ray=None,
    deadline=None,
    estimate=None,
    any_device=False,
):
    """Run the trials of a plan that are not finished yet, recording each in the folder `out`.

    A trial that raises, or whose worker dies twice, is recorded as failed with its reason, and the
    sweep goes on; another run tries it again. Sweeps may share a folder: none repeats another.

    `check_workers` tells what device, workers, gpu_share and ray are. A trial is not started that
    would probably not end before the deadline, by `time.monotonic`; estimate is the seconds that
    one takes, if known. `to_run` tells which seeds are left alone, with a warning. Gives the
    records of the trials that failed. Raises as `check_workers` and, before any training, as
    `eca_lab.evidence.results.load_records`; RuntimeError where the workers die before they are
    ready.

    OSError where the folder cannot take a record, or moves away: no other trial is started, those
    that run end, and their records are kept where the message says.
    """
    devices = check_workers(device, workers, gpu_share, ray)
    check_folder("out", out)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    records = results.load_records(out, set_aside=plan.identities)
    todo, elsewhere = to_run(plan, records, device, ray, any_device)
    if elsewhere:
        warnings.warn(f"{out}: {_left_alone(elsewhere, device)}", stacklevel=2)
    if not todo:
        return []
    if ray is None:
        # Several trials on one GPU take about as long as one after the other.
        at_once = min(len(devices) if str(device) == "cpu" else len(set(devices)), len(todo))
        plan.warn_of_emulation(todo, device, at_once, estimate)
    epochs = plan.recipe.epochs
    # A trial that is still running in another sweep on this folder has its file locked.
    claims, progress, failed, lost = {}, Counter(), [], []
    longest = estimate or 0.0

    def to_start():
        for number, trial in enumerate(todo, 1):
            if deadline is not None and time.monotonic() + longest > deadline:
                return
            if lost or not out.is_dir():  # a lock would make it anew
                return
            try:
                claim = _claim(out, trial)
            except OSError as error:
                lost.append(f"{out} cannot be used any more: {error}")
                return
            if claim is None:
                bar.total -= epochs
                continue
            claims[trial.identity] = claim, time.monotonic()
            bar.set_postfix_str(f"trial {number} of {len(todo)}: {trial.arm}, seed {trial.seed}")
            yield trial

    def on_epoch(trial):
        progress[trial.identity] += 1
        bar.update()

    def on_retry(trial):
        bar.update(-progress.pop(trial.identity, 0))

    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(len(todo) * epochs))
        stack.callback(lambda: [_release(claim) for claim, _ in claims.values()])
        if ray is None and workers is None:
            ended = ((each, plan.run(each, device, partial(on_epoch, each))) for each in to_start())
        else:
            if ray is not None:
                pool = RayPool(plan.run, ray, device, gpu_share)
            else:
                pool = ProcessPool(plan.run, devices[: len(todo)], gpu_share)
            ended = outcomes(pool, to_start(), on_epoch, on_retry)
        stack.enter_context(closing(ended))
        for trial, outcome in ended:
            known_by = {"schema": results.SCHEMA, "identity": trial.identity}
            record = known_by | describe(trial, outcome)
            if trouble := _write_record(out, record):
                lost.append(trouble)
            if record["status"] == "failed":
                failed.append(record)
            claim, started = claims.pop(trial.identity)
            longest = max(longest, time.monotonic() - started)
            _release(claim)
            bar.update(epochs - progress.pop(trial.identity, 0))
    if lost:
        raise OSError("; ".join(lost))
    if not out.is_dir():
        raise FileNotFoundError(_moved(out))
    return failed


def check_workers(device, workers=None, gpu_share=1.0, ray=None):
    """The devices of the workers of a sweep; None on Ray, whose nodes have them.

    device is "cpu", "cuda", or one CUDA device such as "cuda:1"; workers so many processes of this
    machine, None for none but this one; gpu_share, 0.01 to 1, what of a GPU each takes;
    ray the address of a cluster, which runs as many trials at once as it has CPU cores, or shares
    of a GPU. TypeError, ValueError: what is not accepted; ImportError, OSError: as `check_ray`.
    """
    check_number("gpu_share", gpu_share, least=0.01, most=1)
    if gpu_share < 1 and (str(device) == "cpu" or (workers is None and ray is None)):
        raise ValueError(f"gpu_share={gpu_share}: accepted with workers or ray on a CUDA device")
    if ray is not None:
        if workers is not None:
            raise ValueError(f"workers={workers} with ray={ray!r}: accepted is one of the two")
        check_choice("device", device, ("cpu", "cuda"))
        check_ray(ray)
        return None
    device = check_device(device)
    if workers is None:
        return [str(device)]
    check_integer("workers", workers, most=MOST_WORKERS)
    if device.type == "cpu":
        return ["cpu"] * workers
    indices = range(torch.cuda.device_count()) if device.index is None else [device.index]
    slots = [f"cuda:{index}" for _ in range(int(1 / gpu_share)) for index in indices]
    check_integer("workers", workers, most=len(slots))
    return slots[:workers]


def remaining(plan, records):
    """The trials of a plan that are not finished according to records, of `load_records`."""
    finished = {each for each, record in records.items() if record["status"] == "finished"}
    return [trial for trial in plan.trials if trial.identity not in finished]


def to_run(plan, records, device="cpu", ray=None, any_device=False):
    """The trials of a plan that a sweep would run here, and the seeds that it would leave alone.

    Those are of `begun_elsewhere`, unless any_device is to run them; none on Ray, whose devices are
    not known before.
    """
    elsewhere = {} if any_device or ray else begun_elsewhere(plan, records, device)
    left = remaining(plan, records)
    return [trial for trial in left if trial.seed not in elsewhere], elsewhere


def begun_elsewhere(plan, records, device="cpu"):
    """The seeds with trials left that were begun, but not by what would run them here.

    Each with a set of `run_of`, by which they were begun: that of the finished trials among the
    records that differ from those of the plan in nothing but the arm.
    """

    def without_arm(trial):
        return results.trial_identity({**trial, "attention": None, "parameters": None})

    device, begun = check_device(device), defaultdict(set)
    precision = resolve_precision(plan.precision, device)
    how = {"precision": precision, "path": "fused" if plan.fused else "modules"}
    here = results.run_of({**provenance(device), **how})
    for record in records.values():
        if record["status"] == "finished":
            begun[without_arm(record["trial"])].add(results.run_of(record))
    left = remaining(plan, records)
    seeds = {trial.seed: begun[without_arm(trial.description)] for trial in left}
    return {seed: runs for seed, runs in seeds.items() if runs and here not in runs}


def plan_results(plan, out):
    """The finished trials of a plan as `load_results` gives them, with the plan's names of arms."""
    table = results.load_results(out)
    names = {trial.identity: str(trial.arm) for trial in plan.trials}
    table = table.assign(arm=table["identity"].map(names)).dropna(subset="arm")
    return table.sort_values("arm", key=arm_order, kind="stable")


def _left_alone(elsewhere, device):
    """Which seeds a sweep does not go on with, why, and what to do: `begun_elsewhere` in words."""
    runs = sorted(set().union(*elsewhere.values()))
    told = "; ".join(", ".join(run) for run in runs)
    words = (
        f"seeds {', '.join(map(str, elsewhere))} were begun elsewhere ({told}) and are left alone, "
        "since trials from here would find no pair; any_device=True (--any-device) runs them"
    )
    here, *_ = results.run_of(provenance(check_device(device)))
    # Before its instruction set was recorded, the device was the name of the processor.
    if older := next((name for name, *_ in runs if here.startswith(f"{name}, ")), None):
        words += (
            f". Records from before say {older} alone, which this processor is called, too. If "
            "they are from it, or one with its instruction set, write so into devices.toml in "
            f'that folder, and they are pairs: ["{older}"] and below it device = "{here}"'
        )
    return words


def _write_record(out, record):
    """Write a record, in another place where the folder cannot take it: then, what to do."""
    try:
        results.write_record(out, record)
        return None
    except OSError as error:
        moved, why = not out.is_dir(), error
    trial = f"the record of {record['arm']}, seed {record['trial']['seed']},"
    try:
        if moved:
            out.mkdir(parents=True, exist_ok=True)
            results.write_record(out, record)
            advice = "put the two together before the next run"
            return f"{_moved(out)}: {trial} is in a new folder of that name; {advice}"
        rescue = tempfile.mkdtemp(prefix="eca-lab-")
        results.write_record(rescue, record)
    except OSError:
        return f"{_moved(out) if moved else why}: {trial} could not be kept anywhere"
    return f"{why}: {trial} is kept in {rescue}; move it to {out}"


def _moved(out):
    return f"{out} was moved or removed while the sweep ran"


def _claim(out, trial):
    """A lock that tells other sweeps to leave a trial alone; None if it is running or finished."""
    claim = FileLock(out / f".{trial.identity}.lock")
    try:
        claim.acquire(timeout=0)
    except Timeout:
        return None
    try:
        finished = results.is_finished(out, trial.identity)  # in the meantime
    except OSError:
        _release(claim)
        raise
    if finished:
        _release(claim)
        return None
    return claim


def _release(claim):
    with suppress(OSError):  # not where an open file cannot be removed
        os.unlink(claim.lock_file)
    claim.release()
