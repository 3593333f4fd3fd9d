import hashlib
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from eca_lab import data
from eca_lab.data.dataset import TENSORS, fingerprint_of

load = partial(data.load_dataset, "shapes")


@pytest.fixture(scope="module")
def shapes():
    return load()


def test_classes_by_name_are_renumbered_in_the_order_of_the_data_set(shapes):
    part = load(classes=["star", "cross", "disc"])
    assert part.classes == ("cross", "disc", "star")
    labels = torch.tensor([2, 3, 8])
    for split in ("train", "test"):
        images, numbers = getattr(part, f"{split}_images"), getattr(part, f"{split}_labels")
        kept = torch.isin(getattr(shapes, f"{split}_labels"), labels)
        assert torch.equal(images, getattr(shapes, f"{split}_images")[kept])
        assert torch.equal(labels[numbers], getattr(shapes, f"{split}_labels")[kept])


def test_a_number_of_classes_is_drawn():
    draw, same, more = (load(classes=number) for number in (3, 3, 5))
    assert len(draw.classes) == 3
    assert draw.train_labels.max() == 2
    assert draw.fingerprint == same.fingerprint
    assert set(draw.classes) < set(more.classes)


def test_images_per_class_are_drawn(shapes):
    part, same = (load(per_class=20) for _ in range(2))
    assert part.train_labels.bincount().tolist() == [20] * 10
    assert part.fingerprint == same.fingerprint
    # Each with its own label, and no image twice.
    where = {image.tobytes(): i for i, image in enumerate(shapes.train_images.numpy())}
    indices = [where[image.tobytes()] for image in part.train_images.numpy()]
    assert indices == sorted(set(indices))
    assert torch.equal(shapes.train_labels[indices], part.train_labels)
    assert torch.equal(part.test_images, shapes.test_images)


def test_draws_are_nested_and_do_not_depend_on_the_other_classes():
    def discs(**selection):
        part = load(**selection)
        chosen = part.train_labels == part.classes.index("disc")
        return {image.tobytes() for image in part.train_images[chosen].numpy()}

    few = discs(per_class=10)
    assert len(few) == 10
    assert few < discs(per_class=30)
    assert few == discs(per_class=10, classes=["disc", "star"])


@pytest.mark.parametrize("size", [12, 45])
def test_resizing_is_that_of_torchvision(size, shapes):
    resized = load(size=size, per_class=100)
    assert resized.train_images.shape == (1000, 3, size, size)
    for i in (0, 1000, 1999):
        expected = resize(shapes.test_images[i], [size, size], antialias=True)
        assert torch.equal(resized.test_images[i], expected)


def test_fingerprint_knows_size_and_choice(shapes):
    different = [
        shapes,
        load(size=16, per_class=5),
        load(per_class=5),
        load(classes=["disc", "star"]),
        load(classes=["disc", "cross"]),
    ]
    assert len({part.fingerprint for part in different}) == len(different)
    # Other words for the same content.
    assert load(size=32, classes=10, per_class=500).fingerprint == shapes.fingerprint


def test_fingerprint_knows_where_a_tensor_ends():
    a, b = torch.tensor([1, 2]), torch.tensor([3])
    assert fingerprint_of("", a, b) != fingerprint_of("", a[:1], a + 1)
    expected = hashlib.sha256(b'"x"' + b"(1,)" + bytes([3, 0, 0, 0, 0, 0, 0, 0])).hexdigest()
    assert fingerprint_of("x", b) == expected


def test_more_than_there_are():
    with pytest.raises(ValueError, match="class 'arrow' of shapes has 500 training images"):
        load(per_class=501)
    with pytest.raises(ValueError, match="classes=11: accepted is an integer from 2 to 10"):
        load(classes=11)
    with pytest.raises(ValueError, match="classes='Disc': accepted are arrow, crescent"):
        load(classes=["star", "Disc"])


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "name='mnist': accepted are shapes, cifar10.*folder:PATH", {"name": "mnist"}),
        (ValueError, "name='folder:': accepted are", {"name": "folder:"}),
        (
            ValueError,
            "name='folder:~nosuchuser/x': .*; accepted is",
            {"name": "folder:~nosuchuser/x"},
        ),
        (ValueError, "name='folder:a.x00b': .*embedded null", {"name": "folder:a\0b"}),
        (ValueError, "name='folder:a.udcff': 'utf-8' codec", {"name": "folder:a\udcff"}),
        (ValueError, "size=3: accepted is an integer from 4 to 1024", {"size": 3}),
        (ValueError, "classes=1: accepted is an integer of at least 2", {"classes": 1}),
        (ValueError, "classes='disc': accepted are None, a number, or two", {"classes": "disc"}),
        (ValueError, r"classes=2\.5: accepted are None", {"classes": 2.5}),
        (ValueError, "two or more different names", {"classes": ["disc", "star", "disc"]}),
        (ValueError, "per_class=0: accepted is a positive integer", {"per_class": 0}),
    ],
)
def test_arguments_are_checked_before_any_work(error, match, arguments, monkeypatch):
    for source in (
        "load_shapes",
        "downloads.load_cifar",
        "downloads.load_imagenette",
        "folder.load_folder",
    ):
        monkeypatch.delattr(f"eca_lab.data.{source}")
    with pytest.raises(error, match=match):
        data.load_dataset(**{"name": "shapes", **arguments})


def test_dataset_moves_and_prints_without_its_tensors(dataset):
    moved = dataset.to("meta")
    assert moved.train_images.device.type == moved.test_labels.device.type == "meta"
    assert (moved.name, moved.fingerprint, moved.size) == (dataset.name, dataset.fingerprint, 16)
    assert repr(dataset) == (
        f"Dataset(name='colours', classes=('red', 'green'), fingerprint='{'0' * 64}', skipped=0)"
    )


def test_to_another_process_it_goes_as_arrays(dataset):
    state = dataset.__getstate__()
    assert all(isinstance(state[name], np.ndarray) for name in TENSORS)
    copy = pickle.loads(pickle.dumps(dataset))
    assert repr(copy) == repr(dataset)
    assert all(torch.equal(getattr(copy, name), getattr(dataset, name)) for name in TENSORS)
    copy.train_images[0] = 0  # its own, and writable
    assert dataset.train_images[0].any()
