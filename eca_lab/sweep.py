"""A sweep: every arm with every seed, each trial recorded as it finishes."""

import os
import platform
import re
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from eca_lab.checks import check_integer
from eca_lab.data import Dataset
from eca_lab.models import build_model, load_checkpoint, save_checkpoint
from eca_lab.results import (
    SCHEMA,
    is_finished,
    load_records,
    load_results,
    set_aside,
    trial_identity,
    write_record,
)
from eca_lab.spec import parse_spec
from eca_lab.train import (
    Recipe,
    check_device,
    estimate_seconds,
    run_trial,
    train_network,
    trial_description,
)
from eca_lab.workers import ProcessPool, RayPool, check_ray, outcomes


@dataclass(frozen=True)
class Trial:
    arm: str
    seed: int
    identity: str
    description: dict


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep, in the order in which they run: all arms of seed 0, then of seed 1.

    duplicates maps an arm to the arm that resolves to the same network and runs in its place.
    """

    dataset: Dataset
    backbone: str
    recipe: Recipe
    trials: tuple
    duplicates: dict

    @property
    def arms(self):
        return list(dict.fromkeys(trial.arm for trial in self.trials))


def check_arms(backbone, arms, seeds):
    """Raise unless the arms can be built on the backbone, and seeds is a positive integer.

    Needs no data, so that a mistyped arm is told before a download.

    Raises:
        TypeError, ValueError: naming what is not accepted.
    """
    check_integer("seeds", seeds)
    if not arms:
        raise ValueError("arms=[]: accepted is at least one spec, such as eca")
    for arm in arms:
        build_model(backbone, arm)


def plan_sweep(dataset, backbone, arms, seeds, recipe=None):
    """Make the trials of a sweep: seeds 0 to seeds - 1 of every arm.

    Arms that resolve to the same network are one trial per seed, under the name that gives the
    kernel size.

    Args:
        dataset: an `eca_lab.data.Dataset`.
        backbone: one of `eca_lab.models.BACKBONES`.
        arms: spec strings.
        seeds: how many.
        recipe: a `Recipe`, its defaults if left out.

    Raises:
        TypeError, ValueError: as `check_arms`.
    """
    check_arms(backbone, arms, seeds)
    recipe = recipe or Recipe()
    first_seed = {}  # identity with seed 0 -> its arms
    described = {}
    for arm in dict.fromkeys(str(parse_spec(arm)) for arm in arms):
        description = trial_description(dataset, backbone, arm, 0, recipe)
        first_seed.setdefault(trial_identity(description), []).append(arm)
        described[arm] = description
    duplicates, kept = {}, []
    for same in first_seed.values():
        chosen = next((arm for arm in same if "k" in parse_spec(arm).arguments), same[0])
        kept.append(chosen)
        duplicates.update({arm: chosen for arm in same if arm != chosen})
    trials = []
    for seed in range(seeds):
        for arm in kept:
            description = {**described[arm], "seed": seed}
            trials.append(Trial(arm, seed, trial_identity(description), description))
    return Plan(dataset, backbone, recipe, tuple(trials), duplicates)


@dataclass(frozen=True)
class Job:
    """What a worker does with each trial of a plan. Running out of memory must not end a sweep."""

    dataset: Dataset
    backbone: str
    recipe: Recipe

    def __call__(self, trial, device, on_epoch):
        try:
            outcome = run_trial(
                self.dataset,
                self.backbone,
                trial.arm,
                trial.seed,
                self.recipe,
                device,
                on_epoch=on_epoch,
            )
        except Exception as error:
            outcome = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        else:
            outcome = {"status": "finished", **outcome}
        return {**outcome, **_provenance(torch.device(device))}


def run_sweep(plan, out, device="cpu", workers=None, gpu_share=1.0, ray=None, budget=None):
    """Run the trials of a plan that are not finished yet, recording each in the folder `out`.

    A trial that raises, whose loss is no longer finite, or whose worker dies twice, is recorded as
    failed with its reason, and the sweep goes on; it is tried again when the sweep is run again.
    Interrupted, a sweep keeps what is finished, and run again it does the rest. Several sweeps may
    share a folder, at the same time, too: what one of them is running, the others leave to it.

    Args:
        plan: of `plan_sweep`.
        out: folder, made if it is not there. A file in it that is no valid record is moved into
            its folder `rejected`, with a warning.
        device: "cpu", "cuda", or one CUDA device such as "cuda:1".
        workers: run trials in so many processes of this machine; None runs them in this one.
        gpu_share: of a GPU for each worker, above 0 and at most 1; 0.25 lets four share a GPU.
        ray: address of a Ray cluster to run the trials on in place of this machine, as many at
            once as it has CPU cores, or shares of a GPU.
        budget: seconds. A trial that would probably not end within them is not started.

    Returns:
        list of the records of the trials that failed, empty if all is well.

    Raises:
        TypeError, ValueError: a device that is not there, or another value that is not accepted.
        ImportError, ConnectionError: no Ray here, or no cluster at that address.
        RuntimeError: the workers die before they are ready.
        OSError: the folder cannot be made or written.
    """
    devices = check_workers(device, workers, gpu_share, ray, budget)
    begin = time.monotonic()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    set_aside(out)
    todo = remaining(plan, out)
    if not todo:
        return []
    job = Job(plan.dataset, plan.backbone, plan.recipe)
    epochs = plan.recipe.epochs
    # A trial that is still running in another sweep on this folder has its file locked.
    claims, started, progress, failed = {}, {}, Counter(), []
    longest = 0.0
    if budget is not None and ray is None:
        longest = estimate_seconds(plan.dataset, plan.backbone, todo[-1].arm, plan.recipe, device)

    def to_start():
        for number, trial in enumerate(todo, 1):
            if budget is not None and time.monotonic() - begin + longest > budget:
                return
            claim = _claim(out, trial)
            if claim is None:
                bar.total -= epochs
                continue
            claims[trial.identity], started[trial.identity] = claim, time.monotonic()
            bar.set_postfix_str(f"trial {number} of {len(todo)}: {trial.arm}, seed {trial.seed}")
            yield trial

    def on_epoch(trial):
        progress[trial.identity] += 1
        bar.update()

    def on_retry(trial):
        bar.update(-progress.pop(trial.identity, 0))

    # tqdm's bar for notebooks overlooks this variable, which its bar for terminals obeys.
    quiet = bool(os.environ.get("TQDM_DISABLE"))
    with ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=len(todo) * epochs, unit="epoch", smoothing=0.05, disable=quiet)
        )
        stack.callback(lambda: [_release(claim) for claim in claims.values()])
        if ray is not None:
            ended = outcomes(RayPool(job, ray, device, gpu_share), to_start(), on_epoch, on_retry)
        elif workers is not None:
            pool = ProcessPool(job, devices[: len(todo)], gpu_share)
            ended = outcomes(pool, to_start(), on_epoch, on_retry)
        else:
            ended = ((trial, job(trial, device, partial(on_epoch, trial))) for trial in to_start())
        stack.enter_context(closing(ended))
        code = _code_version()
        for trial, outcome in ended:
            record = {
                "schema": SCHEMA,
                "identity": trial.identity,
                "arm": trial.arm,
                **outcome,
                "trial": trial.description,
                "code": code,
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            write_record(out, record)
            if record["status"] == "failed":
                failed.append(record)
            longest = max(longest, time.monotonic() - started[trial.identity])
            _release(claims.pop(trial.identity))
            bar.update(epochs - progress.pop(trial.identity, 0))
    return failed


def check_workers(device, workers=None, gpu_share=1.0, ray=None, budget=None):
    """The devices of the workers of `run_sweep`, whose arguments these are.

    Raises:
        TypeError, ValueError: naming what is not accepted.
        ImportError, OSError: no Ray here, or no cluster at that address.
    """
    if not 0 < gpu_share <= 1:
        raise ValueError(f"gpu_share={gpu_share}: accepted are 0 < gpu_share <= 1")
    if budget is not None and not budget > 0:
        raise ValueError(f"budget={budget}: accepted are more than 0 seconds")
    if gpu_share < 1 and (torch.device(device).type == "cpu" or (workers is None and ray is None)):
        raise ValueError(
            f"gpu_share={gpu_share}: accepted on a CUDA device, together with workers or ray"
        )
    if ray is not None:
        if workers is not None:
            raise ValueError(f"workers={workers} with ray={ray!r}: accepted is one of the two")
        check_ray(ray)
        return None  # the nodes have the devices
    device = check_device(device)
    if workers is None:
        return [str(device)]
    check_integer("workers", workers)
    if device.type == "cpu":
        return ["cpu"] * workers
    indices = range(torch.cuda.device_count()) if device.index is None else [device.index]
    slots = [f"cuda:{index}" for _ in range(int(1 / gpu_share)) for index in indices]
    if workers > len(slots):
        raise ValueError(
            f"workers={workers}: accepted are at most {len(slots)}, with gpu_share={gpu_share} on "
            f"{len(indices)} GPUs"
        )
    return slots[:workers]


def remaining(plan, out):
    """The trials of a plan that have no finished record in the folder `out`."""
    records = load_records(out) if Path(out).is_dir() else {}
    finished = {each for each, record in records.items() if record["status"] == "finished"}
    return [trial for trial in plan.trials if trial.identity not in finished]


def plan_results(plan, out):
    """The finished trials of a plan, as `eca_lab.results.load_results` gives them.

    The arms bear the names that the plan gives them, whatever name they were recorded under.
    """
    results = load_results(out)
    names = {trial.identity: trial.arm for trial in plan.trials}
    results = results[results["identity"].isin(names)]
    results = results.assign(arm=results["identity"].map(names))
    return results.sort_values(
        "arm", key=lambda arms: arms.map(lambda arm: parse_spec(arm).order), kind="stable"
    )


def estimate_sweep(plan, out, device="cpu"):
    """About how many seconds the remaining trials of a plan will take, from a few batches."""
    todo = remaining(plan, out)
    if not todo:
        return 0.0
    arm = todo[-1].arm
    return len(todo) * estimate_seconds(plan.dataset, plan.backbone, arm, plan.recipe, device)


def train_checkpoints(plan, out, device="cpu"):
    """Train the networks of a plan that are not in the folder `out` yet, and save them there.

    A network is there if its file loads and its card describes the same trial. Interrupted and
    run again, the rest is done.

    Args:
        plan: of `plan_sweep`.
        out: folder, made if it is not there.
        device: "cpu" or a CUDA device.

    Returns:
        list of the paths, in the order of the plan's trials.

    Raises:
        ValueError: a device that is not there.
        FloatingPointError: the loss of a network is no longer finite.
        OSError: the folder cannot be made or written.
    """
    device = check_device(device)
    Path(out).mkdir(parents=True, exist_ok=True)
    provenance, code = _provenance(device), _code_version()
    paths = {checkpoint_path(plan, trial, out): trial for trial in plan.trials}
    todo = {path: trial for path, trial in paths.items() if not _is_saved(path, trial)}
    quiet = bool(os.environ.get("TQDM_DISABLE"))
    with tqdm(total=len(todo) * plan.recipe.epochs, unit="epoch", disable=quiet) as bar:
        for path, trial in todo.items():
            bar.set_postfix_str(path.stem)
            model, outcome = train_network(
                plan.dataset,
                plan.backbone,
                trial.arm,
                trial.seed,
                plan.recipe,
                device,
                on_epoch=bar.update,
            )
            card = {
                "arm": trial.arm,
                "classes": list(plan.dataset.classes),
                **outcome,
                "trial": trial.description,
                **provenance,
                "code": code,
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            save_checkpoint(path, model, card)
    return list(paths)


def checkpoint_path(plan, trial, out):
    """Where `train_checkpoints` saves the network of a trial."""
    arm = re.sub(r"\W+", "_", trial.arm).strip("_")
    dataset = f"{plan.dataset.name}{plan.dataset.size}"
    return Path(out) / f"{dataset}-{plan.backbone}-{arm}-seed{trial.seed}.safetensors"


def _is_saved(path, trial):
    try:
        return load_checkpoint(path)[1]["trial"] == trial.description
    except (FileNotFoundError, ValueError):
        return False


def _claim(out, trial):
    """A lock that tells other sweeps to leave a trial alone; None if it is running or finished.

    When a process dies, the system releases its locks.
    """
    claim = FileLock(out / f".{trial.identity}.lock")
    try:
        claim.acquire(timeout=0)
    except Timeout:
        return None
    if is_finished(out, trial.identity):  # in the meantime
        _release(claim)
        return None
    return claim


def _release(claim):
    with suppress(OSError):  # not where an open file cannot be removed
        os.unlink(claim.lock_file)
    claim.release()


def _provenance(device):
    """Where and with what a trial ran."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    packages = ("torch", "torchvision", "numpy")
    return {
        "device": f"{device.type}: {name}",
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in packages},
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _code_version():
    """Commit of this package's checkout and whether it has changes; empty outside a checkout."""
    git = ["git", "-C", os.path.dirname(os.path.abspath(__file__))]
    try:
        commit, status = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit.strip(), "changed": bool(status.strip())}
