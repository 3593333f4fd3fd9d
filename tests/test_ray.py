"""A sweep on a real Ray cluster: two nodes on this machine, one of which is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest
import torch

from eca_lab import workers
from eca_lab.results import load_results
from eca_lab.sweep import plan_sweep, run_sweep
from eca_lab.train import Recipe

ray = pytest.importorskip("ray")

COMPUTED = ["arm", "seed", "top1", "top5", "loss", "parameters", "identity"]


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


def test_a_killed_node_costs_a_retry_and_nothing_else(dataset, cluster, tmp_path, monkeypatch):
    address, other = cluster
    recipe = Recipe(epochs=20, batch_size=16, learning_rate=0.05)
    plan = plan_sweep(dataset, "tiny", ["none", "se", "eca"], 8, recipe)
    submitted = []
    genuine = workers.RayPool.submit
    monkeypatch.setattr(
        workers.RayPool,
        "submit",
        lambda pool, actor, trial: submitted.append((actor, trial)) or genuine(pool, actor, trial),
    )

    def kill_the_other():  # as soon as both nodes have finished a trial
        while len({actor for actor, _ in submitted}) < 2 or len(submitted) < 6:
            time.sleep(0.02)
        os.killpg(other.pid, signal.SIGKILL)

    threading.Thread(target=kill_the_other, daemon=True).start()
    assert run_sweep(plan, tmp_path / "ray", ray=address) == []
    assert len(submitted) == 24 + 1

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as there
    try:
        assert run_sweep(plan, tmp_path / "here") == []
    finally:
        torch.set_num_threads(threads)
    here, there = (load_results(tmp_path / each)[COMPUTED] for each in ("here", "ray"))
    pd.testing.assert_frame_equal(here, there)
    assert len(there) == 24


def test_no_cluster_at_that_address(dataset, tmp_path):
    plan = plan_sweep(dataset, "tiny", ["none"], 1, Recipe(epochs=1, batch_size=16))
    with pytest.raises(ConnectionError, match=r"ray='127\.0\.0\.1:1': no cluster answers"):
        run_sweep(plan, tmp_path / "out", ray="127.0.0.1:1")
    assert not (tmp_path / "out").exists()
