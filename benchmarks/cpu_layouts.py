"""What two CPU cores train fastest: one trial with two threads, or two with one thread each?

    python benchmarks/cpu_layouts.py

Either with feature maps in channels_last, as in `eca_lab.training.train.train_network`, and
contiguous. Results are in benchmarks/README.md. The four arrangements take turns, one epoch each;
images per second are those of all trials that run at once, together.
"""

import multiprocessing
import sys
from contextlib import ExitStack
from functools import partial
from unittest import mock

import torch
from train_throughput import (
    ARM,
    check_options,
    one_epoch,
    parser,
    print_conditions,
    print_rates,
    random_dataset,
    take_turns,
)

from eca_lab.training.train import train_network

# What only a process of a pool has: the gate that lets the trials of one round start together.
_gate = None


def _start(gate, threads):
    global _gate
    _gate = gate
    torch.set_num_threads(threads)


def _trial(layout, backbone, size, batch_size, steps):
    """Images per second of one trial in this process, as soon as its fellows are there too."""
    dataset = random_dataset(steps * batch_size, size)
    _gate.wait()
    # The benchmark measures the real loop, which has no option that nobody should use.
    with mock.patch.object(torch, "channels_last", getattr(torch, layout)):
        _, outcome = train_network(dataset, backbone, ARM, seed=0, recipe=one_epoch(batch_size))
        return outcome["images_per_second"]


def _rate(pool, processes, trial):
    """Images per second of as many equal trials at once as the pool has processes."""
    return sum(pool.starmap(_trial, [trial] * processes, chunksize=1))


def main(arguments=None):
    """Measure and print; returns the exit status: 0 done, 2 bad input."""
    options = parser(__doc__.splitlines()[0]).parse_args(arguments)
    try:
        check_options(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    cores = options.threads
    spawn = multiprocessing.get_context("spawn")
    torch.set_num_threads(cores)
    print_conditions(options, torch.device("cpu"))
    with ExitStack() as stack:
        arrangements = {}
        for processes, threads in ((1, cores), (cores, 1)):
            gate = spawn.Barrier(processes)
            pool = stack.enter_context(spawn.Pool(processes, _start, (gate, threads)))
            for layout in ("channels_last", "contiguous_format"):
                name = f"trials {processes} x threads {threads}, {layout}"
                trial = layout, options.backbone, options.size, options.batch_size, options.steps
                arrangements[name] = partial(_rate, pool, processes, trial)
        print_rates(take_turns(arrangements, options.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
