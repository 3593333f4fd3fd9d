import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eca_lab.data import (
    augment,
    channel_statistics,
    dataset,
    flip_and_crop,
    normalize,
    random_resized_crop,
)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _random_images(count, height, width, seed=0):
    return torch.randint(256, (count, 3, height, width), generator=_generator(seed)).byte()


@settings(deadline=None)
@given(
    count=st.integers(1, 6),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    padding=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_flip_and_crop_gives_windows_of_the_padded_image(count, height, width, padding, seed):
    images = _random_images(count, height, width, seed)
    before = images.clone()
    views = flip_and_crop(images, _generator(seed), padding)
    assert torch.equal(images, before)
    assert views.shape == images.shape
    assert views.dtype == torch.uint8
    for image, view in zip(images.numpy(), views.numpy(), strict=True):
        windows = []
        for source in (image, image[..., ::-1]):
            padded = np.zeros((3, height + 2 * padding, width + 2 * padding), np.uint8)
            padded[:, padding : padding + height, padding : padding + width] = source
            windows += [
                padded[:, top : top + height, left : left + width]
                for top in range(2 * padding + 1)
                for left in range(2 * padding + 1)
            ]
        assert any(np.array_equal(view, window) for window in windows)


def _placement(views, padding):
    """Where each view was cut, from images whose one lit pixel tells: (mirrored, top, left).

    The lit pixel is at row 4, column 2 of 9 x 9; mirrored, at column 6.
    """
    lit = views[:, 0].nonzero()
    assert len(lit) == len(views)
    mirrored = lit[:, 2] > 4
    assert padding < 2, "or the two columns are not told apart"
    return mirrored, padding + 4 - lit[:, 1], padding + torch.where(mirrored, 6, 2) - lit[:, 2]


def test_flips_and_shifts_are_uniform_and_independent():
    images = torch.zeros(9000, 3, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 2] = 200
    mirrored, top, left = _placement(flip_and_crop(images, _generator(), padding=1), padding=1)
    # 18 combinations, 500 expected of each, with a standard deviation of 22.
    combination = mirrored * 9 + top * 3 + left
    counts = combination.bincount(minlength=18)
    assert len(counts) == 18
    assert ((counts > 390) & (counts < 610)).all()
    # Neighbours in a batch do not move alike.
    assert (combination[1:] == combination[:-1]).float().mean() < 0.08


def test_flip_and_crop_without_padding_only_flips():
    images = _random_images(500, 6, 6)
    views = flip_and_crop(images, _generator(), padding=0)
    same = (views == images).flatten(1).all(1)
    mirrored = (views == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 190 < same.sum() < 310


@pytest.mark.parametrize("size", [16, 40])
def test_generator_alone_decides(size):
    images = _random_images(20, size, size)
    generator = _generator(1)
    torch.manual_seed(0)
    first, second = augment(images, generator), augment(images, generator)
    torch.manual_seed(5)
    assert torch.equal(augment(images, _generator(1)), first)
    assert not torch.equal(first, second)
    assert not torch.equal(augment(images, _generator(2)), first)


def test_augment_shifts_small_images_and_crops_large_ones():
    small, large = _random_images(30, 32, 32), _random_images(10, 33, 33)
    assert torch.equal(augment(small, _generator()), flip_and_crop(small, _generator(), 4))
    assert torch.equal(
        augment(large, _generator()), random_resized_crop(large, _generator(), size=33)
    )


def _boxes(count, size):
    """Boxes that random_resized_crop cut from images of 200 x 100: (mirrored, box in pixels).

    Red is the column, green twice the row: both are linear, so that averaging and interpolating
    give the coordinate of the middle of each pixel of the result.
    """
    images = torch.zeros(count, 3, 100, 200, dtype=torch.uint8)
    images[:, 0] = torch.arange(200, dtype=torch.uint8)
    images[:, 1] = 2 * torch.arange(100, dtype=torch.uint8)[:, None]
    views = random_resized_crop(images, _generator(), size).double()
    assert views.shape == (count, 3, size, size)
    column, row = views[:, 0].mean(1), views[:, 1].mean(2) / 2
    mirrored = column[:, 0] > column[:, -1]
    column[mirrored] = column[mirrored].flip(1)
    # Away from the edges, where interpolation meets the end of the image.
    inner = slice(2, size - 2)
    step = torch.arange(size)[inner] + 0.5
    box = {}
    for side, (values, length) in {"x": (column, 200), "y": (row, 100)}.items():
        slope = (values[:, size - 3] - values[:, 2]) / (size - 5)
        start = (values[:, inner] + 0.5 - slope[:, None] * step).mean(1)
        box[side] = start / length, slope * size / length
    return mirrored, *box["x"], *box["y"]


def test_random_resized_crop_cuts_boxes_of_the_stated_size_and_shape():
    mirrored, left, width, top, height = _boxes(3000, size=25)
    slack = 0.01
    assert 0.45 < mirrored.float().mean() < 0.55
    area, ratio = width * height, width / height
    assert area.min() > 0.35 - slack
    assert area.max() < 1 + slack
    # Uniform, but for the few boxes that were clipped.
    assert area.mean() == pytest.approx(0.665, abs=0.015)
    assert (area < 0.5).double().mean() == pytest.approx(0.15 / 0.65, abs=0.03)
    assert ratio.min() > 3 / 4 - 2 * slack
    assert ratio.max() < 4 / 3 + 2 * slack
    assert ratio.log().mean() == pytest.approx(0, abs=0.02)
    for start, length in ((left, width), (top, height)):
        assert start.min() > -slack
        assert (start + length).max() < 1 + slack
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


def test_channel_statistics(monkeypatch):
    images = _random_images(50, 9, 9)
    images[:, 1] //= 4
    images[:, 2] = 51
    values = images.numpy().astype(np.float64) / 255
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-6, atol=1e-7)
    assert mean.dtype == std.dtype == torch.float32
    assert mean[2] == torch.tensor(0.2)
    monkeypatch.setattr(dataset, "VALUES_PER_CHUNK", 1000)
    for whole, chunked in zip((mean, std), channel_statistics(images), strict=True):
        assert torch.equal(whole, chunked)


def test_normalize():
    images = _random_images(200, 8, 8)
    images[:, 1] //= 3
    normalized = normalize(images, *channel_statistics(images))
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.double().mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(normalized.double().std((0, 2, 3), correction=0), 1, atol=1e-6)
    one = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    expected = normalize(one, torch.tensor([0.5, 0.1, 0.0]), torch.tensor([0.5, 0.2, 2.0]))
    np.testing.assert_allclose(expected.flatten(), [-1, 0.5, 0.5], rtol=1e-6)
