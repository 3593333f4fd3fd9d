import hashlib
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from eca_lab import data
from eca_lab.data import dataset as source
from eca_lab.data import (
    load_dataset,
)


def _must_not_run(*args, **kwargs):
    raise AssertionError("this must not run here")


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes")


@pytest.fixture
def load_shapes():
    return partial(load_dataset, "shapes")


def test_classes_by_name_are_renumbered_in_the_order_of_the_data_set(shapes, load_shapes):
    part = load_shapes(classes=["star", "cross", "disc"])
    assert part.classes == ("cross", "disc", "star")
    labels = torch.tensor([shapes.classes.index(name) for name in part.classes])
    for split in ("train", "test"):
        images, whole = getattr(part, f"{split}_images"), getattr(shapes, f"{split}_images")
        kept = torch.isin(getattr(shapes, f"{split}_labels"), labels)
        assert torch.equal(images, whole[kept])
        renumbered = getattr(part, f"{split}_labels")
        assert torch.equal(labels[renumbered], getattr(shapes, f"{split}_labels")[kept])
        assert renumbered.unique().tolist() == [0, 1, 2]


def test_number_of_classes_is_drawn_with_the_seed(load_shapes):
    draws = [load_shapes(classes=3, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert all(len(draw.classes) == 3 and draw.train_labels.max() == 2 for draw in draws)
    assert draws[0].classes == draws[1].classes
    assert draws[0].fingerprint == draws[1].fingerprint
    assert len({draw.classes for draw in draws}) > 2
    assert set(draws[0].classes) < set(load_shapes(classes=5, seed=0).classes)
    assert all(list(draw.classes) == sorted(draw.classes) for draw in draws)


def test_images_per_class_are_drawn_with_the_seed(shapes, load_shapes):
    part, same, other = (load_shapes(per_class=20, seed=seed) for seed in (0, 0, 1))
    assert part.train_labels.bincount().tolist() == [20] * 10
    assert torch.equal(part.train_images, same.train_images)
    assert part.fingerprint == same.fingerprint != other.fingerprint
    assert not torch.equal(part.train_images, other.train_images)
    # Each with its own label, and no image twice.
    where = {image.tobytes(): i for i, image in enumerate(shapes.train_images.numpy())}
    indices = [where[image.tobytes()] for image in part.train_images.numpy()]
    assert indices == sorted(set(indices))
    assert torch.equal(shapes.train_labels[indices], part.train_labels)
    assert torch.equal(part.test_images, shapes.test_images)


def test_draws_are_nested_and_do_not_depend_on_the_other_classes(shapes, load_shapes):
    def images(label, **selection):
        part = load_shapes(**selection)
        chosen = part.train_labels == part.classes.index(label)
        return {image.tobytes() for image in part.train_images[chosen].numpy()}

    few = images("disc", per_class=10)
    assert len(few) == 10
    assert few < images("disc", per_class=30)
    assert few == images("disc", per_class=10, classes=["disc", "star"])
    # Nor is the draw of one seed and class that of another seed and class.
    positions = [data._draw_images(shapes, *key) // 10 for key in ((0, 9, 1), (1, 9, 0))]
    assert not torch.equal(*positions)


def test_more_than_there_are(load_shapes):
    with pytest.raises(ValueError, match="class 'arrow' of shapes has 500 training images"):
        load_shapes(per_class=501)
    assert len(load_shapes(per_class=500).train_images) == 5000
    with pytest.raises(ValueError, match="classes=11: shapes has 10"):
        load_shapes(classes=11)
    with pytest.raises(ValueError, match=r"no 'Disc', 'egg'; accepted are arrow, crescent"):
        load_shapes(classes=["Disc", "star", "egg"])


@pytest.mark.parametrize("size", [12, 32, 45])
def test_resizing_is_that_of_torchvision(size, shapes, load_shapes, monkeypatch):
    monkeypatch.setattr(source, "VALUES_PER_CHUNK", 300 * 3 * 32 * 32)  # so there are several
    resized = load_shapes(size=size, classes=["disc", "star"])
    original = shapes.train_images[torch.isin(shapes.train_labels, torch.tensor([3, 8]))]
    assert resized.size == size
    assert resized.train_images.shape == (1000, 3, size, size)
    for i in (0, 499, 999):
        expected = resize(original[i], [size, size], antialias=True)
        assert torch.equal(resized.train_images[i], expected)


def test_fingerprint_knows_size_and_choice(load_shapes):
    different = [
        load_shapes(),
        load_shapes(size=16),
        load_shapes(per_class=5),
        load_shapes(per_class=5, size=16),
        load_shapes(per_class=5, seed=1),
        load_shapes(classes=["disc", "star"]),
        load_shapes(classes=["disc", "cross"]),
    ]
    assert len({part.fingerprint for part in different}) == len(different)
    # Other words for the same content.
    whole = different[0].fingerprint
    assert load_shapes(size=32).fingerprint == whole
    assert load_shapes(classes=10, seed=5).fingerprint == whole
    assert load_shapes(per_class=500, seed=5).fingerprint == whole


def test_fingerprint_knows_where_a_tensor_ends():
    a, b = torch.tensor([1, 2]), torch.tensor([3])
    assert source.fingerprint_of("", a, b) != source.fingerprint_of("", torch.tensor([1]), a + 1)
    expected = hashlib.sha256(b'"x"' + b"(1,)" + bytes([3, 0, 0, 0, 0, 0, 0, 0])).hexdigest()
    assert source.fingerprint_of("x", b) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"name": "mnist"}, ValueError, r"'mnist': accepted are shapes, cifar10.*folder:PATH"),
        ({"name": "folder:"}, ValueError, "accepted are"),
        ({"name": 10}, ValueError, "name=10: accepted are"),
        ({"size": 3}, ValueError, "size=3: accepted is an integer from 4 to 1024"),
        ({"size": 100000}, ValueError, "size=100000: accepted is an integer from 4 to 1024"),
        ({"size": 32.0}, TypeError, r"size=32\.0"),
        ({"size": True}, TypeError, "size=True"),
        ({"classes": 1}, ValueError, "classes=1: accepted is an integer of at least 2"),
        ({"classes": True}, TypeError, "classes=True"),
        ({"classes": "disc"}, TypeError, "classes='disc': accepted are None, a number or a list"),
        ({"classes": [3, 4]}, TypeError, r"classes=\[3, 4\]"),
        ({"classes": 2.5}, TypeError, r"classes=2\.5: accepted are None"),
        ({"classes": ["disc"]}, ValueError, "two or more different names"),
        ({"classes": ["disc", "star", "disc"]}, ValueError, "two or more different names"),
        ({"per_class": 0}, ValueError, "per_class=0: accepted is a positive integer"),
        ({"per_class": "5"}, TypeError, "per_class='5'"),
        ({"seed": -1}, ValueError, "seed=-1: accepted is an integer from 0 to 4294967295"),
        ({"seed": 2**32}, ValueError, r"seed=4294967296: accepted is an integer from 0"),
        ({"seed": None}, TypeError, "seed=None"),
        ({"unreadable": "ignore"}, ValueError, "unreadable='ignore': accepted are error, skip"),
    ],
)
def test_arguments_are_checked_before_any_work(arguments, error, match, tmp_path, monkeypatch):
    for source in ("load_shapes", "load_cifar", "load_imagenette", "load_folder"):
        monkeypatch.setattr(data, source, _must_not_run)
    with pytest.raises(error, match=match):
        load_dataset(**{"name": "shapes", "root": tmp_path / "root", **arguments})


def test_dataset_moves_and_prints_without_its_tensors(dataset):
    assert dataset.size == 16
    moved = dataset.to("meta")
    assert moved.train_images.device.type == moved.test_labels.device.type == "meta"
    assert (moved.name, moved.fingerprint) == (dataset.name, dataset.fingerprint)
    assert repr(dataset) == (
        f"Dataset(name='colours', classes=('red', 'green'), fingerprint='{'0' * 64}', skipped=0)"
    )


def test_to_another_process_it_goes_whole():
    shapes = load_dataset("shapes", size=8, per_class=3)
    state = shapes.__getstate__()
    assert all(isinstance(state[name], np.ndarray) for name in ("train_images", "test_labels"))
    copy = pickle.loads(pickle.dumps(shapes))
    assert (copy.name, copy.classes, copy.fingerprint) == (
        shapes.name, shapes.classes, shapes.fingerprint,
    )  # fmt: skip
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(copy, name), getattr(shapes, name))
    copy.train_images[0] = 0  # its own, and writable
    assert shapes.train_images[0].any()
