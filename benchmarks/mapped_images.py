"""What does it cost to train on images that are mapped from a file, against images in memory?

    python benchmarks/mapped_images.py
    python benchmarks/mapped_images.py --device cuda --backbone resnet50 --batch-size 256 --steps 40

The same network trains on the same random images, once as one tensor in memory (on the device, if
it is a GPU), and once mapped from a file, from which batches are read one ahead (and moved). They
take turns, an epoch each, after one each that is not counted. Then again without the training.
The file is in the temporary folder, and stays in the system's page cache if that has room for it:
what a disk costs is seen with more images than memory (--steps). Results are in
benchmarks/README.md.
"""

import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
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

from eca_lab.data.mapped import copy_images
from eca_lab.training import placing
from eca_lab.training.placing import place, taken
from eca_lab.training.train import check_device, train_network


def mapped_dataset(dataset, path):
    """The same data set, its training images mapped from a new file."""
    file = copy_images(dataset.train_images, torch.arange(len(dataset.train_images)), path)
    return replace(dataset, train_images=file.images, files=(file,))


def trained(dataset, options, device):
    """Train for an epoch; images per second."""
    recipe = one_epoch(options.batch_size)
    _, outcome = train_network(dataset, options.backbone, ARM, seed=0, recipe=recipe, device=device)
    return outcome["images_per_second"]


def read(dataset, options, device):
    """Take the batches of an epoch and do nothing with them; images per second."""
    placed = place(dataset, device)
    order = torch.randperm(len(dataset.train_images))
    start = time.perf_counter()
    for images, _ in taken(placed, "train", order, batch_size=options.batch_size):
        images[-1, -1, -1, -1].item()  # all of it is there
    return len(order) / (time.perf_counter() - start)


def from_the_host(measure, *arguments):
    """What a function measures where no image has room on the device."""
    with mock.patch.object(placing, "IMAGE_SHARE", 0):
        return measure(*arguments)


def main(arguments=None):
    """Measure and print; returns the exit status: 0 done, 2 bad input."""
    command = parser(__doc__.splitlines()[0])
    command.add_argument("--device", default="cpu", help="cpu or cuda")
    options = command.parse_args(arguments)
    try:
        check_options(options)
        device = check_device(options.device)
    except (ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    print_conditions(options, device)
    whole = random_dataset(options.steps * options.batch_size, options.size)
    with tempfile.TemporaryDirectory() as folder:
        mapped = mapped_dataset(whole, Path(folder) / "random.images")
        for measure in (trained, read):
            print(measure.__doc__)
            loops = {
                "in memory": partial(measure, whole, options, device),
                "mapped": partial(from_the_host, measure, mapped, options, device),
            }
            print_rates(take_turns(loops, options.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
