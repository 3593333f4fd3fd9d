"""CIFAR-10, CIFAR-100 and Imagenette, by torchvision's download."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from eca_lab.data.dataset import Dataset, fingerprint_of
from eca_lab.data.folder import load_folder


def load_cifar(name: str, root: Path) -> Dataset:
    """CIFAR-10 or CIFAR-100, its files checked by torchvision against their MD5 sums.

    OSError where it can be neither read nor downloaded.
    """
    kind = getattr(datasets, name.upper())
    try:
        train = kind(root, train=True)
    except RuntimeError:  # not there yet, or damaged
        with _downloading(name, root):
            train = kind(root, train=True, download=True)
    tensors: dict[str, Any] = {}
    for part, split in (("train", train), ("test", kind(root, train=False))):
        images = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()
        tensors[f"{part}_images"] = images
        tensors[f"{part}_labels"] = torch.tensor(split.targets)
    classes = tuple(train.classes)
    fingerprint = fingerprint_of(classes, *tensors.values())
    return Dataset(name, classes=classes, fingerprint=fingerprint, **tensors)


def load_imagenette(root: Path, *, size: int, skip_unreadable: bool) -> Dataset:
    """Imagenette, from the smallest of its archives that has the pixels.

    Args:
        root: folder for the archive, and for the decoded images.
        size: side of the images in pixels.
        skip_unreadable: as for `eca_lab.data.load_dataset`.

    Raises:
        OSError: a failed download.
        ValueError: an image that cannot be decoded.
    """
    if size <= 160:
        archive, name = "160px", "imagenette2-160"
    elif size <= 320:
        archive, name = "320px", "imagenette2-320"
    else:
        archive, name = "full", "imagenette2"
    folder = root / name
    if not folder.is_dir():
        # torchvision takes a folder for complete that it was interrupted in extracting.
        with _downloading("imagenette", root), tempfile.TemporaryDirectory(dir=root) as temporary:
            datasets.Imagenette(temporary, size=archive, download=True)
            os.replace(Path(temporary, folder.name), folder)
    classes = tuple(names[0] for names in datasets.Imagenette(root, size=archive).classes)
    return load_folder(
        folder,
        root,
        name="imagenette",
        size=size,
        skip_unreadable=skip_unreadable,
        classes=classes,
    )


@contextmanager
def _downloading(name: str, root: Path) -> Iterator[None]:
    """Make root, and turn what fails within into one line that says how to go on."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, HTTPException, RuntimeError) as error:
        instead = "folder:PATH takes images from this machine"
        raise ConnectionError(f"{name} could not be downloaded: {error}. {instead}") from error
