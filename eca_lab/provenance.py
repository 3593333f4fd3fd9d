"""Where, with what and by which code a trial runs; most of it is recorded."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def provenance(device: torch.device) -> dict[str, Any]:
    """Hardware and versions on a torch.device."""
    name = f"{_processor()}, {_instructions()}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    versions = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy"):
        versions[package] = version(package)
    return {"device": f"{device.type}: {name}", "versions": versions}


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; others emulate it, ten times as slowly."""
    cpu = torch.cpu.get_capabilities()
    return bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))


def _instructions() -> str:
    """What torch computes with on this processor: one name is that of processors with and without
    bfloat16, and these round differently.
    """
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{kind} with bfloat16" if cpu_has_bfloat16() else kind


def _processor() -> str:
    with suppress(OSError):
        if found := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):
            return found[1].strip()
    return platform.processor() or platform.machine()


def code_version() -> dict[str, Any]:
    """Commit of this package's checkout and whether it has changes; empty outside a checkout.

    Where the package is installed into a folder of another repository, that one says nothing of it.
    """
    return dict(_code_version())


@cache  # of the code that runs, whatever is changed meanwhile
def _code_version() -> dict[str, Any]:
    here = Path(__file__).resolve()
    # Git tells the commands that it runs, such as hooks, of a repository by GIT_DIR and others.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}

    def git(*command: str) -> str:
        line = ["git", "-C", str(here.parent), *command]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
        return done.stdout

    try:
        git("ls-files", "--error-unmatch", here.name)  # fails for a file that is not tracked
        commit = git("rev-parse", "HEAD")
        status = git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit.strip(), "changed": bool(status.strip())}


def available_cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
