import math
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2.functional import resize, resized_crop

from eca_lab.data.augmentation import (
    augment,
    channel_statistics,
    flip_and_crop,
    normalize,
    random_resized_crop,
)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _random_images(count, height, width, seed=0):
    return torch.randint(256, (count, 3, height, width), generator=_generator(seed)).byte()


@pytest.mark.parametrize(("height", "width", "padding"), [(1, 1, 0), (7, 4, 1), (1, 3, 2)])
def test_flip_and_crop_gives_windows_of_the_padded_image(height, width, padding):
    images = _random_images(40, height, width)
    views = flip_and_crop(images, _generator(), padding=padding)
    assert torch.equal(images, _random_images(40, height, width))
    assert views.shape == images.shape
    border = [(0, 0), (padding, padding), (padding, padding)]
    for image, view in zip(images.numpy(), views.numpy(), strict=True):
        windows = [
            np.pad(source, border)[:, top : top + height, left : left + width]
            for source in (image, image[..., ::-1])
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        ]
        assert any(np.array_equal(view, window) for window in windows)


def test_flips_and_shifts_are_uniform_and_independent():
    images = _random_images(1, 5, 5).expand(9000, -1, -1, -1)
    views = flip_and_crop(images, _generator(), padding=1).flatten(1)
    _, kind, counts = views.unique(dim=0, return_inverse=True, return_counts=True)
    # 500 of each are expected, with a standard deviation of 22.
    assert len(counts) == 2 * 3 * 3
    assert ((counts > 390) & (counts < 610)).all()
    # Neighbours in a batch do not move alike.
    assert (kind[1:] == kind[:-1]).float().mean() < 0.08


@pytest.mark.parametrize("size", [32, 64])
def test_a_scale_shrinks_what_would_be_shown(size):
    images = _random_images(20, size, size)
    whole, half = augment(images, _generator()), augment(images, _generator(), scale=0.5)
    assert (half.dtype, half.shape) == (torch.uint8, (20, 3, size // 2, size // 2))
    pooled = torch.nn.functional.avg_pool2d(whole.float(), 2)
    agreement = torch.stack([pooled.flatten(), half.float().flatten()]).corrcoef()[0, 1]
    assert agreement > 0.9


def test_a_crop_is_as_wide_as_is_asked_for():
    images = _random_images(20, 32, 32)
    for asked, padding in ((None, 4), (0, 0), (2, 2)):
        expected = flip_and_crop(images, _generator(), padding=padding)
        assert torch.equal(augment(images, _generator(), crop=asked), expected)


@pytest.mark.parametrize(
    ("size", "kind"),
    [(32, partial(flip_and_crop, padding=4)), (33, partial(random_resized_crop, size=33))],
)
def test_size_decides_how_to_augment_and_the_generator_alone_the_views(size, kind):
    images, generator = _random_images(20, size, size), _generator(1)
    torch.manual_seed(0)
    first, second = augment(images, generator), augment(images, generator)
    torch.manual_seed(5)
    assert torch.equal(kind(images, _generator(1)), first)
    assert not torch.equal(first, second)


def test_random_resized_crop_cuts_boxes_of_the_stated_size_and_shape(monkeypatch):
    cut = []
    monkeypatch.setattr(
        "torchvision.ops.roi_align", lambda images, boxes, *_, **__: cut.append(boxes) or images
    )
    images = torch.zeros(3000, 3, 10, 20, dtype=torch.uint8)
    images[..., 0] = 1
    mirrored = random_resized_crop(images, _generator(), size=10)[:, 0, 0, -1] == 1
    assert 0.45 < mirrored.float().mean() < 0.55
    index, left, top, right, bottom = cut[0].double().T
    assert index.tolist() == list(range(3000))
    width, height = (right - left) / 20, (bottom - top) / 10
    area, ratio = width * height, width / height
    assert 0.35 < area.min() < 0.36 < 0.98 < area.max() <= 1
    # Uniform, but for the few boxes that were clipped.
    assert area.mean() == pytest.approx(0.665, abs=0.015)
    assert (area < 0.5).double().mean() == pytest.approx(0.15 / 0.65, abs=0.03)
    assert 3 / 4 - 1e-6 < ratio.min() < ratio.max() < 4 / 3 + 1e-6
    assert ratio.log().mean() == pytest.approx(0, abs=0.02)
    for start, length in ((left / 20, width), (top / 10, height)):
        assert start.min() >= 0
        assert (start + length).max() < 1 + 1e-6
        free = length < 0.9
        position = start[free] / (1 - length[free])
        assert position.mean() == pytest.approx(0.5, abs=0.03)
        assert position.std() == pytest.approx(12**-0.5, abs=0.03)


def test_boxes_of_a_least_area_are_those_of_torchvision(monkeypatch):
    cut = []
    monkeypatch.setattr(
        "torchvision.ops.roi_align", lambda images, boxes, *_, **__: cut.append(boxes) or images
    )
    images = torch.zeros(8000, 3, 20, 30, dtype=torch.uint8)
    random_resized_crop(images, _generator(), size=20, least_area=0.08)
    _, left, top, right, bottom = cut[0].double().T
    ours = torch.stack([top, left, bottom - top, right - left], 1) / torch.tensor([20, 30, 20, 30])
    torch.manual_seed(0)
    # Rounded to whole pixels: of these there are enough.
    large = images[0, :, :1, :1].expand(-1, 2000, 2000)
    draw = partial(RandomResizedCrop.get_params, large, (0.08, 1), (3 / 4, 4 / 3))
    theirs = torch.tensor([draw() for _ in range(8000)]).double() / 2000
    # The difference of two means of 8,000 numbers has a standard deviation of 0.003 or 0.004.
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 0.015
    assert (ours.std(0) - theirs.std(0)).abs().max() < 0.015
    for boxes in (ours, theirs):
        height, width = boxes[:, 2:].T
        assert 0.079 < (height * width).min() < 0.09
        assert 0.9 < (height * width).max() < 1.001
        assert 0.74 < (width / height).min() < (width / height).max() < 1.34
        assert ((boxes[:, :2] + boxes[:, 2:]) < 1.001).all()
    areas = [boxes[:, 2:].prod(1).sort().values for boxes in (ours, theirs)]
    assert (areas[0] - areas[1]).abs().max() < 0.03  # of their quantiles


@pytest.mark.parametrize(
    ("box", "size"),
    [((5, 8, 20, 24), 40), ((0, 0, 32, 40), 40), ((11, 3, 24, 20), 24), ((2, 3, 36, 32), 12)],
)
def test_a_box_is_cut_and_resized_as_by_torchvision(box, size, monkeypatch):
    """Box: top, left, height and width in an image of 40 x 40 pixels."""
    top, left, height, width = box
    area = (height * width / 1600 - 0.08) / 0.92
    ratio = (math.log(width / height) / math.log(4 / 3) + 1) / 2
    place = [top / max(40 - height, 1), left / max(40 - width, 1), 0.9]  # not mirrored
    beyond = torch.tensor([1.0, 0.0])  # the first draw is passed over: too high
    shape = torch.stack([beyond, *[torch.tensor([area, ratio])] * 9], 1)
    draws = iter([shape[..., None], torch.tensor(place)[:, None]])
    monkeypatch.setattr(torch, "rand", lambda *_, generator: next(draws))
    image = resize(_random_images(1, 5, 5), [40, 40])  # smooth
    ours = random_resized_crop(image, None, size=size, least_area=0.08).float()
    theirs = resized_crop(image, top, left, height, width, [size, size], antialias=True).float()
    inner = (..., slice(2, -2), slice(2, -2))  # at the edges ours sees what is beyond the box
    difference = (ours - theirs)[inner].abs()
    if size >= max(height, width):  # enlarged: both are bilinear
        assert difference.max() <= 1
    else:  # a mean, and one in which the middle weighs more
        assert difference.mean() < 2


def test_a_least_area_cuts_small_images_too():
    images = _random_images(20, 32, 32)
    views = augment(images, _generator(), scale=0.5, least_area=0.08)
    expected = random_resized_crop(images, _generator(), size=16, least_area=0.08)
    assert torch.equal(views, expected)


def test_random_resized_crop_of_the_whole_image_is_the_image(monkeypatch):
    images = _random_images(3, 12, 12)
    whole = torch.ones(5, 3)
    whole[1], whole[4] = 0.5, 0.9  # square, not mirrored
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: whole)
    assert torch.equal(random_resized_crop(images, None, size=12), images)
    # Shrinking averages over all pixels.
    averaged = images.float().unflatten(2, (3, 4)).unflatten(4, (3, 4)).mean((3, 5))
    shrunk = random_resized_crop(images, None, size=3).float()
    assert (shrunk - averaged).abs().max() <= 0.5


@pytest.mark.gpu
@pytest.mark.parametrize(("size", "tolerance"), [(32, 0), (64, 1)])
def test_augmentation_does_not_depend_on_the_device(size, tolerance):
    images = _random_images(64, size, size)
    here = augment(images, _generator()).int()
    there = augment(images.cuda(), _generator())
    assert there.is_cuda
    assert (here - there.cpu().int()).abs().max() <= tolerance
    for a, b in zip(channel_statistics(images), channel_statistics(images.cuda()), strict=True):
        assert torch.equal(a, b.cpu())


def test_statistics_are_equal_in_pieces(monkeypatch):
    images = _random_images(50, 9, 9)
    whole = channel_statistics(images)
    monkeypatch.setattr("eca_lab.data.augmentation.PIECE", 3 * 9 * 9 * 7)
    for one, other in zip(whole, channel_statistics(images), strict=True):
        assert torch.equal(one, other)


def test_statistics_and_normalization():
    images = _random_images(50, 9, 9)
    images[:, 1] //= 4
    images[:, 2] = 51
    values = images.numpy().astype(np.float64) / 255
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-6, atol=1e-7)
    assert mean.dtype == std.dtype == torch.float32
    assert mean[2] == torch.tensor(0.2)
    one = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    normalized = normalize(one, torch.tensor([0.5, 0.1, 0.0]), torch.tensor([0.5, 0.2, 2.0]))
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.flatten(), [-1, 0.5, 0.5], rtol=1e-6)
