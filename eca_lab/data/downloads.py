"""CIFAR-10, CIFAR-100 and Imagenette, by torchvision's download."""

import os
import tempfile
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch
from torchvision import datasets

from eca_lab.data.dataset import Dataset, fingerprint_of
from eca_lab.data.folder import load_folder


def load_cifar(name, root):
    """CIFAR-10 or CIFAR-100, its files checked by torchvision against their MD5 sums."""
    kind = getattr(datasets, name.upper())
    try:
        train = kind(root, train=True)
    except RuntimeError:  # not there yet, or damaged
        with _downloading(name, root):
            train = kind(root, train=True, download=True)
    tensors, classes = [], tuple(train.classes)
    for split in (train, kind(root, train=False)):
        images = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()
        tensors += [images, torch.tensor(split.targets)]
    return Dataset(name, *tensors, classes, fingerprint_of(classes, *tensors))


def load_imagenette(root, size, skip_unreadable):
    """Imagenette, from the smallest of its archives that has the pixels."""
    side = next((side for side in (160, 320) if size <= side), None)
    archive, extracted = (f"{side}px", f"imagenette2-{side}") if side else ("full", "imagenette2")
    folder = root / extracted
    if not folder.is_dir():
        # torchvision takes a folder for complete that it was interrupted in extracting.
        with _downloading("imagenette", root), tempfile.TemporaryDirectory(dir=root) as temporary:
            datasets.Imagenette(temporary, size=archive, download=True)
            os.replace(Path(temporary, folder.name), folder)
    classes = tuple(names[0] for names in datasets.Imagenette(root, size=archive).classes)
    return load_folder("imagenette", folder, root, size, skip_unreadable, classes)


@contextmanager
def _downloading(name, root):
    """Make root, and turn what fails within into one line that says how to go on."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, HTTPException, RuntimeError) as error:
        instead = "folder:PATH takes images from this machine"
        raise ConnectionError(f"{name} could not be downloaded: {error}. {instead}") from error
