"""Where the trials of a sweep run: in processes of this machine, or on the nodes of a Ray cluster.

A pool starts workers, hands them trials and reports what becomes of them; `outcomes` is the one
loop that schedules. A worker that dies, whatever killed it, is replaced and costs its trial one
retry. A job is what the workers do: a function (trial, device, on_epoch) -> outcome, a dict, that
can be pickled. Each worker gets one copy of it and runs many trials, told by their `identity`.
"""

import multiprocessing
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, Protocol, TypeVar

import torch

from eca_lab.provenance import available_cores

ATTEMPTS = 2  # how often a trial is started before it has failed
# What a pool tells of a worker, beside the outcome of its trial.
READY, EPOCH, DIED = "ready", "epoch", "died"
_AWAKE = "awake"  # what a process tells its pool before that

Job = Callable[..., dict[str, Any]]


class HasIdentity(Protocol):
    """What is known of a trial here."""

    @property
    def identity(self) -> str:
        """No other trial has it."""


T = TypeVar("T", bound=HasIdentity)


class Pool(Protocol):
    """Workers, each known by a handle; `size` is how many there are to be."""

    size: int

    def start(self) -> None:
        """Start one worker more."""

    def submit(self, worker: Any, trial: Any) -> None:
        """Hand a trial to a worker that is free."""

    def wait(self) -> Sequence[tuple[Any, Any]]:
        """Wait for events: (worker, `READY`, `EPOCH`, `DIED`, or the outcome of its trial)."""

    def close(self) -> None:
        """End all workers, whatever they do."""


def outcomes(
    pool: Pool,
    trials: Iterable[T],
    *,
    on_epoch: Callable[[T], object],
    on_retry: Callable[[T], object],
) -> Generator[tuple[T, dict[str, Any]], None, None]:
    """Run trials in the workers of a pool, and tell what becomes of them.

    Args:
        pool: is closed at the end, whatever happens.
        trials: one is taken only when a worker is free for it.
        on_epoch: called with a trial after each of its epochs.
        on_retry: called with a trial before it starts anew.

    Yields:
        (trial, outcome) in the order of their ends.

    Raises:
        RuntimeError: the workers die before they are ready.
    """
    waiting = iter(trials)
    free: list[Any] = []
    running: dict[Any, T] = {}
    attempts: Counter[str] = Counter()
    deaths = 0  # of workers that had never run a trial, one after the other
    try:
        for _ in range(pool.size):
            pool.start()
        while True:
            while free and (trial := next(waiting, None)):
                worker = free.pop()
                running[worker] = trial
                attempts[trial.identity] += 1
                pool.submit(worker, trial)
            if free and not running:
                return
            for worker, event in pool.wait():
                if event == EPOCH:
                    on_epoch(running[worker])
                    continue
                if event == READY:
                    deaths = 0
                    free.append(worker)
                    continue
                if event != DIED:
                    free.append(worker)
                    yield running.pop(worker), event
                    continue
                if worker in free:
                    free.remove(worker)
                pool.start()
                trial = running.pop(worker, None)
                if trial is None:
                    deaths += 1
                    if deaths > ATTEMPTS * pool.size:
                        why = f"is there memory for {pool.size} at once?"
                        raise RuntimeError(f"{deaths} workers died while they started: {why}")
                elif attempts[trial.identity] < ATTEMPTS:
                    on_retry(trial)
                    waiting = chain([trial], waiting)
                else:
                    reason = f"its worker died {ATTEMPTS} times: killed, or out of memory"
                    yield trial, {"status": "failed", "reason": reason}
    finally:
        pool.close()


def threads_each(processes: int) -> int:
    """How many threads a process gets of this machine's cores, where so many share them."""
    return max(1, available_cores() // processes)


class ProcessPool:
    """Processes of this machine, one for each of the devices, which share its cores equally.

    memory is the share of the memory of its GPU that each may take, 0 to 1.
    """

    def __init__(self, job: Job, devices: Sequence[str], *, memory: float = 1.0) -> None:
        self.size = len(devices)
        self._job = job
        self._memory = memory
        self._free_devices = list(devices)
        self._threads = threads_each(self.size)
        self._workers: dict[Any, tuple[SpawnProcess, str]] = {}  # by their connections

    def start(self) -> None:
        # Not forked: a fork has neither CUDA nor OpenMP's threads.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        device = self._free_devices.pop()
        # The job, with all its images, waits until the process can read it: it takes seconds to
        # import torch, and so workers start side by side.
        process = context.Process(
            target=_serve,
            args=[there, device],
            kwargs={"threads": self._threads, "memory": self._memory},
            daemon=True,
        )
        with _interrupts_deferred():
            process.start()
            self._workers[here] = process, device
        there.close()  # else its end could not be seen here

    def submit(self, worker: Any, trial: Any) -> None:
        with suppress(OSError):  # a worker that died is noticed by wait
            worker.send(trial)

    def wait(self) -> list[tuple[Any, Any]]:
        events = []
        connections: list[Any] = wait(list(self._workers))
        for worker in connections:
            try:
                event = worker.recv()
                if event == _AWAKE:
                    worker.send(self._job)
                    continue
            except (EOFError, OSError):
                process, device = self._workers.pop(worker)
                process.join()
                worker.close()
                self._free_devices.append(device)
                event = DIED
            events.append((worker, event))
        return events

    def close(self) -> None:
        for process, _ in self._workers.values():
            process.kill()
        for worker, (process, _) in self._workers.items():
            process.join()
            worker.close()
        self._workers.clear()


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl-C comes later here, and never to a process that is started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        with _interrupts_noted():
            yield
        return
    resource_tracker.ensure_running()  # which, where it is started later, lifts the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_noted() -> Iterator[None]:
    """Ctrl-C comes later here, where signals cannot be blocked; workers ignore it by themselves."""
    if threading.current_thread() is not threading.main_thread():  # no other is interrupted
        yield
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)


def _serve(connection: Connection, device: str, *, threads: int, memory: float) -> None:
    """What a worker process does: run the trials that come in, until nobody sends any more."""
    # Ctrl-C reaches all processes of a terminal, and the sweep alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A sweep that is killed takes its workers with it, even in the middle of an epoch.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    connection.send(_AWAKE)
    job = connection.recv()
    _use(threads, device, memory=memory)
    connection.send(READY)
    while True:
        trial = connection.recv()
        connection.send(job(trial, device, on_epoch=lambda: connection.send(EPOCH)))


def _die_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _use(threads: int, device: str | torch.device, *, memory: float) -> None:
    torch.set_num_threads(threads)
    device = torch.device(device)
    if device.type == "cuda" and memory < 1:
        torch.cuda.set_per_process_memory_fraction(memory, device.index or 0)


class RayPool:
    """Actors on the Ray cluster at an address, each with a CPU core, or with a share of a GPU.

    modules are those that the job needs beside this package, and that the nodes may not have.
    Raises as `check_ray`, and ValueError for a cluster without a GPU, where the device is "cuda".
    """

    def __init__(
        self,
        job: Job,
        address: str,
        *,
        device: str,
        share: float = 1.0,
        modules: Sequence[ModuleType] = (),
    ) -> None:
        import eca_lab

        ray = self._ray = check_ray(address)
        # The nodes run this very code, whatever is installed there.
        environment = {"py_modules": [eca_lab, *modules]}
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="error")
        there = ray.cluster_resources()
        if device == "cuda":
            self.size = int(there.get("GPU", 0)) * int(1 / share)
            demand = {"num_cpus": 0, "num_gpus": share}
        else:
            self.size = int(there["CPU"])
            demand = {"num_cpus": 1}
        if not self.size:
            ray.shutdown()
            raise ValueError(f"device='cuda': no node of the Ray cluster at {address} has a GPU")
        self._actor = ray.remote(**demand)(_Actor)
        self._job = ray.put(job)
        self._device = device
        self._share = share
        self._pending: dict[Any, Any] = {}  # reference to come -> actor

    def start(self) -> None:
        actor = self._actor.remote(self._job, self._device, memory=self._share)
        self._pending[actor.ready.remote()] = actor

    def submit(self, worker: Any, trial: Any) -> None:
        self._pending[worker.run.remote(trial)] = worker

    def wait(self) -> list[tuple[Any, Any]]:
        (done,), _ = self._ray.wait(list(self._pending))
        actor = self._pending.pop(done)
        try:
            return [(actor, self._ray.get(done))]
        except self._ray.exceptions.RayError:
            return [(actor, DIED)]

    def close(self) -> None:
        self._ray.shutdown()


class _Actor:
    """A worker on Ray. It lives as long as the sweep, and so is CUDA initialised only once."""

    def __init__(self, job: Job, device: str, *, memory: float) -> None:
        self._job = job
        self._device = device
        _use(1, device, memory=memory)

    def ready(self) -> str:
        return READY

    def run(self, trial: Any) -> dict[str, Any]:
        return self._job(trial, self._device, on_epoch=lambda: None)


def check_ray(address: str) -> ModuleType:
    """The module ray, if a cluster can be reached at the address: "auto", or HOST:PORT.

    ValueError: an empty address. ImportError: Ray is not installed. OSError: nobody answers there;
    Ray would wait for minutes.
    """
    if not address:  # which Ray would take for a cluster to be started
        raise ValueError("ray='': accepted is auto, or HOST:PORT")
    try:
        import ray
    except ImportError:
        raise ImportError("no Ray here; install it with: pip install ray") from None
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:  # of a port above 65535
            raise ConnectionError(f"ray={address!r}: no cluster answers: {error}") from None
    return ray
