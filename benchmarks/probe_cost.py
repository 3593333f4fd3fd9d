"""What recording the weights costs: 2,000 images through the tiny network, with and without.

    python benchmarks/probe_cost.py

Measured on one thread of a shared CPU, 7 turns, in CPU time over the plain pass (1.64 s): weights
1.02 (0.99 to 1.04), weights and descriptors 1.08 (1.02 to 1.09). By the clock 1.03 and 1.09 at the
median, with a spread of some 20 to 60% since the machine was busy.

Runs the plain forward pass and each kind of recording by turns, over equal batches that are
normalised in all of them, and prints the ratio of a recording to the plain pass of its turn:
median, least and largest. By the clock, and by the CPU time of the process, which a machine that
is busy otherwise disturbs less.
"""

import time

import numpy as np
import torch

from eca_lab.data import load_dataset
from eca_lab.data.augmentation import input_transform
from eca_lab.looking.probe import record_weights
from eca_lab.training.train import initial_model, stem_for

TURNS = 7
BATCH_SIZE = 250


def runs(arm="eca"):
    """What is to be timed, by name."""
    dataset = load_dataset("shapes")
    images = dataset.test_images
    prepare = input_transform(dataset)
    model = initial_model(
        "tiny", arm, num_classes=len(dataset.classes), stem=stem_for(dataset.size), seed=0
    ).eval()
    model = model.to(memory_format=torch.channels_last)

    def plain():
        with torch.inference_mode():
            for batch in images.split(BATCH_SIZE):
                model(prepare(batch))

    def record(**keywords):
        record_weights(model, images, prepare=prepare, batch_size=BATCH_SIZE, **keywords)

    return {
        "plain": plain,
        "weights": record,
        "weights and descriptors": lambda: record(descriptors=True),
    }


def measure(turns=TURNS):
    """Seconds by the clock and of the CPU: dict of name -> (turns, 2) array."""
    functions = runs()
    timed = {name: [] for name in functions}
    functions["plain"]()  # warms up
    for _ in range(turns):
        for name, run in functions.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run()
            timed[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    return {name: np.array(each) for name, each in timed.items()}


if __name__ == "__main__":
    times = measure()
    clock, cpu = np.median(times["plain"], 0)
    print(f"{torch.get_num_threads()} threads, {TURNS} turns of 2,000 images")
    print(f"plain: {clock:.2f} s by the clock, {cpu:.2f} s of the CPU, at the median")
    for name in list(times)[1:]:
        ratio = times[name] / times["plain"]
        for column, kind in enumerate(("clock", "CPU")):
            low, middle, high = np.quantile(ratio[:, column], [0, 0.5, 1])
            print(f"{name}, {kind}: {middle:.3f} times plain, {low:.3f} to {high:.3f}")
