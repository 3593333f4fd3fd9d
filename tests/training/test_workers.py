import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import SpawnProcess

import psutil
import pytest
import torch

from eca_lab.provenance import available_cores
from eca_lab.training import workers
from eca_lab.training.workers import ATTEMPTS, DIED, EPOCH, READY, ProcessPool, outcomes


@dataclass(frozen=True)
class Trial:
    identity: str


class FakePool:
    """Workers 1, 2, ...; what becomes of them is told by a script: trial -> list of events."""

    def __init__(self, size, script, starts=()):
        self.size, self.script, self.starts = size, {k: list(v) for k, v in script.items()}, starts
        self.count, self.events, self.log, self.closed = 0, [], [], False

    def start(self):
        self.count += 1
        alive = self.count > len(self.starts) or self.starts[self.count - 1]
        self.events.append((self.count, READY if alive else DIED))

    def submit(self, worker, trial):
        self.log.append(trial.identity)
        event = self.script[trial.identity].pop(0)
        self.events += [(worker, EPOCH), (worker, event)]

    def wait(self):
        events, self.events = self.events, []
        assert events, "nothing will ever happen"
        return events

    def close(self):
        self.closed = True


def run(pool, names):
    epochs, retries = Counter(), []
    ended = [
        (trial.identity, outcome)
        for trial, outcome in outcomes(
            pool,
            map(Trial, names),
            on_epoch=lambda trial: epochs.update([trial.identity]),
            on_retry=lambda trial: retries.append(trial.identity),
        )
    ]
    return ended, epochs, retries


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_trial_runs_once(size):
    names = "abcd"
    pool = FakePool(size, {name: [{"top1": name}] for name in names})
    ended, epochs, retries = run(pool, names)
    assert sorted(ended) == [(name, {"top1": name}) for name in names]
    assert epochs == Counter(names)
    assert retries == []
    assert pool.closed


@pytest.mark.parametrize("size", [1, 3])
def test_a_dead_worker_costs_one_retry_and_then_the_trial_failed(size):
    script = {"a": [{}], "b": [DIED, {}], "c": [DIED, DIED], "d": [{}]}
    pool = FakePool(size, script)
    ended, _, retries = run(pool, "abcd")
    ended = dict(ended)
    assert ended.keys() == set("abcd")
    assert ended["b"] == {}
    assert ended["c"]["status"] == "failed"
    assert f"died {ATTEMPTS} times" in ended["c"]["reason"]
    assert sorted(retries) == ["b", "c"]
    assert Counter(pool.log) == {"a": 1, "b": 2, "c": 2, "d": 1}


def test_workers_that_die_while_they_start_are_replaced():
    ended, _, _ = run(FakePool(2, {"a": [{}], "b": [{}]}, starts=[False, True, False]), "ab")
    assert sorted(ended) == [("a", {}), ("b", {})]


def test_workers_that_cannot_start_end_the_sweep():
    pool = FakePool(2, {"a": [{}]}, starts=[False] * 99)
    with pytest.raises(RuntimeError, match="5 workers died while they started"):
        run(pool, "a")
    assert pool.closed


def test_trials_are_taken_when_a_worker_is_free():
    taken = []

    def trials():
        for name in "abc":
            taken.append(name)
            yield Trial(name)

    ended = outcomes(
        FakePool(1, {name: [{}] for name in "abc"}), trials(), on_epoch=id, on_retry=id
    )
    next(ended)
    assert taken == ["a"]
    ended.close()


def job(trial, device, on_epoch):
    """A job for real processes: the trial's identity is what to do."""
    on_epoch()
    what, _, path = trial.identity.partition(" ")
    if what == "die-once" and not os.path.exists(path):
        open(path, "w").close()
        os._exit(9)
    if what == "sleep":
        time.sleep(float(path))
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "process": os.getpid(),
        "on_interrupt": signal.getsignal(signal.SIGINT),
    }


def test_processes(tmp_path):
    names = ["a", f"die-once {tmp_path / 'died'}", "b", "c"]
    ended, epochs, retries = run(ProcessPool(job, ["cpu", "cpu"]), names)
    ended = dict(ended)
    assert ended.keys() == set(names)
    assert {outcome["device"] for outcome in ended.values()} == {"cpu"}
    assert {outcome["threads"] for outcome in ended.values()} == {max(1, available_cores() // 2)}
    assert {outcome["on_interrupt"] for outcome in ended.values()} == {signal.SIG_IGN}
    assert os.getpid() not in {outcome["process"] for outcome in ended.values()}
    assert retries == names[1:2]
    assert epochs["a"] == 1


def test_closing_ends_processes_at_work():
    pool = ProcessPool(job, ["cpu"])
    ended = outcomes(pool, [Trial("a"), Trial("sleep 1000")], on_epoch=id, on_retry=id)
    _, outcome = next(ended)
    pool.submit(next(iter(pool._workers)), Trial("sleep 1000"))
    ended.close()
    assert not psutil.pid_exists(outcome["process"])


def large_job(images, trial, device, on_epoch):
    return {"images": len(images)}


def test_an_interrupt_while_workers_start_is_deferred(monkeypatch):
    # More than a pipe holds. It is not read before the process has imported torch.
    pool = ProcessPool(partial(large_job, b"0" * 2**22), ["cpu", "cpu"])
    genuine, processes = SpawnProcess.start, []

    def interrupted(process):
        genuine(process)
        processes.append(process)
        if len(processes) == 2:
            # Neither has come so far as to read: they start side by side.
            assert not any(connection.poll() for connection in pool._workers)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(outcomes(pool, [Trial("a")], on_epoch=id, on_retry=id))
    assert [process.is_alive() for process in processes] == [False, False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hasattr(signal, "pthread_sigmask"):
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_interrupts_are_deferred_where_signals_cannot_be_blocked(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)  # as on Windows
    steps = []

    def start():
        with workers._interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("started")
        steps.append("interrupted too late")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with workers._interrupts_deferred():
        pass
    # A thread cannot set what a signal does, and is never interrupted.
    thread = threading.Thread(target=lambda: steps.append(deferred_in_a_thread()))
    thread.start()
    thread.join()
    assert steps == ["started", signal.default_int_handler]


def deferred_in_a_thread():
    with workers._interrupts_deferred():
        return signal.getsignal(signal.SIGINT)


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_share_of_the_memory_of_a_gpu(monkeypatch, device, index):
    # torch's own function, as far as it goes without a GPU.
    shares = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda *given: shares.append(given), raising=False
    )
    workers._use(torch.get_num_threads(), device, memory=0.25)
    workers._use(torch.get_num_threads(), device, memory=1.0)
    assert shares == [(0.25, index)]


@pytest.mark.gpu
def test_processes_share_a_gpu():
    ended, _, _ = run(ProcessPool(job, ["cuda:0", "cuda:0"], memory=0.5), ["a", "b", "c"])
    assert {outcome["device"] for _, outcome in ended} == {"cuda:0"}
