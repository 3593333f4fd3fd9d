"""What a data set is, and what all of its sources need."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from eca_lab.data.mapped import ImageFile

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, held whole; other data sets may share the tensors.

    name is as given to `load_dataset`; of a folder, the last part of its path. Images are
    (N, 3, H, W) uint8, labels (N,) int64. The fingerprint is a hash of the source (every byte of
    the images or of their files, labels, names of classes), of the size and of the images chosen,
    equal on every machine. skipped counts unreadable images left out. files are those that images
    are mapped from; images of none of them are in memory.
    """

    name: str
    train_images: torch.Tensor = field(repr=False)
    train_labels: torch.Tensor = field(repr=False)
    test_images: torch.Tensor = field(repr=False)
    test_labels: torch.Tensor = field(repr=False)
    classes: tuple[str, ...]
    fingerprint: str
    skipped: int = 0
    files: tuple[ImageFile, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.train_images.shape[-1]

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with its tensors on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def file_of(self, images: torch.Tensor) -> ImageFile | None:
        """The file that images of this data set are mapped from; None where they are in memory."""
        return next((file for file in self.files if file.offset(images) is not None), None)

    # To another process as arrays: tensors need shared memory, of which containers have little.
    # What is mapped goes as its place in the file, which is mapped there, too.
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {name: self._sent(getattr(self, name)) for name in TENSORS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {name: _received(state[name]) for name in TENSORS})

    def _sent(self, tensor: torch.Tensor) -> Any:
        if file := self.file_of(tensor):
            return file, file.offset(tensor), tuple(tensor.shape)
        return tensor.cpu().numpy()


def _received(sent: Any) -> torch.Tensor:
    if isinstance(sent, tuple):
        file, offset, shape = sent
        return file.at(offset, shape)
    return torch.tensor(sent)


def fingerprint_of(description: object, *tensors: torch.Tensor) -> str:
    """Hash of a description (anything that JSON can write) and of contiguous CPU tensors."""
    digest = hashlib.sha256(json.dumps(description).encode())
    for tensor in tensors:
        # With the shape: else what moves from the end of one tensor to the next goes unseen.
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def to_square(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images (..., 3, height, width): the shorter side to size pixels, then the centre square."""
    from torchvision.transforms.v2 import functional  # see eca_lab.networks.backbones

    images = functional.resize(images, [size], antialias=True)
    return functional.center_crop(images, [size])
