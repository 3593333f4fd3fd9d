"""Images to train on as uint8 tensors, in memory or mapped from a file, augmented on the device.

N is the number of images, H = W their side in pixels.
"""

from collections.abc import Collection
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eca_lab.attention.spec import DATASETS
from eca_lab.checks import check_choice, check_integer, shown
from eca_lab.data.dataset import Dataset, fingerprint_of, to_square
from eca_lab.data.mapped import ImageFile, copy_images
from eca_lab.data.shapes import load_shapes

__all__ = ["Dataset", "load_dataset"]

# Bytes: chosen images of a folder that take more are copied into a file of the cache.
_MOST_IN_MEMORY = 2**30


def load_dataset(
    name: str,
    root: str | Path = "data/cache",
    *,
    size: int | None = None,
    classes: int | Collection[str] | None = None,
    per_class: int | None = None,
    skip_unreadable: bool = False,
) -> Dataset:
    """Load a data set, or a part of it.

    Args:
        name: "shapes", ten shapes drawn on the spot, 32 x 32; "cifar10", "cifar100"; "imagenette",
            from the smallest of its archives whose shorter side is at least size, or 160; or
            "folder:PATH", with PATH/train and PATH/test, or PATH/val where there is no test or one
            without labels, which hold a folder of images for each class. Tiny ImageNet is read as
            it is unpacked.
        root: folder for downloads, and for the decoded images of a folder, a byte for each value:
            where it cannot be written, they are decoded each time.
        size: side to resize to, 4 to 1024 pixels, or None. Of an image that is not square, the
            shorter side is resized and the centre kept.
        classes: None for all, a number of classes to draw, or their names.
        per_class: number of training images to draw from each class; None for all. Draws are
            nested: 100 images of a class are among the 200, whatever the other classes.
        skip_unreadable: leave out the images that cannot be decoded, or have an ending that is not
            read, such as .gif: they are an error else.

    Returns:
        A `Dataset` on the CPU, whose tensors may be shared with others: never write into them.
        Images of a folder are mapped from a file, and need not fit into memory.
        Warnings tell which folder of test images was passed over, and how many test images are
        training images, too.

    Raises:
        TypeError, ValueError: what is not accepted, or not there; images of different sizes without
            a size.
        OSError: no such folder, a failed download.
    """
    _check_arguments(name, size, classes, per_class)
    source = _load_whole(name, Path(root), size=size, skip_unreadable=skip_unreadable)
    return _select(source, size, classes, per_class)


def _load_whole(name: str, root: Path, *, size: int | None, skip_unreadable: bool) -> Dataset:
    """All of a data set; size and skip_unreadable are of those that are decoded from files."""
    if name == "shapes":
        return load_shapes()

    from eca_lab.data.downloads import load_cifar, load_imagenette  # by torchvision
    from eca_lab.data.folder import load_folder

    if name == "imagenette":
        return load_imagenette(root, size=size or 160, skip_unreadable=skip_unreadable)
    if name in DATASETS:
        return load_cifar(name, root)
    folder = _folder_of(name)
    # Named without the rest of its path, which is nobody else's business in a recorded result.
    return load_folder(folder, root, name=folder.name, size=size, skip_unreadable=skip_unreadable)


def _folder_of(name: str) -> Path:
    """The absolute path in folder:PATH; ValueError, naming it, for one that cannot be."""
    try:
        folder = Path(name.removeprefix("folder:")).expanduser().resolve()
        str(folder).encode()  # its name is recorded
        return folder
    # No such user, links in a circle; a null byte, or bytes that are not UTF-8.
    except (RuntimeError, ValueError) as error:
        accepted = "accepted is folder:PATH with the path of a folder of images"
        raise ValueError(f"name={shown(name)}: {str(error).rstrip('.')}; {accepted}") from None


def _check_arguments(name: Any, size: Any, classes: Any, per_class: Any) -> None:
    """Raise for whatever is wrong without looking at any data."""
    if isinstance(name, str) and name.startswith("folder:") and name != "folder:":
        _folder_of(name)
    else:
        check_choice("name", name, (*DATASETS, "folder:PATH"))
    if size is not None:
        check_integer("size", size, least=4, most=1024)
    if isinstance(classes, Integral):
        check_integer("classes", classes, least=2)
    elif classes is not None:
        is_list = isinstance(classes, Collection) and not isinstance(classes, str)
        if not is_list or len(set(classes)) < max(2, len(classes)):
            accepted = "None, a number, or two or more different names"
            raise ValueError(f"classes={shown(classes)}: accepted are {accepted}")
    if per_class is not None:
        check_integer("per_class", per_class)


def _select(
    source: Dataset,
    size: int | None,
    classes: int | Collection[str] | None,
    per_class: int | None,
) -> Dataset:
    """The chosen classes and training images of a data set, resized."""
    chosen = torch.tensor(_choose_classes(source, classes))
    test = torch.isin(source.test_labels, chosen).nonzero().flatten()
    labels = chosen.tolist()
    train = torch.cat([_draw_images(source, label, per_class) for label in labels]).sort().values
    size = size or source.size
    fingerprint = fingerprint_of([source.fingerprint, size], chosen, train, test)
    files = [*source.files]
    images: dict[str, Any] = {}
    for split, indices in (("train_images", train), ("test_images", test)):
        whole = getattr(source, split)
        if file := _copied(source, whole, indices, f"{fingerprint[:12]}-{split}"):
            files.append(file)
        images[split] = file.images if file else _take(whole, indices, size)
    return replace(
        source,
        **images,
        train_labels=torch.searchsorted(chosen, source.train_labels[train]),
        test_labels=torch.searchsorted(chosen, source.test_labels[test]),
        classes=tuple(source.classes[label] for label in labels),
        fingerprint=fingerprint,
        files=tuple(files),
    )


def _copied(
    source: Dataset, images: torch.Tensor, indices: torch.Tensor, name: str
) -> ImageFile | None:
    """A file of those images that are chosen; None where there is no need of one.

    There is none for images that are in memory, for a view of those mapped, or for few.
    """
    file = source.file_of(images)
    if file is None or _is_range(indices) or len(indices) * images[0].numel() <= _MOST_IN_MEMORY:
        return None
    return copy_images(images, indices, file.path.with_name(f"{file.path.stem}-{name}.images"))


def _is_range(indices: torch.Tensor) -> bool:
    """Whether sorted indices are without a gap."""
    return int(indices[-1] - indices[0]) == len(indices) - 1


def _choose_classes(source: Dataset, classes: int | Collection[str] | None) -> list[int]:
    """Sorted labels of the classes asked for."""
    count = len(source.classes)
    if classes is None:
        return list(range(count))
    if isinstance(classes, Collection):
        for name in classes:
            check_choice("classes", name, source.classes)
        return sorted(source.classes.index(name) for name in classes)
    check_integer("classes", classes, least=2, most=count)
    # RandomState, unlike NumPy's and torch's newer generators, is promised never to change.
    return sorted(np.random.RandomState(0).permutation(count)[:classes].tolist())


def _draw_images(source: Dataset, label: int, per_class: int | None) -> torch.Tensor:
    members = (source.train_labels == label).nonzero().flatten()
    if per_class is not None and per_class > len(members):
        where = f"class {source.classes[label]!r} of {source.name}"
        raise ValueError(f"per_class={per_class}: {where} has {len(members)} training images")
    # A stream for each class: its draw does not depend on the other classes chosen.
    order = np.random.RandomState([0, label]).permutation(len(members))
    return members[torch.from_numpy(order[:per_class])]


def _take(images: torch.Tensor, indices: torch.Tensor, size: int) -> torch.Tensor:
    """images[indices], for sorted indices, resized; no copy without need."""
    if len(indices) < len(images):
        images = images[indices[0] : indices[-1] + 1] if _is_range(indices) else images[indices]
    if images.shape[-1] == size:
        return images
    # Some at a time: on the way they may be of 32 bits a value.
    return torch.cat([to_square(part, size) for part in images.split(64)])
