"""Where, with what and by which code a trial runs; most of it is recorded."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch


def provenance(device):
    """Hardware and versions on a torch.device."""
    name = f"{_processor()}, {_instructions()}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    versions = {each: version(each) for each in ("torch", "torchvision", "numpy")}
    versions = {"python": platform.python_version(), **versions}
    return {"device": f"{device.type}: {name}", "versions": versions}


def cpu_has_bfloat16():
    """Whether the processor multiplies in bfloat16; others emulate it, ten times as slowly."""
    cpu = torch.cpu.get_capabilities()
    return bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))


def _instructions():
    """What torch computes with on this processor: one name is that of processors with and without
    bfloat16, and these round differently.
    """
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{kind} with bfloat16" if cpu_has_bfloat16() else kind


def _processor():
    with suppress(OSError):
        if found := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):
            return found[1].strip()
    return platform.processor() or platform.machine()


@cache  # of the code that runs, whatever is changed meanwhile
def code_version():
    """Commit of this package's checkout and whether it has changes; empty outside a checkout."""
    git = ["git", "-C", Path(__file__).resolve().parent]
    try:
        commit, status = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit.strip(), "changed": bool(status.strip())}


def available_cores():
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
