"""Workers on a real Ray cluster: two nodes on this machine, one of which is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from eca_lab.recipe import Recipe
from eca_lab.training import workers
from eca_lab.training.planning import plan_sweep
from eca_lab.training.sweep import Sweep
from eca_lab.training.workers import RayPool, outcomes

ray = pytest.importorskip("ray")


@contextmanager
def node(*arguments):
    """A node of one CPU: a session of processes, which is killed at the end."""
    command = [Path(sys.executable).parent / "ray", "start", "--block", "--num-cpus=1"]
    process = subprocess.Popen(
        [*command, "--disable-usage-stats", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def joins(process, address, cpus, patience=60):
    """Whether the cluster at the address comes to have so many CPUs before a node gives up."""
    end = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < end:
        with suppress(Exception):
            workers.check_ray(address)
            ray.init(address, log_to_driver=False, logging_level="error")
            if ray.cluster_resources().get("CPU", 0) >= cpus:
                ray.shutdown()
                return True
        ray.shutdown()
        time.sleep(0.2)
    return False


@pytest.fixture
def cluster():
    """Address of a cluster of two nodes, and the process of the one that is not its head."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    head = ("--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false")
    # On a busy machine a node may take too long for Ray, which then gives it up.
    for _ in range(2):
        with node(*head) as first:
            if joins(first, address, 1):
                for _ in range(2):
                    with node(f"--address={address}") as second:
                        if joins(second, address, 2):
                            yield address, second
                            return
    pytest.skip("Ray starts no two nodes on this machine")


def test_a_killed_node_costs_a_retry_and_nothing_else(cluster):
    address, other = cluster

    # Local, so that it goes to the nodes by value: they have no tests.
    def job(trial, device, on_epoch):
        time.sleep(trial.seconds)
        return {"identity": trial.identity, "device": device, "process": os.getpid()}

    def trials():  # eight, and before them as many as are done until the other node is dead
        numbers = count()
        while other.poll() is None:
            yield SimpleNamespace(identity=str(next(numbers)), seconds=0.1)
        for _ in range(8):  # its worker takes a moment to notice
            yield SimpleNamespace(identity=str(next(numbers)), seconds=1)

    retried, ended = [], {}
    for trial, outcome in outcomes(
        RayPool(job, address, device="cpu"), trials(), on_epoch=id, on_retry=retried.append
    ):
        assert trial.identity not in ended
        ended[trial.identity] = outcome
        if other.poll() is None and len({each["process"] for each in ended.values()}) == 2:
            os.killpg(other.pid, signal.SIGKILL)
            other.wait()
    assert len(ended) >= 8 + 2
    assert sorted(map(int, ended)) == list(range(len(ended)))
    assert all(outcome["identity"] == identity for identity, outcome in ended.items())
    assert {outcome["device"] for outcome in ended.values()} == {"cpu"}
    assert os.getpid() not in {outcome["process"] for outcome in ended.values()}
    assert len(retried) == 1


def test_no_cluster_at_that_address(dataset, tmp_path):
    plan = plan_sweep(dataset, "tiny", ["none"], seeds=1, recipe=Recipe(epochs=1, batch_size=16))
    with pytest.raises(ConnectionError, match=r"ray='127\.0\.0\.1:1': no cluster answers"):
        Sweep(plan, tmp_path / "out", ray="127.0.0.1:1").run()
    assert not (tmp_path / "out").exists()
