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
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

import torch

from eca_lab.provenance import available_cores

ATTEMPTS = 2  # how often a trial is started before it has failed
# What a pool tells of a worker, beside the outcome of its trial.
READY, EPOCH, DIED = "ready", "epoch", "died"
_AWAKE = "awake"  # what a process tells its pool before that


def outcomes(pool, trials, on_epoch, on_retry):
    """Run trials in the workers of a pool; yield (trial, outcome) in the order of their ends.

    A trial is taken only when a worker is free for it. on_epoch and on_retry are called with a
    trial after each of its epochs, and before it starts anew. The pool is closed, whatever happens.
    RuntimeError: the workers die before they are ready.
    """
    trials = iter(trials)
    free, running, attempts, deaths = [], {}, Counter(), 0
    try:
        for _ in range(pool.size):
            pool.start()
        while True:
            while free and (trial := next(trials, None)):
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
                trial = running.pop(worker, None)
                if event != DIED:
                    free.append(worker)
                    if event == READY:
                        deaths = 0
                    else:
                        yield trial, event
                    continue
                if worker in free:
                    free.remove(worker)
                pool.start()
                if trial is None:
                    deaths += 1
                    if deaths > ATTEMPTS * pool.size:
                        why = f"is there memory for {pool.size} at once?"
                        raise RuntimeError(f"{deaths} workers died while they started: {why}")
                elif attempts[trial.identity] < ATTEMPTS:
                    on_retry(trial)
                    trials = chain([trial], trials)
                else:
                    reason = f"its worker died {ATTEMPTS} times: killed, or out of memory"
                    yield trial, {"status": "failed", "reason": reason}
    finally:
        pool.close()


def threads_each(processes):
    """How many threads a process gets of this machine's cores, where so many share them."""
    return max(1, available_cores() // processes)


class ProcessPool:
    """Processes of this machine, one for each of the devices, which share its cores equally.

    memory is the share of the memory of its GPU that each may take, 0 to 1.
    """

    def __init__(self, job, devices, memory=1.0):
        self.size = len(devices)
        self._job, self._memory, self._free_devices = job, memory, list(devices)
        self._threads = threads_each(self.size)
        self._workers = {}  # connection -> process, device

    def start(self):
        # Not forked: a fork has neither CUDA nor OpenMP's threads.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        device = self._free_devices.pop()
        # The job, with all its images, waits until the process can read it: it takes seconds to
        # import torch, and so workers start side by side.
        given = there, device, self._threads, self._memory
        process = context.Process(target=_serve, args=given, daemon=True)
        with _interrupts_deferred():
            process.start()
            self._workers[here] = process, device
        there.close()  # else its end could not be seen here

    def submit(self, worker, trial):
        with suppress(OSError):  # a worker that died is noticed by wait
            worker.send(trial)

    def wait(self):
        events = []
        for worker in wait(list(self._workers)):
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

    def close(self):
        for process, _ in self._workers.values():
            process.kill()
        for worker, (process, _) in self._workers.items():
            process.join()
            worker.close()
        self._workers.clear()


@contextmanager
def _interrupts_deferred():
    """Ctrl-C comes later here, and never to a process that is started meanwhile."""
    resource_tracker.ensure_running()  # which, where it is started later, lifts the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection, device, threads, memory):
    """What a worker process does: run the trials that come in, until nobody sends any more."""
    # A sweep that is killed takes its workers with it, even in the middle of an epoch.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    connection.send(_AWAKE)
    job = connection.recv()
    _use(threads, device, memory)
    connection.send(READY)
    while True:
        trial = connection.recv()
        connection.send(job(trial, device, on_epoch=lambda: connection.send(EPOCH)))


def _die_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _use(threads, device, memory):
    torch.set_num_threads(threads)
    device = torch.device(device)
    if device.type == "cuda" and memory < 1:
        torch.cuda.set_per_process_memory_fraction(memory, device.index or 0)


class RayPool:
    """Actors on the Ray cluster at an address, each with a CPU core, or with a share of a GPU.

    Raises as `check_ray`, and ValueError for a cluster without a GPU, where the device is "cuda".
    """

    def __init__(self, job, address, device, share=1.0):
        import eca_lab

        ray = self._ray = check_ray(address)
        # The nodes run this very code, whatever is installed there.
        modules = {"py_modules": [eca_lab]}
        ray.init(address, runtime_env=modules, log_to_driver=False, logging_level="error")
        there = ray.cluster_resources()
        self.size, demand = int(there["CPU"]), {"num_cpus": 1}
        if device == "cuda":
            self.size = int(there.get("GPU", 0)) * int(1 / share)
            demand = {"num_cpus": 0, "num_gpus": share}
        if not self.size:
            ray.shutdown()
            raise ValueError(f"device='cuda': no node of the Ray cluster at {address} has a GPU")
        self._actor, self._given = ray.remote(**demand)(_Actor), (ray.put(job), device, share)
        self._pending = {}  # reference to come -> actor

    def start(self):
        actor = self._actor.remote(*self._given)
        self._pending[actor.ready.remote()] = actor

    def submit(self, worker, trial):
        self._pending[worker.run.remote(trial)] = worker

    def wait(self):
        (done,), _ = self._ray.wait(list(self._pending))
        actor = self._pending.pop(done)
        try:
            return [(actor, self._ray.get(done))]
        except self._ray.exceptions.RayError:
            return [(actor, DIED)]

    def close(self):
        self._ray.shutdown()


class _Actor:
    """A worker on Ray. It lives as long as the sweep, and so is CUDA initialised only once."""

    def __init__(self, job, device, memory):
        self._job, self._device = job, device
        _use(1, device, memory)

    def ready(self):
        return READY

    def run(self, trial):
        return self._job(trial, self._device, on_epoch=lambda: None)


def check_ray(address):
    """The module ray, if a cluster can be reached at the address: "auto", or HOST:PORT.

    ValueError: an empty address. ImportError: Ray is not installed. OSError: nobody answers there;
    Ray would wait for minutes.
    """
    if not address:  # which Ray would take for a cluster to be started
        raise ValueError("ray='': accepted is auto, or HOST:PORT")
    try:
        import ray
    except ImportError:
        raise ImportError('no Ray here; install it with: pip install "eca-lab[ray]"') from None
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:  # of a port above 65535
            raise ConnectionError(f"ray={address!r}: no cluster answers: {error}") from None
    return ray
