"""Where images lie while a network trains on them, and how batches come from there.

On the device as a whole, where there is room for them; else on the host, in memory or mapped from
a file, from where they move batch by batch, one ahead. Either way a network sees the same bytes.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from eca_lab.data.dataset import Dataset

# Of the memory that a process may use on a GPU, this share is for images, and the rest for weights,
# feature maps and workspaces, which grow with the batch and are not known before.
IMAGE_SHARE = 0.5


def place(dataset: Dataset, device: torch.device) -> Dataset:
    """A data set for training on a device: its labels there, and its images too, if they fit.

    They fit if they take no more than `room` gives. Else, or where the device is fuller than it
    says, they stay where they are. OSError for a file of images that was cut short or changed.
    """
    for file in dataset.files:
        file.check()
    if fits(dataset, device):
        with suppress(torch.OutOfMemoryError):
            return dataset.to(device)
    labels = {name: getattr(dataset, name).to(device) for name in ("train_labels", "test_labels")}
    return replace(dataset, **labels)


def fits(dataset: Dataset, device: torch.device, *, gpu_share: float | None = None) -> bool:
    """Whether all images shall lie on a device; on the CPU, whether they are in memory already.

    gpu_share is as for `room`.
    """
    if device.type == "cpu":
        return not _is_mapped(dataset)
    return image_bytes(dataset) <= room(device, gpu_share=gpu_share)


def room(device: torch.device, *, gpu_share: float | None = None) -> int:
    """Bytes for images on a CUDA device: half of what this process may use there.

    It may use what is free, with what its allocator keeps for later, but no more than its share of
    the whole: gpu_share, or without one that which was set for this process.
    """
    free, whole = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if gpu_share is None:
        gpu_share = torch.cuda.get_per_process_memory_fraction(device)
    return int(IMAGE_SHARE * min(free + kept, gpu_share * whole))


def image_bytes(dataset: Dataset) -> int:
    """Bytes of all images, training and test."""
    return dataset.train_images.nbytes + dataset.test_images.nbytes


def placement(
    dataset: Dataset, device: torch.device, *, batch_size: int, gpu_share: float = 1.0
) -> str:
    """Where the images will lie, and what that costs, in words.

    Args:
        dataset: whose images.
        device: where the training is to run.
        batch_size: images a training step.
        gpu_share: what of a GPU each trial may use.
    """
    size = image_bytes(dataset)
    if fits(dataset, device, gpu_share=gpu_share):
        where = "in memory" if device.type == "cpu" else f"on {device}"
        return f"{_shown(size)} of images, {where} as a whole in every process that trains"
    where = "mapped from a file, which all processes share" if _is_mapped(dataset) else "in memory"
    step = batch_size * dataset.train_images[0].nbytes
    cost = f"{_shown(step)} are read for each training step, one ahead"
    if device.type == "cuda":
        free = _shown(room(device, gpu_share=gpu_share))
        cost += f", and moved to {device}, which has room for {free}"
    return f"{_shown(size)} of images, {where}: {cost}"


def _is_mapped(dataset: Dataset) -> bool:
    return any(dataset.file_of(images) for images in (dataset.train_images, dataset.test_images))


def _shown(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def taken(
    dataset: Dataset, split: str, indices: Tensor, *, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of a data set in batches, on the device where its labels are.

    Args:
        dataset: of `place`.
        split: "train" or "test".
        indices: which images, and in which order.
        batch_size: how many at a time; the last may be fewer.

    Yields:
        Images (N, 3, H, W) uint8, and labels (N,).

    Raises:
        OSError: for a file of images that was cut short or changed while they were taken from it.
    """
    images, labels = getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")
    file = dataset.file_of(images)
    places = indices.to(labels.device).split(batch_size)
    if file is None and images.device == labels.device:
        for place in places:
            yield images[place], labels[place]
        return

    def read(batch: Tensor) -> Tensor:
        if file is not None:
            file.check()
        return _gather(images, batch, pinned=labels.is_cuda)

    batches = indices.split(batch_size)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, batches[0])
        for number, place in enumerate(places, 1):
            batch = coming.result()
            if number < len(batches):
                coming = reader.submit(read, batches[number])
            yield batch.to(labels.device, non_blocking=True), labels[place]


def _gather(images: Tensor, indices: Tensor, *, pinned: bool) -> Tensor:
    """images[indices], but read in the order in which they lie: a disk likes that better."""
    ordered, places = indices.sort()
    gathered = torch.empty((len(indices), *images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    gathered[places] = images[ordered]
    return gathered
