"""Augmentation and normalisation, on the device of the images.

The generators are on the CPU, so that one seed does the same on every device.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from eca_lab.data.dataset import Dataset
from eca_lab.data.mapped import PIECE

# Of a box, until one is within the image, as in torchvision; of a least area of 0.08, 86% are.
_DRAWS = 10


def augment(
    images: Tensor,
    generator: Generator,
    *,
    scale: float = 1.0,
    crop: int | None = None,
    least_area: float | None = None,
) -> Tensor:
    """Random views of images for training, as usual for CIFAR (up to 32 pixels) or ImageNet.

    Args:
        images: (N, 3, H, W) uint8, H = W.
        generator: on the CPU, of all that is random.
        scale: side of the views as a share of that of the images, as in a `Recipe`.
        crop: by how many pixels views of small images are moved at most, as in a `Recipe`.
        least_area: the smallest share that a view shows of its image, as in a `Recipe`.

    Returns:
        (N, 3, H * scale, W * scale) uint8, on the device of the images.
    """
    size = images.shape[-1]
    smaller = max(1, round(size * scale))
    if size > 32 or least_area is not None:
        return random_resized_crop(images, generator, size=smaller, least_area=least_area)
    padding = size // 8 if crop is None else crop
    images = flip_and_crop(images, generator, padding=padding)
    if smaller == size:
        return images
    from torchvision.transforms.v2.functional import resize  # see eca_lab.networks.backbones

    return resize(images, [smaller, smaller], antialias=True)


def flip_and_crop(images: Tensor, generator: Generator, *, padding: int) -> Tensor:
    """Mirror every other image, at random, and cut each again from within a black border.

    Args:
        images: (N, 3, H, W), of any dtype.
        generator: on the CPU.
        padding: width of the border in pixels.

    Returns:
        Images of the same shape, dtype and device.
    """
    count, _, height, width = images.shape
    mirrored = torch.randint(2, (1, count), generator=generator)
    offsets = torch.randint(2 * padding + 1, (2, count), generator=generator)
    # All random numbers in one copy to the device.
    mirrored, top, left = torch.cat([mirrored, offsets]).to(images.device).unbind()
    images = _mirror(images, mirrored)
    # A view of all windows (N, 3, top, left, H, W): only those chosen are ever copied.
    windows = pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def random_resized_crop(
    images: Tensor, generator: Generator, *, size: int, least_area: float | None = None
) -> Tensor:
    """Cut a random box out of each image, resize it, and mirror every other one, at random.

    With a least area the boxes are those of torchvision's `RandomResizedCrop`, but not rounded to
    whole pixels: of the draws of an area, uniformly from least_area to 1, and of a ratio of width
    to height, uniformly from 3/4 to 4/3 on a logarithmic scale, the first whose box is within the
    image. The usual least area for ImageNet is 0.08, with 90 epochs or more to make up for it.

    Without one the area is from 0.35 to 1, and of the first draw what is beyond the image is cut
    off, so that the areas are uniform.

    Args:
        images: (N, 3, H, W) uint8.
        generator: on the CPU.
        size: side of the result in pixels.
        least_area: the smallest share of the image's area, above 0 to 1.

    Returns:
        (N, 3, size, size) uint8, on the device of the images.
    """
    from torchvision.ops import roi_align

    count, _, height, width = images.shape
    if least_area is None:
        area, ratio, top, left, mirrored = torch.rand(5, count, generator=generator).unbind()
        box_height, box_width = _extent(0.35 + 0.65 * area, ratio)
    else:
        area, ratio = torch.rand(2, _DRAWS, count, generator=generator).unbind()
        top, left, mirrored = torch.rand(3, count, generator=generator).unbind()
        draws = torch.stack(_extent(least_area + (1 - least_area) * area, ratio))
        first = (draws <= 1).all(0).byte().argmax(0)
        box_height, box_width = draws[:, first, torch.arange(count)]
    box_height = height * box_height.clamp(max=1)
    box_width = width * box_width.clamp(max=1)
    left = left * (width - box_width)
    top = top * (height - box_height)
    boxes = torch.stack([torch.arange(count), left, top, left + box_width, top + box_height], 1)
    # Averages over the pixels under each pixel of the result, so that shrinking does not alias.
    cut = roi_align(images.float(), boxes.to(images.device), size, aligned=True)
    return _mirror(cut.round().to(torch.uint8), (mirrored < 0.5).to(images.device))


def _extent(area: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Height and width of boxes as shares of an image's, of shares of its area and draws in 0..1
    of their ratio.
    """
    ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))
    return torch.sqrt(area / ratio), torch.sqrt(area * ratio)


def _mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Images (N, 3, H, W), those marked in mirrored (N,) left to right."""
    return torch.where(mirrored.bool()[:, None, None, None], images.flip(-1), images)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) as float32, less the mean and divided by std, both (3,) in 0..1."""
    mean = 255 * mean.to(images.device)[:, None, None]
    std = 255 * std.to(images.device)[:, None, None]
    return images.float().sub_(mean).div_(std)


def channel_statistics(images: Tensor, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Mean and std of each channel of uint8 images (N, 3, H, W) as values in 0..1, (3,) float32.

    Computed on the device, that of the images if it is None, to which they are moved in pieces.
    """
    device = device or images.device
    # How often each value occurs: exact, and faster than to sum the pixels.
    counts = torch.zeros((images.shape[1], 256), dtype=torch.int64, device=device)
    for part in images.split(max(1, PIECE // images[0].numel())):
        for count, channel in zip(counts, part.to(device).unbind(1), strict=True):
            count += channel.flatten().bincount(minlength=256)
    values = torch.arange(256, device=device)
    count = images[:, 0].numel()
    mean = (counts * values).sum(1).double() / count
    std = ((counts * values**2).sum(1).double() / count - mean**2).sqrt()
    return (mean / 255).float(), (std / 255).float()


def input_transform(dataset: Dataset) -> Callable[[Tensor], Tensor]:
    """A function from uint8 images (N, 3, H, W) to the input of a network trained on a data set."""
    mean, std = channel_statistics(dataset.train_images, dataset.train_labels.device)
    layout = torch.channels_last
    return lambda images: normalize(images, mean, std).contiguous(memory_format=layout)
