import torch

from eca_lab.data import load_dataset
from eca_lab.data.shapes import load_shapes

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
    images = torch.cat([dataset.train_images, dataset.test_images]).numpy()
    assert len({image.tobytes() for image in images}) == 7000


def test_shapes_are_drawn_once_a_process():
    assert load_shapes() is load_shapes()
    assert load_dataset("shapes").train_images is load_shapes().train_images
