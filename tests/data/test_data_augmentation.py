from functools import partial

import numpy as np
import pytest
import torch

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
