"""Images per second of three training loops: ours, a plain DataLoader script, and timm's.

    python benchmarks/train_throughput.py
    python benchmarks/train_throughput.py --device cuda --backbone resnet10 --batch-size 512 \\
        --steps 98 --loader-workers 8

Results, and what is compared, are in benchmarks/README.md. All loops train the same network with
the same batch size, augmentation, loss, momentum and schedule on the same random images: ours
fused and in the precision that suits the device, the others in that precision and once more in
float32, as their users run them. They take turns: one whole epoch of each is one repeat, after one
epoch each that is not counted.
"""

import argparse
import statistics
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec

import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms
from tqdm import tqdm

from eca_lab.checks import check_integer
from eca_lab.data import Dataset
from eca_lab.data.augmentation import channel_statistics
from eca_lab.provenance import provenance
from eca_lab.recipe import Recipe
from eca_lab.training.train import (
    PRECISIONS,
    check_device,
    initial_model,
    resolve_precision,
    stem_for,
    train_network,
)

ARM = "eca"
CLASSES = 10


def random_dataset(count, size):
    """So many random images (3, size, size), uint8, with random labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    classes = tuple(map(str, range(CLASSES)))
    # train_network needs something to test on; it does not count the time that this takes.
    return Dataset("random", images, labels, images[:1], labels[:1], classes, fingerprint="")


def one_epoch(batch_size):
    """The recipe of an epoch. Labels are random: a low learning rate keeps the loss finite."""
    return Recipe(epochs=1, batch_size=batch_size, learning_rate=0.01)


class Images(TorchDataset):
    """Images held as arrays, given out as PIL images, as torchvision's CIFAR10 does it."""

    def __init__(self, dataset):
        self.data = dataset.train_images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = dataset.train_labels.tolist()
        self.transform = None

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def our_rate(dataset, backbone, *, recipe, device, precision, fused):
    """A function that trains for an epoch and returns images per second: ours."""

    def rate():
        _, outcome = train_network(
            dataset,
            backbone,
            ARM,
            seed=0,
            recipe=recipe,
            device=device,
            precision=precision,
            fused=fused,
        )
        return outcome["images_per_second"]

    return rate


def plain_rate(dataset, backbone, *, recipe, device, workers, precision):
    """The same for a plain PyTorch loop, as most scripts write it."""
    mean, std = (value.tolist() for value in channel_statistics(dataset.train_images))
    train_set = Images(dataset)
    train_set.transform = transforms.Compose(
        [*_augmentation(dataset.size), transforms.ToTensor(), transforms.Normalize(mean, std)]
    )
    loader = DataLoader(
        train_set,
        batch_size=recipe.batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    model = initial_model(
        backbone, ARM, num_classes=CLASSES, stem=stem_for(dataset.size), seed=0
    ).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )

    def epoch():
        scheduler = _scheduler(optimizer, recipe, len(loader))
        model.train()
        running_loss = 0.0
        for images, labels in loader:
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            with _autocast(device, precision):
                loss = F.cross_entropy(
                    model(images), labels, label_smoothing=recipe.label_smoothing
                )
            loss.backward()
            optimizer.step()
            scheduler.step()
            running_loss += loss.item()
        return len(loader) * recipe.batch_size

    return _timed(epoch, device)


def timm_rate(dataset, backbone, *, recipe, device, workers, precision):
    """The same for timm's loader and the training step of timm's train.py, channels last.

    The loader collates uint8 arrays; its prefetcher moves and normalises whole batches.
    """
    from timm.data import create_loader
    from timm.data.transforms import ToNumpy
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    mean, std = (value.tolist() for value in channel_statistics(dataset.train_images))
    train_set = Images(dataset)
    loader = create_loader(
        train_set,
        input_size=(3, dataset.size, dataset.size),
        batch_size=recipe.batch_size,
        is_training=True,
        mean=mean,
        std=std,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        use_prefetcher=True,
        device=device,
    )
    # create_loader sets timm's augmentation for ImageNet; the comparison wants equal ones.
    train_set.transform = transforms.Compose([*_augmentation(dataset.size), ToNumpy()])
    model = initial_model(backbone, ARM, num_classes=CLASSES, stem=stem_for(dataset.size), seed=0)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        model,
        "sgd",  # with Nesterov momentum; no weight decay on biases and BatchNorm
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
    )
    loss_function = LabelSmoothingCrossEntropy(recipe.label_smoothing)

    def epoch():
        scheduler = _scheduler(optimizer, recipe, len(loader))
        model.train()
        optimizer.zero_grad()
        for images, labels in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            with _autocast(device, precision):
                loss = loss_function(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        loss.item()  # timm reads the loss only now and then, to log it
        return len(loader) * recipe.batch_size

    return _timed(epoch, device)


def _autocast(device, precision):
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _augmentation(size):
    """What `eca_lab.data.augmentation.augment` does, for PIL images."""
    if size <= 32:
        crop = transforms.RandomCrop(size, padding=size // 8)
    else:
        crop = transforms.RandomResizedCrop(size, scale=(0.35, 1))
    return [crop, transforms.RandomHorizontalFlip()]


def _scheduler(optimizer, recipe, steps):
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=steps,
        pct_start=recipe.warmup,
        anneal_strategy="linear",
        cycle_momentum=False,
    )


def _timed(epoch, device):
    """A function that calls epoch, which returns the images it saw, and returns images/s."""

    def rate():
        start = time.perf_counter()
        images = epoch()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return images / (time.perf_counter() - start)

    return rate


def take_turns(functions, repeats):
    """Call named functions in turn, so often after one round for nothing: {name: [results]}."""
    results = {name: [] for name in functions}
    for _ in tqdm(range(1 + repeats), unit="round"):
        for name, function in functions.items():
            results[name].append(function())
    return {name: values[1:] for name, values in results.items()}


def print_rates(rates):
    """Print images per second of each name, and how many times as fast the first name is.

    Medians over the repeats, and from the lowest to the highest; a ratio is that of one repeat.
    """
    first = next(iter(rates.values()))
    width = max(map(len, rates))
    print(f"{'':{width}}  {'images/s':>24}  {'first / this':>24}")
    for name, values in rates.items():
        ratios = [reference / value for reference, value in zip(first, values, strict=True)]
        print(f"{name:{width}}  {_spread(values, 0):>24}  {_spread(ratios, 2):>24}")
    print(f"medians (lowest to highest) of {len(values)} repeats")


def _spread(values, digits):
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def print_conditions(options, device):
    """Print what was measured, where, and with which versions."""
    print(
        f"{options.backbone} with {ARM}, {options.size} x {options.size} pixels, epochs of "
        f"{options.steps} batches of {options.batch_size}"
    )
    here = provenance(device)
    versions = dict(here["versions"])
    if find_spec("timm"):
        versions["timm"] = version("timm")
    print(here["device"], *(f"{name} {each}" for name, each in versions.items()), sep=", ")


def parser(description):
    """The options that the training benchmarks have in common."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--backbone", default="tiny", help="as in a sweep")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--batch-size", type=int, default=128, help="images a training step")
    parser.add_argument("--steps", type=int, default=39, help="training steps an epoch")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each that are counted")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch on the CPU")
    return parser


def check_options(options):
    """Raise ValueError or TypeError unless the common options are positive integers."""
    for name in ("size", "batch_size", "steps", "repeats", "threads"):
        check_integer(name, getattr(options, name))


def main(arguments=None):
    """Measure and print; returns the exit status: 0 done, 2 bad input."""
    command = parser(__doc__.splitlines()[0])
    command.add_argument("--device", default="cpu", help="cpu or cuda")
    command.add_argument(
        "--loader-workers", type=int, default=2, help="processes of each DataLoader"
    )
    command.add_argument("--precision", choices=PRECISIONS, default="auto", help="of our loop")
    command.add_argument("--modules", action="store_true", help="our loop does not run fused")
    command.add_argument("--csv", metavar="PATH", help="file of images/s: a row for each repeat")
    options = command.parse_args(arguments)
    try:
        check_options(options)
        device = check_device(options.device)
        precision = resolve_precision(options.precision, device)
        dataset = random_dataset(options.steps * options.batch_size, options.size)
        common = {"recipe": one_epoch(options.batch_size), "device": device}
        torch.set_num_threads(options.threads)
        path = "modules" if options.modules else "fused"
        ours = our_rate(
            dataset,
            options.backbone,
            precision=precision,
            fused=not options.modules,
            **common,
        )
        loops = {f"eca_lab, {precision}, {path}": ours}
        for theirs in dict.fromkeys((precision, "float32")):
            common_of_theirs = {**common, "workers": options.loader_workers, "precision": theirs}
            loops[f"DataLoader, torchvision, {theirs}"] = plain_rate(
                dataset, options.backbone, **common_of_theirs
            )
            if find_spec("timm"):
                loops[f"timm, {theirs}"] = timm_rate(dataset, options.backbone, **common_of_theirs)
    except (ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_conditions(options, device)
    print(f"{options.loader_workers} loader workers")
    rates = take_turns(loops, options.repeats)
    print_rates(rates)
    if options.csv:
        pd.DataFrame(rates).to_csv(options.csv, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
