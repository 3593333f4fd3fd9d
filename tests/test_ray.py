"""A sweep on a real Ray cluster: two nodes on this machine, one of which is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
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
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = ("--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false")
    with node(*head):
        yield f"127.0.0.1:{port}"


def test_a_killed_node_costs_a_retry_and_nothing_else(dataset, address, tmp_path, monkeypatch):
    recipe = Recipe(epochs=20, batch_size=16, learning_rate=0.05)
    plan = plan_sweep(dataset, "tiny", ["none", "se", "eca"], 8, recipe)
    submitted = []
    genuine = workers.RayPool.submit
    monkeypatch.setattr(
        workers.RayPool,
        "submit",
        lambda pool, actor, trial: submitted.append((actor, trial)) or genuine(pool, actor, trial),
    )
    with node(f"--address={address}") as other:
        ray.init(address, log_to_driver=False)
        while ray.cluster_resources().get("CPU", 0) < 2:
            time.sleep(0.1)
        ray.shutdown()

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
