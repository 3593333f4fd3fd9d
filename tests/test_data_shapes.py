import numpy as np
import torch

from eca_lab.data import load_dataset, shapes

FINGERPRINT = "6462b53e9691f3ca5c8ce92b45d64c50ec75076a5a36f5c4f2f62b6f682b65cc"


def test_every_pixel_is_as_ever():
    """Recorded trials are known by the fingerprint."""
    dataset = load_dataset("shapes")
    assert dataset.fingerprint == FINGERPRINT
    assert dataset.train_images.shape == (5000, 3, 32, 32)
    assert dataset.test_images.shape == (2000, 3, 32, 32)
    assert dataset.train_images.dtype == dataset.test_images.dtype == torch.uint8
    assert dataset.train_labels.bincount().tolist() == [500] * 10
    assert dataset.test_labels.bincount().tolist() == [200] * 10
    assert dataset.classes[:3] == ("arrow", "crescent", "cross")
    assert (dataset.size, dataset.skipped, dataset.name) == (32, 0, "shapes")


def test_shapes_do_not_repeat_and_are_drawn_once_a_process():
    dataset = shapes.load_shapes()
    images = torch.cat([dataset.train_images, dataset.test_images]).numpy()
    assert len({image.tobytes() for image in images}) == 7000
    assert shapes.load_shapes() is dataset


def test_shapes_leave_global_random_numbers_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    shapes._render(np.arange(10), np.random.RandomState(0))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
