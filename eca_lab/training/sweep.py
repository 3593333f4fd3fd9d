"""A sweep: every arm with every seed, each trial recorded as it finishes."""

import os
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout

from eca_lab.attention.spec import arm_order
from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.evidence import results
from eca_lab.files import check_folder
from eca_lab.networks.imported import uploads
from eca_lab.progress import progress_bar
from eca_lab.provenance import provenance
from eca_lab.training.keeping import describe, keep_checkpoint
from eca_lab.training.planning import Plan, Trial
from eca_lab.training.train import check_device, resolve_precision
from eca_lab.training.workers import Pool, ProcessPool, RayPool, check_ray, outcomes

MOST_WORKERS = 1000
# identity -> record; seed -> devices, precisions and paths; trials and what became of them.
_Records = Mapping[str, Mapping[str, Any]]
_Elsewhere = dict[int, set[tuple[str, str, str]]]
_Ended = Generator[tuple[Trial, dict[str, Any]], None, None]


class Sweep:
    """The trials of a plan, each recorded in the folder `out` as it finishes.

    Several sweeps may share a folder: none repeats the trials of another.

    Args:
        plan: what is trained, of `eca_lab.training.planning.plan_sweep`.
        out: the folder of the records, made by `run` where there is none.
        device, workers, gpu_share, ray: where it is trained, see `check_workers`.
        any_device: whether seeds are gone on with that another device has begun.

    Raises:
        TypeError, ValueError, ImportError, OSError: as `check_workers` and `check_folder`.
    """

    def __init__(
        self,
        plan: Plan,
        out: str | Path,
        *,
        device: str | torch.device = "cpu",
        workers: int | None = None,
        gpu_share: float = 1.0,
        ray: str | None = None,
        any_device: bool = False,
    ) -> None:
        self._devices = check_workers(device, workers, gpu_share=gpu_share, ray=ray)
        check_folder("out", out)
        self.plan = plan
        self.out = Path(out)
        self.any_device = any_device
        self._device = str(device)
        self._workers = workers
        self._gpu_share = gpu_share
        self._ray = ray

    def remaining(self) -> list[Trial]:
        """The trials that are not finished according to the records in the folder.

        What stands in the place of a record of this plan, and is none, is set aside. Raises as
        `eca_lab.evidence.results.load_records`.
        """
        return _unfinished(self.plan, self._records())

    def begun_elsewhere(self) -> _Elsewhere:
        """The seeds with trials left that were begun, but not by what would run them here.

        Each with a set of `eca_lab.evidence.results.run_of`, by which they were begun: that of the
        finished trials among the records that differ from those of the plan in nothing but the arm.
        None on Ray, whose devices are not known before. Raises as `remaining`.
        """
        return self._begun_elsewhere(self._records())

    def to_run(self) -> list[Trial]:
        """Those of the `remaining` trials that `run` would start: none of seeds that were
        `begun_elsewhere`, unless any_device is to go on with them. Raises as `remaining`.
        """
        todo, _ = self._to_run(self._records())
        return todo

    def at_once(self, count: int) -> int:
        """How many of so many trials run side by side on this machine.

        Several on one GPU count as one: they take about as long as one after the other.
        """
        slots = self._devices or ["cpu"]
        if self._device != "cpu":
            slots = list(set(slots))
        return min(len(slots), count)

    def run(
        self, *, deadline: float | None = None, estimate: float | None = None
    ) -> list[dict[str, Any]]:
        """Train what is `to_run`, with a warning of the seeds that are left alone.

        A trial that raises, or whose worker dies twice, is recorded as failed with its reason, and
        the sweep goes on; another run tries it again.

        Args:
            deadline: by `time.monotonic`; no trial is started that would probably end later.
            estimate: the seconds that a trial takes, if known.

        Returns:
            The records of the trials that failed.

        Raises:
            OSError: before any training, as `remaining`, and for a file of images that was cut
                short or changed. Or where the folder cannot take a record, or moves away: no other
                trial is started, those that run end, and their records are kept where the message
                says.
            RuntimeError: where the workers die before they are ready.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        todo, elsewhere = self._to_run(self._records())
        if elsewhere:
            words = _left_alone(elsewhere, self._device)
            warnings.warn(f"{self.out}: {words}", stacklevel=2)
        if not todo:
            return []
        for file in self.plan.dataset.files:
            file.check()  # else workers would die of it
        if self._ray is None:
            at_once = self.at_once(len(todo))
            self.plan.warn_of_emulation(todo, self._device, at_once=at_once, seconds=estimate)
        with (
            _Run(self, todo, deadline=deadline, estimate=estimate) as run,
            closing(self._outcomes(run, len(todo))) as ended,
        ):
            for trial, outcome in ended:
                run.record(trial, outcome)
        run.check_nothing_lost()
        return run.failed

    def results(self) -> pd.DataFrame:
        """The finished trials as `eca_lab.evidence.results.load_results` gives them, with the
        plan's names of arms. FileNotFoundError: no such folder.
        """
        table = results.load_results(self.out)
        names = {trial.identity: str(trial.arm) for trial in self.plan.trials}
        table = table.assign(arm=table["identity"].map(names)).dropna(subset="arm")
        return table.sort_values("arm", key=arm_order, kind="stable")

    def _records(self) -> dict[str, dict[str, Any]]:
        return results.load_records(self.out, set_aside=self.plan.identities)

    def _to_run(self, records: _Records) -> tuple[list[Trial], _Elsewhere]:
        """The trials that are to be started, and the seeds that are left alone."""
        elsewhere = {} if self.any_device else self._begun_elsewhere(records)
        left = _unfinished(self.plan, records)
        return [trial for trial in left if trial.seed not in elsewhere], elsewhere

    def _begun_elsewhere(self, records: _Records) -> _Elsewhere:
        if self._ray is not None:
            return {}
        device = check_device(self._device)
        precision = resolve_precision(self.plan.precision, device)
        path = "fused" if self.plan.fused else "modules"
        here = results.run_of({**provenance(device), "precision": precision, "path": path})
        begun = defaultdict(set)
        for record in records.values():
            if record["status"] == "finished":
                begun[_without_arm(record["trial"])].add(results.run_of(record))
        left = _unfinished(self.plan, records)
        seeds = {trial.seed: begun[_without_arm(trial.description)] for trial in left}
        return {seed: runs for seed, runs in seeds.items() if runs and here not in runs}

    def _outcomes(self, run: "_Run", count: int) -> _Ended:
        """Train what a run starts, of so many trials; what becomes of each, as it ends."""
        if self._ray is None and self._workers is None:
            return self._outcomes_here(run)
        job = partial(run_trial, self.plan)
        pool: Pool
        if self._ray is not None:
            # Its nodes need not have the files that images are mapped from.
            in_memory = replace(self.plan.dataset, files=())
            job = partial(run_trial, replace(self.plan, dataset=in_memory))
            pool = RayPool(
                job,
                self._ray,
                device=self._device,
                share=self._gpu_share,
                modules=uploads(self.plan.backbone),
            )
        else:
            devices = self._devices or []
            pool = ProcessPool(job, devices[:count], memory=self._gpu_share)
        return outcomes(pool, run.to_start(), on_epoch=run.on_epoch, on_retry=run.on_retry)

    def _outcomes_here(self, run: "_Run") -> _Ended:
        for trial in run.to_start():
            on_epoch = partial(run.on_epoch, trial)
            yield trial, run_trial(self.plan, trial, device=self._device, on_epoch=on_epoch)


class _Run:
    """One run of a sweep: which trials it has claimed, how far they are, and what was lost.

    As a context manager it shows a progress bar, and gives up its claims at the end.
    """

    def __init__(
        self,
        sweep: Sweep,
        trials: Sequence[Trial],
        *,
        deadline: float | None,
        estimate: float | None,
    ) -> None:
        self.failed: list[dict[str, Any]] = []
        self._out = sweep.out
        self._epochs = sweep.plan.recipe.epochs
        self._trials = trials
        self._deadline = deadline
        self._longest = estimate or 0.0  # seconds that a trial took
        self._lost: list[str] = []
        self._progress: Counter[str] = Counter()  # identity -> epochs of a trial that runs
        # A trial that is running has its file locked, for other sweeps on this folder.
        self._claims: dict[str, FileLock] = {}
        self._started: dict[str, float] = {}
        self._bar = progress_bar(len(trials) * self._epochs)

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        for claim in self._claims.values():
            _release(claim)
        self._bar.close()

    def to_start(self) -> Iterator[Trial]:
        """The trials that are to be started, each claimed when it is asked for."""
        for number, trial in enumerate(self._trials, 1):
            if self._is_too_late() or self._lost or not self._out.is_dir():
                return  # a lock would make the folder anew
            try:
                claim = _claim(self._out, trial)
            except OSError as error:
                self._lost.append(f"{self._out} cannot be used any more: {error}")
                return
            if claim is None:
                self._bar.total -= self._epochs
                continue
            self._claims[trial.identity] = claim
            self._started[trial.identity] = time.monotonic()
            place = f"trial {number} of {len(self._trials)}"
            self._bar.set_postfix_str(f"{place}: {trial.arm}, seed {trial.seed}")
            yield trial

    def on_epoch(self, trial: Trial) -> None:
        """An epoch of a trial is over."""
        self._progress[trial.identity] += 1
        self._bar.update()

    def on_retry(self, trial: Trial) -> None:
        """A trial starts anew."""
        self._bar.update(-self._progress.pop(trial.identity, 0))

    def record(self, trial: Trial, outcome: Mapping[str, Any]) -> None:
        """Write down what became of a trial, and let go of it."""
        known_by = {"schema": results.SCHEMA, "identity": trial.identity}
        record = known_by | describe(trial, outcome)
        if trouble := _write_record(self._out, record):
            self._lost.append(trouble)
        if record["status"] == "failed":
            self.failed.append(record)
        seconds = time.monotonic() - self._started.pop(trial.identity)
        self._longest = max(self._longest, seconds)
        _release(self._claims.pop(trial.identity))
        self._bar.update(self._epochs - self._progress.pop(trial.identity, 0))

    def check_nothing_lost(self) -> None:
        """Raise OSError where a record is not in the folder, or the folder is not there."""
        if self._lost:
            raise OSError("; ".join(self._lost))
        if not self._out.is_dir():
            raise FileNotFoundError(_moved(self._out))

    def _is_too_late(self) -> bool:
        return self._deadline is not None and time.monotonic() + self._longest > self._deadline


def run_trial(
    plan: Plan,
    trial: Trial,
    device: str | torch.device,
    *,
    on_epoch: Callable[[], object],
) -> dict[str, Any]:
    """Train a trial and give what is recorded of it: no error in it ends a sweep.

    Args:
        plan: the one that the trial is of.
        trial: what is trained. Where its seed is one of those, its network is kept.
        device: where.
        on_epoch: called after every epoch.

    Returns:
        Its status, "finished" or "failed", the outcome of `Plan.train` or the reason of the
        failure, and its provenance.
    """
    where = provenance(torch.device(device))
    try:
        model, outcome = plan.train(trial, device, on_epoch=on_epoch)
    except Exception as error:
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}", **where}
    if trial.seed < plan.keep:
        ended = outcome | where
        try:
            with suppress(FileExistsError):  # one that the same trial has left
                keep_checkpoint(plan, trial, folder=plan.checkpoints, model=model, outcome=ended)
        except Exception as error:  # the result counts for more than the network
            warnings.warn(f"a network is not kept: {error}", stacklevel=1)
    return {"status": "finished", **outcome, **where}


def check_workers(
    device: str | torch.device,
    workers: int | None = None,
    *,
    gpu_share: float = 1.0,
    ray: str | None = None,
) -> list[str] | None:
    """The devices of the workers of a sweep; None on Ray, whose nodes have them.

    Args:
        device: "cpu", "cuda", or one CUDA device such as "cuda:1".
        workers: so many processes of this machine; None for none but this one.
        gpu_share: what of a GPU each takes, 0.01 to 1.
        ray: the address of a cluster, which runs as many trials at once as it has CPU cores, or
            shares of a GPU.

    Raises:
        TypeError, ValueError: what is not accepted.
        ImportError, OSError: as `check_ray`.
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


def _unfinished(plan: Plan, records: _Records) -> list[Trial]:
    """The trials of a plan that are not finished according to records, of `load_records`."""
    finished = {name for name, record in records.items() if record["status"] == "finished"}
    return [trial for trial in plan.trials if trial.identity not in finished]


def _without_arm(description: Mapping[str, Any]) -> str:
    """What trials share that differ in nothing but the arm."""
    return results.trial_identity({**description, "attention": None, "parameters": None})


def _left_alone(elsewhere: _Elsewhere, device: str) -> str:
    """Which seeds a sweep does not go on with, why, and what to do."""
    runs = sorted(set().union(*elsewhere.values()))
    seeds = ", ".join(map(str, elsewhere))
    begun = "; ".join(", ".join(run) for run in runs)
    words = (
        f"seeds {seeds} were begun elsewhere ({begun}) and are left alone, "
        "since trials from here would find no pair; any_device=True (--any-device) runs them"
    )
    here, _, _ = results.run_of(provenance(check_device(device)))
    # Before its instruction set was recorded, the device was the name of the processor.
    older = [name for name, _, _ in runs if here.startswith(f"{name}, ")]
    if older:
        words += (
            f". Records from before say {older[0]} alone, which this processor is called, too. If "
            "they are from it, or one with its instruction set, write so into devices.toml in "
            f'that folder, and they are pairs: ["{older[0]}"] and below it device = "{here}"'
        )
    return words


def _write_record(out: Path, record: Mapping[str, Any]) -> str | None:
    """Write a record, in another place where the folder cannot take it: then, what to do."""
    try:
        results.write_record(out, record)
        return None
    except OSError as error:
        is_moved = not out.is_dir()
        why = _moved(out) if is_moved else str(error)
    trial = f"the record of {record['arm']}, seed {record['trial']['seed']},"
    try:
        if is_moved:
            out.mkdir(parents=True, exist_ok=True)
            results.write_record(out, record)
            advice = "put the two together before the next run"
            return f"{why}: {trial} is in a new folder of that name; {advice}"
        rescue = tempfile.mkdtemp(prefix="eca-lab-")
        results.write_record(rescue, record)
    except OSError:
        return f"{why}: {trial} could not be kept anywhere"
    return f"{why}: {trial} is kept in {rescue}; move it to {out}"


def _moved(out: Path) -> str:
    return f"{out} was moved or removed while the sweep ran"


def _claim(out: Path, trial: Trial) -> FileLock | None:
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


def _release(claim: FileLock) -> None:
    with suppress(OSError):  # not where an open file cannot be removed
        os.unlink(claim.lock_file)
    claim.release()
