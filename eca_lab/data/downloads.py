"""CIFAR-10, CIFAR-100 and Imagenette, by torchvision's download."""

import os
import tempfile
from pathlib import Path

import torch
import torchvision

from eca_lab.data.dataset import Dataset, fingerprint_of
from eca_lab.data.folder import check_writable, load_folder


def load_cifar(name, root):
    """CIFAR-10 or CIFAR-100, its files checked by torchvision against their MD5 sums."""
    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    try:
        train = kind[name](root, train=True)
    except RuntimeError:  # not there yet, or damaged
        check_writable(root)
        train = kind[name](root, train=True, download=True)
    test = kind[name](root, train=False)
    tensors = {
        "train_images": torch.from_numpy(train.data).permute(0, 3, 1, 2).contiguous(),
        "train_labels": torch.tensor(train.targets),
        "test_images": torch.from_numpy(test.data).permute(0, 3, 1, 2).contiguous(),
        "test_labels": torch.tensor(test.targets),
    }
    return Dataset(
        name=name,
        classes=tuple(train.classes),
        fingerprint=fingerprint_of(train.classes, *tensors.values()),
        **tensors,
    )


def load_imagenette(root, size, unreadable, progress):
    """Imagenette, from the smallest of its archives that has the pixels."""
    archive = next((f"{side}px" for side in (160, 320) if size <= side), "full")
    extracted = {"160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"}
    folder = root / extracted[archive]
    if not folder.is_dir():
        check_writable(root)
        # torchvision takes a folder for complete that it was interrupted in extracting.
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            torchvision.datasets.Imagenette(temporary, size=archive, download=True)
            os.replace(Path(temporary, folder.name), folder)
    synonyms = torchvision.datasets.Imagenette(root, size=archive).classes
    classes = tuple(names[0] for names in synonyms)
    return load_folder("imagenette", folder, root, size, unreadable, progress, classes)
