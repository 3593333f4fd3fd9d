"""What an explorer of weights shows: images as networks take them, in groups, and as pictures."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils._pytree import tree_leaves, tree_map
from tqdm.auto import tqdm

from eca_lab.checks import shown as in_words
from eca_lab.data.augmentation import channel_statistics, input_transform
from eca_lab.data.dataset import Dataset
from eca_lab.networks import passes

SIDE = 64  # pixels of the longer side of a picture, at most
BATCH = 32  # images that run at once
LOOKED = 10_000  # images of batches that are looked at, at most: a stream may have no end


@dataclass(frozen=True, eq=False)
class Shown:
    """N images in G groups, one group after the other, and what is known of them.

    images are a tensor (N, ...), or a dict or the like of tensors, as a batch is; prepare makes of
    them what a network is called with. indices (N,) are their places in what was given. groups
    are the names of the groups, counts the images in each. labels (N,) are their classes, None if
    they are not known, and classes the names of all classes, None if they are not told. pictures
    (N, h, w, 3) are uint8, None of what cannot be seen. statistics gives mean and std by which
    prepare normalises, None if it may do something else. If a network has to tell the classes
    apart, it is required. notes say in sentences what a reader has to know.
    """

    images: Any
    prepare: passes.Prepare | None
    indices: np.ndarray
    groups: tuple[str, ...]
    counts: tuple[int, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    pictures: np.ndarray | None
    statistics: Callable[[], tuple[Tensor, Tensor]] | None
    required: bool
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def some(self, images: list[int]) -> Any:
        """A batch of some of the images."""
        return tree_map(lambda part: part[images] if _has_rows(part) else part, self.images)

    @property
    def starts(self) -> range:
        """The first image of each of `batches`."""
        return range(0, len(self), BATCH)

    def batches(self) -> Iterator[Any]:
        """All images, `BATCH` at once."""
        for start in self.starts:
            yield self.some([*range(start, min(start + BATCH, len(self)))])


def progress(steps: Iterable[Any], words: str, total: int | None = None) -> Iterable[Any]:
    """The same steps, with a bar where they take more than two seconds."""
    # tqdm's bar for notebooks overlooks this variable, which its bar for terminals obeys.
    quiet = bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(steps, words, total, delay=2, leave=False, disable=quiet)


def of_dataset(dataset: Dataset, most: int) -> Shown:
    """The first test images of each class, equally many, at most so many in all.

    Raises:
        ValueError: what cannot be shown.
    """
    _check_dataset(dataset, most)
    classes = tuple(dataset.classes)
    indices, counts = _first_of_each(dataset.test_labels.cpu().numpy(), classes, most)
    images = dataset.test_images[indices]
    pictures, note = _pictures(images)
    return Shown(
        images=images,
        prepare=input_transform(dataset),
        indices=indices,
        groups=classes,
        counts=counts,
        labels=np.repeat(np.arange(len(classes)), counts),
        classes=classes,
        pictures=pictures,
        statistics=partial(channel_statistics, dataset.train_images),
        required=True,
        notes=(note,) if note else (),
    )


def of_images(
    images: Tensor | Iterable[Any],
    *,
    labels: Any,
    classes: Sequence[str] | None,
    prepare: passes.Prepare | None,
    most: int,
) -> Shown:
    """The first images of each class, at most so many in all; without labels, the first images.

    Arguments and errors as for `eca_lab.explore`.
    """
    _check_images(images)
    given = None if labels is None else _integers("labels", labels)
    if given is not None and isinstance(images, Tensor) and len(given) != len(images):
        raise ValueError(f"labels: {len(given)}; accepted are {len(images)}, one for each image")
    names = _names(classes)
    found = _kept(images, given, most)
    rows = [row for group in found.groups.values() for row in group]
    whole = _together([row.image for row in rows])
    pictures, note = _pictures(whole)
    notes = [found.note(most), note]
    counts = tuple(len(group) for group in found.groups.values())
    own = None
    groups: tuple[str, ...] = ("all images",)
    if found.labelled:
        present = list(found.groups)
        if names is not None and len(names) <= max(present):
            raise ValueError(
                f"classes: {len(names)} names; accepted are {max(present) + 1} or more, "
                f"for labels up to {max(present)}"
            )
        own = np.repeat(present, counts)
        groups = tuple(names[label] if names else str(label) for label in present)
    return Shown(
        images=whole,
        prepare=prepare,
        indices=np.array([row.place for row in rows]),
        groups=groups,
        counts=counts,
        labels=own,
        classes=names,
        pictures=pictures,
        statistics=None,
        required=False,
        notes=tuple(each for each in notes if each),
    )


class _Row(NamedTuple):
    """An image, as a batch has it, but for the first dimension, and its place in what was given."""

    place: int
    image: Any


@dataclass
class _Kept:
    """Which images are shown, by label in ascending order; all under 0 where there are none."""

    groups: dict[int, list[_Row]]
    labelled: bool
    seen: int  # images that were looked at
    ended: bool  # whether there are no more
    classes: int  # of which images were seen

    def note(self, most: int) -> str:
        """How these images were chosen."""
        count = sum(map(len, self.groups.values()))
        if self.ended and count == self.seen:
            return "" if self.labelled else "Images in the order in which they were given."
        seen = f"{self.seen:,}" if self.ended else f"the first {self.seen:,}"
        if not self.labelled:
            return f"The first {count} images, in the order in which they were given."
        if self.classes > most:
            return f"The first image of each of the first {most} of {self.classes:,} classes."
        each = most // self.classes
        return f"{count} of {seen} images: of each class the first, at most {each}."


def _kept(images: Tensor | Iterable[Any], labels: np.ndarray | None, most: int) -> _Kept:
    groups: dict[int, list[_Row]] = {}
    seen, labelled, ended = 0, labels is not None, True
    batches = passes.batches(images)
    for batch, own in progress(batches, "Images") if not isinstance(images, Tensor) else batches:
        size = _size_of(batch, own)
        told: np.ndarray | None
        if labels is not None:
            told = labels[seen : seen + size]
            if len(told) < size:
                raise ValueError(
                    f"labels: {len(labels)}; accepted is one for each image, of which there are "
                    f"{seen + size} or more"
                )
        else:
            told = _labels_of(own, size)
            if seen and labelled != (told is not None):
                raise ValueError("images: some batches have labels, and some have none")
            labelled = told is not None
        _keep(groups, batch, told, first=seen, most=most)
        seen += size
        full = not labelled and len(groups[0]) == most
        if full or (seen >= LOOKED and not isinstance(images, Tensor)):
            ended = False
            break
    if ended and labels is not None and len(labels) != seen:
        raise ValueError(f"labels: {len(labels)}; accepted are {seen}, one for each image")
    known = len(groups)
    chosen = {label: groups[label] for label in sorted(groups)[:most]}
    return _Kept(chosen, labelled, seen, ended=ended, classes=known)


def _keep(
    groups: dict[int, list[_Row]], batch: Any, labels: np.ndarray | None, *, first: int, most: int
) -> None:
    """Add those images of a batch that are among the first of their class."""
    for row in range(passes.count_of(batch)):
        label = 0 if labels is None else int(labels[row])
        group = groups.setdefault(label, [])
        if len(group) < max(1, most // len(groups)):
            group.append(_Row(first + row, _image(batch, row)))
    for group in groups.values():  # the more classes, the fewer of each
        del group[max(1, most // len(groups)) :]


def _has_rows(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dim() > 0


def _image(batch: Any, row: int) -> Any:
    # A copy: a view would keep the whole batch in memory.
    return tree_map(lambda part: part[row].cpu().clone() if _has_rows(part) else part, batch)


def _together(rows: list[Any]) -> Any:
    """Images as one batch."""

    def stacked(*parts: Any) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        shapes = {tuple(part.shape) for part in parts}
        if len(shapes) > 1:
            listed = " and ".join(map(str, sorted(shapes)[:2]))
            raise ValueError(f"images of {listed}: accepted are images of one shape")
        return torch.stack(parts)

    return tree_map(stacked, *rows)


def _size_of(batch: Any, own: Any) -> int:
    """How many images a batch holds; TypeError for a single image with its label."""
    if isinstance(own, int) or (isinstance(own, Tensor | np.ndarray) and own.ndim == 0):
        raise TypeError(
            "images gives single images with a label each: accepted are batches, such as those of "
            "torch.utils.data.DataLoader(images, batch_size=50)"
        )
    try:
        return passes.count_of(batch)
    except TypeError as error:
        raise TypeError(f"images: {error}") from None


def _labels_of(own: Any, size: int) -> np.ndarray | None:
    """The labels that a batch carries, None if they are not one integer for each image."""
    plain = isinstance(own, list | tuple) and all(isinstance(each, int) for each in own)
    if not (plain or isinstance(own, Tensor | np.ndarray)) or len(own) != size:
        return None
    try:
        return _integers("labels", own)
    except TypeError:
        return None


def _integers(name: str, values: Any) -> np.ndarray:
    """(N,) integers from 0 on; TypeError, ValueError for anything else."""
    found = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        has = f"{found.dtype} {found.shape}"
        raise TypeError(f"{name}={has}: accepted are integers, one for each image")
    if found.min() < 0:
        raise ValueError(f"{name}: one is {found.min()}; accepted are integers from 0")
    return found.astype(np.int64)


def _names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    if isinstance(classes, str | Mapping) or not isinstance(classes, Iterable):
        raise TypeError(f"classes={in_words(classes)}: accepted are names, in the order of labels")
    return tuple(map(str, classes))


def _check_images(images: Any) -> None:
    if isinstance(images, np.ndarray):
        accepted = "accepted is a tensor, such as torch.from_numpy(images), or batches"
        raise TypeError(f"images, a NumPy array {images.shape}: {accepted}")


# --- As pictures ---


def _pictures(images: Any) -> tuple[np.ndarray | None, str]:
    """(N, h, w, 3) uint8 of images that can be seen, else None; and what to know of them.

    The longer side has at most `SIDE` pixels, each the average of those that lie under it. uint8
    and floats of 0 to 1 are shown as they are; of others each picture from its lowest value to its
    highest.
    """
    parts = [part for part in tree_leaves(images) if isinstance(part, Tensor)]
    found = next(filter(None, map(_channels_at, parts)), None)
    if found is None:
        shape = " × ".join(map(str, max(parts, key=Tensor.dim).shape[1:]))
        return None, f"Images of {shape}: no pictures, which have 1 or 3 channels."
    part, channels = found
    stretched = part.dtype not in (torch.uint8, torch.bool) and not _within_one(part)
    pictures = [_picture(image.movedim(channels - 1, 0), stretched=stretched) for image in part]
    note = (
        "Pictures go from their lowest value, black, to their highest, white." if stretched else ""
    )
    return np.stack(pictures), note


def _channels_at(part: Tensor) -> tuple[Tensor, int] | None:
    """Pictures (N, C, H, W) or (N, H, W, C), and the dimension of C; None of what are none."""
    if part.dim() != 4:
        return None
    for dimension in (1, 3):
        if part.shape[dimension] in (1, 3):
            return part, dimension
    return None


def _within_one(part: Tensor) -> bool:
    return part.is_floating_point() and bool(part.min() >= 0 and part.max() <= 1)


def _picture(image: Tensor, *, stretched: bool) -> np.ndarray:
    """(h, w, 3) uint8 of one picture (C, H, W)."""
    values = image.detach().cpu().float().nan_to_num()
    if stretched:
        low, high = values.min(), values.max()
        values = (values - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    if stretched or image.dtype != torch.uint8:
        values = 255 * values
    small = shrunk(values[None], SIDE)[0].round().clamp(0, 255).to(torch.uint8)
    return small.expand(3, -1, -1).permute(1, 2, 0).numpy()


def shrunk(values: Tensor, side: int) -> Tensor:
    """(N, C, H, W) whose longer side has at most so many pixels, averages of those under them."""
    height, width = values.shape[2:]
    scale = side / max(height, width)
    if scale >= 1:
        return values
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return interpolate(values, size, mode="area")


# --- Of a data set ---


def _check_dataset(dataset: Dataset, most: int) -> None:
    """Raise ValueError for what cannot be shown, with at most so many classes."""
    for name in ("train_images", "test_images"):
        images = getattr(dataset, name)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            has = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"dataset.{name}={has}: accepted is torch.uint8 (N, 3, H, W)")
    labels = dataset.test_labels
    count = len(dataset.classes)
    if count > most:
        raise ValueError(
            f"dataset: {count:,} classes; accepted are at most {most}, of each of which an image "
            "is shown. probe.record_weights records the weights of more"
        )
    if labels.shape != (len(dataset.test_images),) or labels.is_floating_point():
        has = f"{labels.dtype} {tuple(labels.shape)}"
        accepted = f"accepted are {len(dataset.test_images)} integers"
        raise ValueError(f"dataset.test_labels={has}: {accepted}, one for each test image")
    wrong = labels[(labels < 0) | (labels >= count)]
    if len(wrong):
        accepted = f"accepted are 0 to {count - 1}, for {count} classes"
        raise ValueError(f"dataset.test_labels: one is {wrong[0]}; {accepted}")


def _first_of_each(
    labels: np.ndarray, classes: tuple[str, ...], most: int
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Where the first images of each class are, sorted by class, at most so many; and how many."""
    found = [np.flatnonzero(labels == label) for label in range(len(classes))]
    for name, images in zip(classes, found, strict=True):
        if not len(images):
            raise ValueError(f"class {name!r} has no test image: accepted is at least one")
    found = [images[: most // len(classes)] for images in found]
    return np.concatenate(found), tuple(len(images) for images in found)
