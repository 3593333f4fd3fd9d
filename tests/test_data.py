import hashlib
import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2.functional import resize

from eca_lab import data
from eca_lab.data import (
    augment,
    channel_statistics,
    flip_and_crop,
    load_dataset,
    normalize,
    random_resized_crop,
)

SHAPES_FINGERPRINT = "6462b53e9691f3ca5c8ce92b45d64c50ec75076a5a36f5c4f2f62b6f682b65cc"


# --- The embedded set of shapes ---------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes")


@pytest.fixture
def load_shapes(shapes, monkeypatch):
    """load_dataset("shapes", ...) without drawing them anew."""
    source = data.replace(shapes, fingerprint="of the source")
    monkeypatch.setattr(data, "_shapes", lambda: source)
    return partial(load_dataset, "shapes")


def test_shapes_are_the_same_in_every_process(shapes):
    assert shapes.fingerprint == SHAPES_FINGERPRINT
    code = "from eca_lab.data import load_dataset; print(load_dataset('shapes').fingerprint)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [SHAPES_FINGERPRINT]


def test_shapes_leave_global_random_numbers_alone():
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    data._render_split(10, seed=0)
    assert np.random.random() == expected  # noqa: NPY002


def test_shapes_are_balanced_and_in_full_range(shapes):
    assert shapes.train_images.shape == (5000, 3, 32, 32)
    assert shapes.test_images.shape == (2000, 3, 32, 32)
    assert shapes.train_images.dtype == shapes.test_images.dtype == torch.uint8
    assert shapes.train_labels.bincount().tolist() == [500] * 10
    assert shapes.test_labels.bincount().tolist() == [200] * 10
    assert shapes.classes == (
        *("arrow", "crescent", "cross", "disc", "frame"),
        *("heart", "ring", "square", "star", "triangle"),
    )
    assert (shapes.size, shapes.skipped, shapes.name) == (32, 0, "shapes")
    mean, std = channel_statistics(shapes.train_images)
    assert ((mean > 0.4) & (mean < 0.6)).all()
    assert ((std > 0.15) & (std < 0.3)).all()


def test_shapes_do_not_repeat_images(shapes):
    images = torch.cat([shapes.train_images, shapes.test_images]).numpy()
    assert len({image.tobytes() for image in images}) == 7000


def test_outlines_of_shapes():
    x = np.linspace(-1.2, 1.2, 601)[None, :]
    area = {name: (shape(x, -x.T) < 0).mean() * 2.4**2 for name, shape in data._SHAPES.items()}
    assert area["disc"] == pytest.approx(np.pi * 0.9**2, rel=0.02)
    assert area["ring"] == pytest.approx(np.pi * (0.96**2 - 0.48**2), rel=0.02)
    assert area["square"] == pytest.approx(1.6**2, rel=0.02)
    assert area["frame"] == pytest.approx(1.74**2 - 0.86**2, rel=0.02)
    assert area["triangle"] == pytest.approx(27**0.5 * 0.55**2, rel=0.02)
    assert area["cross"] == pytest.approx(2 * 2 * 0.64 - 0.64**2, rel=0.02)
    assert all(1 < value < 2.8 for value in area.values())
    hollow = [name for name, shape in data._SHAPES.items() if shape(0.0, 0.0) > 0]
    assert hollow == ["crescent", "frame", "ring"]


# --- Choosing classes, images and a size ------------------------------------------------------


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
    monkeypatch.setattr(data, "_VALUES_PER_CHUNK", 300 * 3 * 32 * 32)  # so there are several
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
    assert data._fingerprint("", a, b) != data._fingerprint("", torch.tensor([1]), a + 1)
    expected = hashlib.sha256(b'"x"' + b"(1,)" + bytes([3, 0, 0, 0, 0, 0, 0, 0])).hexdigest()
    assert data._fingerprint("x", b) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"name": "mnist"}, ValueError, r"'mnist': accepted are shapes, cifar10.*folder:PATH"),
        ({"name": "folder:"}, ValueError, "accepted are"),
        ({"name": 10}, ValueError, "name=10: accepted are"),
        ({"size": 3}, ValueError, "size=3: accepted is an integer of at least 4"),
        ({"size": 32.0}, TypeError, r"size=32\.0"),
        ({"size": True}, TypeError, "size=True"),
        ({"classes": 1}, ValueError, "classes=1: accepted is an integer of at least 2"),
        ({"classes": True}, TypeError, "classes=True"),
        ({"classes": "disc"}, TypeError, "classes='disc': accepted are None, a number or a list"),
        ({"classes": [3, 4]}, TypeError, r"classes=\[3, 4\]"),
        ({"classes": 2.5}, TypeError, r"classes=2\.5: accepted are None"),
        ({"classes": ["disc"]}, ValueError, "two or more different names"),
        ({"classes": ["disc", "star", "disc"]}, ValueError, "two or more different names"),
        ({"per_class": 0}, ValueError, "per_class=0: accepted is an integer of at least 1"),
        ({"per_class": "5"}, TypeError, "per_class='5'"),
        ({"seed": -1}, ValueError, "seed=-1: accepted is an integer of at least 0"),
        ({"seed": 2**32}, ValueError, r"seed=4294967296: accepted are integers below 2\^32"),
        ({"seed": None}, TypeError, "seed=None"),
        ({"unreadable": "ignore"}, ValueError, "'ignore': accepted are 'error' and 'skip'"),
    ],
)
def test_arguments_are_checked_before_any_work(arguments, error, match, tmp_path, monkeypatch):
    for source in ("_shapes", "_cifar", "_imagenette", "_folder"):
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


# --- Folders of images ------------------------------------------------------------------------


def _must_not_run(*args, **kwargs):
    raise AssertionError("this must not run here")


def _pixels(seed, height=8, width=8):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def _make_folder(folder, test="val", per_class=3):
    """Classes cat and dog with training images 0, 1, ... and test images 50, 51, ... as PNG."""
    for split, first, count in (("train", 0, per_class), (test, 50, 2)):
        for label, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(_pixels(100 * label + first + i))
                image.save(folder / split / name / f"{i:03}.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    return _make_folder(tmp_path / "pets")


@pytest.fixture
def load(tmp_path):
    """Loads a folder without a progress bar, with its cache under tmp_path/cache."""

    def load(folder, **arguments):
        root = arguments.pop("root", tmp_path / "cache")
        return load_dataset(f"folder:{folder}", root=root, progress=False, **arguments)

    return load


def _as_tensor(seeds):
    return torch.from_numpy(np.stack([_pixels(seed) for seed in seeds])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("test", ["val", "test"])
def test_folder_pixels_and_labels(test, tmp_path, load):
    folder = _make_folder(tmp_path / "pets", test)
    for _ in ("decoded", "from the cache"):
        pets = load(folder)
        assert torch.equal(pets.train_images, _as_tensor([0, 1, 2, 100, 101, 102]))
        assert torch.equal(pets.test_images, _as_tensor([50, 51, 150, 151]))
        assert pets.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert pets.test_labels.tolist() == [0, 0, 1, 1]
        assert pets.classes == ("cat", "dog")
        assert (pets.name, pets.skipped, pets.size) == ("pets", 0, 8)


def test_folder_with_test_and_val_is_tested_on_test(folder, load):
    shutil.copytree(folder / "val", folder / "test")
    Image.fromarray(_pixels(7)).save(folder / "test" / "cat" / "000.png")
    assert torch.equal(load(folder).test_images, _as_tensor([7, 51, 150, 151]))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "RGBA", "P", "CMYK"])
def test_images_become_rgb(mode, folder, load):
    image = Image.fromarray(_pixels(5)).convert(mode)
    path = folder / "train" / "cat" / ("000.tif" if mode == "CMYK" else "000.png")
    (folder / "train" / "cat" / "000.png").unlink()
    image.save(path)
    expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(load(folder).train_images[0], expected)
    if mode == "L":
        assert torch.equal(expected[0], expected[1])


def test_jpeg_is_decoded_and_turned_upright(folder, load):
    """Orientation 6: what is stored on the left is shown at the top."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(pixels)
    image.save(folder / "train" / "cat" / "a.jpg", exif=exif, quality=95, subsampling=0)
    image.save(folder / "train" / "cat" / "b.jpg", quality=95, subsampling=0)
    turned, stored = load(folder).train_images[3:5].float()
    assert turned[:, :4].max() < 10
    assert turned[:, 4:].min() > 245
    assert stored[..., :4].max() < 10
    assert stored[..., 4:].min() > 245


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20)])
def test_images_that_are_not_square_lose_their_sides(height, width, folder, load):
    pixels = _pixels(5, height, width)
    Image.fromarray(pixels).save(folder / "train" / "cat" / "000.png")
    shrunk = resize(torch.from_numpy(pixels).permute(2, 0, 1), [10], antialias=True)
    assert shrunk.shape[1:] == (10, 15) if width > height else (15, 10)
    # torchvision rounds the margin of 2.5 pixels to the even 2.
    expected = shrunk[:, :, 2:12] if width > height else shrunk[:, 2:12]
    load(folder, size=12)  # has a cache of its own
    loaded = load(folder, size=10)
    assert torch.equal(loaded.train_images[0], expected)
    upright = resize(_as_tensor([1])[0], [10, 10], antialias=True)
    assert torch.equal(loaded.train_images[1], upright)


@pytest.mark.parametrize(("height", "width"), [(8, 9), (16, 16)])
def test_images_of_different_sizes_need_a_size(height, width, folder, load, tmp_path):
    path = folder / "val" / "dog" / "001.png"
    Image.fromarray(_pixels(5, height, width)).save(path)
    with pytest.raises(ValueError, match=rf"{path} is {width} x {height}; give a size"):
        load(folder)
    assert list((tmp_path / "cache").iterdir()) == []
    assert load(folder, size=8).test_images.shape == (4, 3, 8, 8)


def test_images_of_one_size_that_are_not_square_need_a_size(folder, load):
    for path in folder.rglob("*.png"):
        Image.fromarray(_pixels(5, 8, 9)).save(path)
    with pytest.raises(ValueError, match="is 9 x 8; give a size"):
        load(folder)


def test_second_load_neither_decodes_nor_writes(folder, load, monkeypatch):
    namesake = _make_folder(folder.parent / "other" / "pets", per_class=2)
    first, small, other = load(folder), load(folder, size=4), load(namesake)
    for function in ("_decode", "_check_writable", "_write_cache"):
        monkeypatch.setattr(data, function, _must_not_run)
    assert load(folder).fingerprint == first.fingerprint
    assert load(folder, size=4).fingerprint == small.fingerprint != first.fingerprint
    assert load(namesake).fingerprint == other.fingerprint != first.fingerprint
    assert torch.equal(load(folder).train_images, first.train_images)
    monkeypatch.chdir(folder.parent)
    assert load("pets").fingerprint == first.fingerprint


def test_cached_images_can_be_written_to_without_changing_the_cache(folder, load):
    load(folder).train_images.zero_()
    assert torch.equal(load(folder).train_images[0], _as_tensor([0])[0])


def _change(folder):
    path = folder / "train" / "cat" / "001.png"
    before = path.stat()
    pixels = _pixels(1)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    # As fast file systems may show it: the clock has moved on by no more than a nanosecond.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def _add(folder):
    Image.fromarray(_pixels(9)).save(folder / "val" / "dog" / "009.png")


def _remove(folder):
    (folder / "val" / "dog" / "001.png").unlink()


def _relabel(folder):
    # From the end of one class to the start of the next, so that the order stays.
    shutil.move(folder / "train" / "cat" / "002.png", folder / "train" / "dog" / "!.png")


def _rename_class(folder):
    for split in ("train", "val"):
        (folder / split / "cat").rename(folder / split / "cow")


@pytest.mark.parametrize("edit", [_change, _add, _remove, _relabel, _rename_class])
def test_edited_folder_is_decoded_again(edit, folder, load, tmp_path):
    before = load(folder)
    edit(folder)
    after = load(folder)
    assert after.fingerprint != before.fingerprint
    assert after.fingerprint == load(folder, root=tmp_path / "other").fingerprint
    assert torch.equal(after.train_images, load(folder, root=tmp_path / "other").train_images)


def test_fingerprint_of_a_folder_is_that_of_its_content(folder, load, tmp_path):
    before = load(folder)
    moved = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copy)
    (moved / "val").rename(moved / "test")
    os.utime(moved / "train" / "cat" / "000.png", ns=(0, 0))
    assert load(moved).fingerprint == before.fingerprint
    assert load(moved, size=8).fingerprint == before.fingerprint
    # From the end of one split to the start of the other.
    (moved / "train" / "dog" / "002.png").rename(moved / "test" / "cat" / "!.png")
    assert load(moved).fingerprint != before.fingerprint


@pytest.fixture
def damaged(folder):
    """The folder with an image cut short, one that is none, and one of 16 bits a channel."""
    path = folder / "train" / "cat" / "001.png"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "train" / "dog" / "000.png").write_text("not an image")
    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    deep.save(folder / "val" / "dog" / "001.png")
    return folder


def test_unreadable_image_is_an_error_that_names_it(damaged, load, tmp_path):
    match = r'unreadable image .*pets/train/cat/001\.png: .*unreadable="skip" leaves'
    with pytest.raises(ValueError, match=match):
        load(damaged)
    assert list((tmp_path / "cache").iterdir()) == []


def test_unreadable_images_are_skipped_and_counted(damaged, load, monkeypatch):
    for source in ("decoded", "from the cache"):
        if source == "from the cache":
            monkeypatch.setattr(data, "_decode", _must_not_run)
        pets = load(damaged, unreadable="skip")
        assert pets.skipped == 3
        assert torch.equal(pets.train_images, _as_tensor([0, 2, 101, 102]))
        assert torch.equal(pets.test_images, _as_tensor([50, 51, 150]))
        assert pets.train_labels.tolist() == [0, 0, 1, 1]
        assert pets.test_labels.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"unreadable image .*train/cat/001\.png"):
        load(damaged)


def test_sixteen_bits_a_channel_are_not_clipped_silently(damaged, load):
    for path in ("train/cat/001.png", "train/dog/000.png"):
        (damaged / path).unlink()
    with pytest.raises(ValueError, match=r"001\.png: mode I;16; accepted are 8 bits a channel"):
        load(damaged)


def test_class_without_a_readable_image(folder, load):
    for path in (folder / "val" / "dog").iterdir():
        path.write_text("not an image")
    with pytest.raises(ValueError, match="val/dog: none of the images can be read"):
        load(folder, unreadable="skip")


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (shutil.rmtree, FileNotFoundError, "pets: no such folder"),
        (lambda path: shutil.rmtree(path / "train"), FileNotFoundError, "pets: .* no train/;"),
        (lambda path: shutil.rmtree(path / "val"), FileNotFoundError, "or val/, which hold"),
        (lambda path: _empty(path / "val/cat"), ValueError, "val/cat: no images; accepted .*jpg"),
        (lambda path: _empty(path / "train/dog"), ValueError, "train/dog: no images"),
        (
            lambda path: (path / "val/dog").rename(path / "val/cow"),
            ValueError,
            "pets: .* differ; only in train/: dog; only in val/: cow",
        ),
        (
            lambda path: (path / "train/eel").mkdir(),
            ValueError,
            "only in train/: eel; only in val/: none",
        ),
    ],
)
def test_unusable_folder(edit, error, match, folder, load, monkeypatch):
    monkeypatch.setattr(data, "_decode", _must_not_run)
    edit(folder)
    with pytest.raises(error, match=match):
        load(folder)


def _empty(folder):
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))


def test_root_that_cannot_be_written(folder, load, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_decode", _must_not_run)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"root='.*file': no files can be written there"):
        load(folder, root=tmp_path / "file")


def test_interrupted_decoding_leaves_nothing(folder, load, tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_interrupted_writing_leaves_the_old_cache_or_none(folder, load, tmp_path, monkeypatch):
    def interrupted(content, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(folder)
        assert list((tmp_path / "cache").iterdir()) == []
    before = load(folder)
    (cache,) = (tmp_path / "cache").iterdir()
    written = cache.read_bytes()
    _add(folder)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(folder)
    assert list((tmp_path / "cache").iterdir()) == [cache]
    assert cache.read_bytes() == written
    assert len(load(folder).test_images) == len(before.test_images) + 1


@pytest.mark.parametrize("damage", [b"", b"garbage", slice(-1), slice(None, 2000), pickle.dumps(1)])
def test_cache_that_cannot_be_read_is_made_again(damage, folder, load, tmp_path, monkeypatch):
    before = load(folder)
    (cache,) = (tmp_path / "cache").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(whole[damage] if isinstance(damage, slice) else damage)
    again = load(folder)
    assert again.fingerprint == before.fingerprint
    assert torch.equal(again.train_images, _as_tensor([0, 1, 2, 100, 101, 102]))
    monkeypatch.setattr(data, "_decode", _must_not_run)
    assert load(folder).fingerprint == before.fingerprint


def test_cache_from_another_version_is_made_again(folder, load, monkeypatch):
    load(folder)
    monkeypatch.setattr(data, "_CACHE_VERSION", data._CACHE_VERSION + 1)
    monkeypatch.setattr(data, "_decode_batch", _must_not_run)
    with pytest.raises(AssertionError):
        load(folder)


def test_decoding_in_parallel_gives_the_same(tmp_path, load, monkeypatch):
    folder = _make_folder(tmp_path / "pets", per_class=20)
    for i in (3, 4, 11):
        (folder / "train" / "dog" / f"{i:03}.png").write_text("not an image")
    alone = load(folder, unreadable="skip", root=tmp_path / "alone")
    # Batches that straddle classes and splits, for two processes.
    monkeypatch.setattr(data, "_FILES_PER_BATCH", 6)
    monkeypatch.setattr(data, "available_cores", lambda: 2)
    torch.manual_seed(0)
    together = load(folder, unreadable="skip", root=tmp_path / "together")
    following = torch.rand(1)
    torch.manual_seed(0)
    assert following == torch.rand(1)
    assert together.fingerprint == alone.fingerprint
    assert together.skipped == alone.skipped == 3
    for tensor in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(together, tensor), getattr(alone, tensor))


def test_progress_bar(folder, tmp_path, capsys):
    load_dataset(f"folder:{folder}", root=tmp_path / "a", progress=False)
    assert capsys.readouterr().err == ""
    load_dataset(f"folder:{folder}", root=tmp_path / "b")
    assert "Decoding pets: 100%" in capsys.readouterr().err


# --- CIFAR and Imagenette, through torchvision's own download ---------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An HTTP server on this machine: (folder that it serves, its address, requests so far).

    torchvision's download does not read file:// addresses.
    """
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=[0.01])
        thread.start()
        yield served, f"http://127.0.0.1:{httpd.server_port}", requests
        httpd.shutdown()
        thread.join()


def _archive(path, files):
    """Write a .tar.gz of {name: bytes}; returns its MD5."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return _md5(path.read_bytes())


def _md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, server, monkeypatch):
    """A small archive in the format of CIFAR: (name, {split: rows of pixels}, {split: labels})."""
    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    kind = kind[request.param]
    key, count = ("labels", 10) if request.param == "cifar10" else ("fine_labels", 100)
    random = np.random.RandomState(count)
    files, pixels, labels = {}, {"train": [], "test": []}, {"train": [], "test": []}
    for split, entries in (("train", kind.train_list), ("test", kind.test_list)):
        for name, _ in entries:
            rows = random.randint(0, 256, (2 * count, 3072), np.uint8)
            drawn = random.permutation(np.arange(2 * count) % count).tolist()
            files[name] = pickle.dumps({"data": rows, key: drawn, "coarse_labels": None})
            pixels[split].append(rows)
            labels[split] += drawn
    names = [f"class {i}" for i in range(count)]
    files[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: names})
    served, address, _ = server
    in_folder = {f"{kind.base_folder}/{name}": content for name, content in files.items()}
    monkeypatch.setattr(kind, "tgz_md5", _archive(served / kind.filename, in_folder))
    monkeypatch.setattr(kind, "url", f"{address}/{kind.filename}")
    for entries in ("train_list", "test_list"):
        sums = [[name, _md5(files[name])] for name, _ in getattr(kind, entries)]
        monkeypatch.setattr(kind, entries, sums)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": _md5(files[kind.meta["filename"]])})
    return request.param, {split: np.concatenate(rows) for split, rows in pixels.items()}, labels


def test_cifar(cifar, server, tmp_path):
    name, pixels, labels = cifar
    loaded = load_dataset(name, root=tmp_path / "new" / "root")
    for split in ("train", "test"):
        images = getattr(loaded, f"{split}_images")
        # A row of CIFAR is 1024 red values, then green and blue, each row by row.
        assert images.is_contiguous()
        assert np.array_equal(images.numpy(), pixels[split].reshape(-1, 3, 32, 32))
        assert getattr(loaded, f"{split}_labels").tolist() == labels[split]
    assert loaded.classes == tuple(f"class {i}" for i in range(len(set(labels["test"]))))
    assert (loaded.name, loaded.size, loaded.skipped) == (name, 32, 0)

    _, _, requests = server
    assert requests
    requests.clear()
    assert load_dataset(name, root=tmp_path / "new" / "root").fingerprint == loaded.fingerprint
    assert requests == []
    assert load_dataset(name, root=tmp_path / "other").fingerprint == loaded.fingerprint


@pytest.mark.parametrize("change", ["data", "targets", "classes"])
def test_fingerprint_of_cifar_is_that_of_its_content(change, cifar, tmp_path, monkeypatch):
    name, _, _ = cifar
    before = load_dataset(name, root=tmp_path)
    kind = getattr(torchvision.datasets, name.upper())

    class Changed(kind):
        def __init__(self, root, train, **arguments):
            super().__init__(root, train, **arguments)
            if change == "data" and not train:
                self.data = self.data.copy()
                self.data[-1, -1, -1, -1] ^= 1
            elif change == "targets" and not train:
                self.targets[-1] = (self.targets[-1] + 1) % 10
            elif change == "classes":
                self.classes = ["first", *self.classes[1:]]

    monkeypatch.setattr(torchvision.datasets, name.upper(), Changed)
    assert load_dataset(name, root=tmp_path).fingerprint != before.fingerprint


def test_damaged_cifar_is_restored(cifar, tmp_path):
    name, _, _ = cifar
    before = load_dataset(name, root=tmp_path)
    path = next(path for path in tmp_path.rglob("*") if path.name in ("data_batch_2", "train"))
    path.write_bytes(path.read_bytes()[:-1])
    assert load_dataset(name, root=tmp_path).fingerprint == before.fingerprint


@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_download_into_a_root_that_cannot_be_written(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="no files can be written there"):
        load_dataset(name, root=tmp_path / "file")


WNIDS = tuple(torchvision.datasets.Imagenette._WNID_TO_CLASS)


@pytest.fixture
def serve_imagenette(server, monkeypatch):
    """Serve a small archive in the place of one of Imagenette's; the others are not there."""

    def serve(archive):
        stem = {"160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"}
        served, address, _ = server
        files = {}
        for split, first in (("train", 0), ("val", 50)):
            for label, wnid in enumerate(WNIDS):
                content = io.BytesIO()
                Image.fromarray(_pixels(first + label, 12, 15)).save(content, "JPEG")
                files[f"{stem[archive]}/{split}/{wnid}/{wnid}_0.JPEG"] = content.getvalue()
        md5 = _archive(served / f"{stem[archive]}.tgz", files)
        archives = {
            name: (f"{address}/{stem[name]}.tgz", md5 if name == archive else "0" * 32)
            for name in stem
        }
        monkeypatch.setattr(torchvision.datasets.Imagenette, "_ARCHIVES", archives)
        return files

    return serve


def test_imagenette(serve_imagenette, server, tmp_path, monkeypatch):
    files = serve_imagenette("160px")
    loaded = load_dataset("imagenette", root=tmp_path / "root", size=12, progress=False)
    assert loaded.classes == (
        *("tench", "English springer", "cassette player", "chain saw", "church"),
        *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
    )
    assert loaded.train_labels.tolist() == loaded.test_labels.tolist() == list(range(10))
    for (name, content), image in zip(
        files.items(), torch.cat([loaded.train_images, loaded.test_images]), strict=True
    ):
        pixels = np.array(Image.open(io.BytesIO(content)))
        # 12 pixels high already: the centre of the 15 is cut out, with a margin of 1.5, or 2.
        assert np.array_equal(image.permute(1, 2, 0), pixels[:, 2:14]), name
    assert (loaded.name, loaded.skipped) == ("imagenette", 0)

    _, _, requests = server
    requests.clear()
    monkeypatch.setattr(data, "_decode", _must_not_run)
    again = load_dataset("imagenette", root=tmp_path / "root", size=12)
    assert again.fingerprint == loaded.fingerprint
    assert requests == []
    # No archive, no half-made folder.
    names = sorted(path.name.split("-12-")[0] for path in (tmp_path / "root").iterdir())
    assert names == ["imagenette2-160", "imagenette2-160"]


@pytest.mark.parametrize(
    ("size", "archive"), [(None, "160px"), (160, "160px"), (161, "320px"), (321, "full")]
)
def test_imagenette_comes_from_the_smallest_archive(size, archive, serve_imagenette, tmp_path):
    serve_imagenette(archive)
    loaded = load_dataset("imagenette", root=tmp_path / "root", size=size, progress=False)
    assert loaded.size == (size or 160)


def test_interrupted_imagenette_starts_anew(serve_imagenette, tmp_path, monkeypatch):
    serve_imagenette("160px")

    def interrupted(archive, folder, remove_finished):
        Path(folder, "imagenette2-160", "train", WNIDS[0]).mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torchvision.datasets.utils, "extract_archive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("imagenette", root=tmp_path / "root", size=12)
    assert list((tmp_path / "root").iterdir()) == []
    assert len(load_dataset("imagenette", root=tmp_path / "root", size=12).classes) == 10


# --- Augmentation and normalisation -----------------------------------------------------------


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
    monkeypatch.setattr(data, "_VALUES_PER_CHUNK", 1000)
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
