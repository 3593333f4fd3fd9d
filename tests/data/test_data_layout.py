"""The layouts in which the usual data sets come, or are left by their usual scripts."""

import errno
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eca_lab.data import load_dataset

WNIDS = ("n01440764", "n01443537", "n01484850")
FLAT_VAL = [f"val/ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 8)]


def _write(folder, paths):
    """Images of 8 x 8, each its own; of what is named otherwise, a few bytes; folders end in /."""
    for seed, path in enumerate(paths):
        if path.endswith("/"):
            (folder / path).mkdir(parents=True, exist_ok=True)
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if path.lower().endswith((".jpg", ".jpeg", ".png")):
            pixels = np.random.RandomState(seed).randint(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / path)
        else:
            (folder / path).write_text(f"{seed}")
    return folder


def _classes(split, classes=WNIDS, name="{}_{}.JPEG", count=2):
    return [f"{split}/{each}/{name.format(each, i)}" for each in classes for i in range(count)]


@pytest.fixture
def load(tmp_path):
    def load(folder, **arguments):
        return load_dataset(f"folder:{folder}", root=tmp_path / "cache", **arguments)

    return load


TINY = [f"train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(2)]
TINY += [f"train/{wnid}/{wnid}_boxes.txt" for wnid in WNIDS] + ["wnids.txt", "words.txt"]
TINY_TEST = [f"test/images/test_{i}.JPEG" for i in range(4)]
IMAGENET = _classes("train") + _classes("val")


@pytest.mark.parametrize(
    ("paths", "split"),
    [
        # CIFAR-10 as PNG, and as fast.ai has it.
        (_classes("train", name="{1:04}.png") + _classes("test", name="{1:05}.png"), "test"),
        ([*_classes("train"), *_classes("test"), "labels.txt"], "test"),
        (IMAGENET, "val"),
        # As torchvision leaves it.
        ([*IMAGENET, "meta.bin", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"], "val"),
        # Sorted by scripts that leave the folder empty, or the lines of the classes.
        ([*TINY, *_classes("val", name="images/{}_{}.JPEG"), "val/images/"], "val"),
        ([*TINY, *_classes("val"), "val/val_annotations.txt"], "val"),
        ([*IMAGENET, "noisy_imagenette.csv"], "val"),
        ([*_classes("train", "123"), *_classes("test", "123"), "unlabeled/1.png"], "test"),
    ],
)
def test_layouts_that_are_read(paths, split, tmp_path, load):
    data = load(_write(tmp_path / "set", paths))
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    (tmp_path / "set" / split).rename(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="val: no such folder"):
        load(tmp_path / "set")


def _tiny_imagenet(folder):
    """As it is unpacked: the classes of val/images in a file, in another order."""
    _write(folder, [*TINY, *TINY_TEST, *(f"val/images/val_{i}.JPEG" for i in range(4))])
    labels = {"val_0.JPEG": WNIDS[2], "val_1.JPEG": WNIDS[0], "val_2.JPEG": WNIDS[1]}
    labels["val_3.JPEG"] = WNIDS[0]
    lines = [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in labels.items()]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return labels


def test_tiny_imagenet_as_unpacked_is_that_of_sorted_folders(tmp_path, load):
    labels = _tiny_imagenet(tmp_path / "tiny")
    with pytest.warns(UserWarning, match=r"test/ holds 1 folder \(images\).* those of val/\.$"):
        unpacked = load(tmp_path / "tiny")
    assert unpacked.test_labels.tolist() == [0, 0, 1, 2]
    shutil.rmtree(tmp_path / "tiny" / "test")
    for name, wnid in labels.items():
        place = tmp_path / "tiny" / "val" / wnid / "images"
        place.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiny" / "val" / "images" / name).rename(place / name)
    assert load(tmp_path / "tiny").fingerprint == unpacked.fingerprint


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("val_4.JPEG\tn01440764\t0", r"val_annotations.txt: val_4.JPEG either without a line or"),
        ("val_0.JPEG\tn09999999\t0", r"n01484850, n09999999 in one split only; accepted are the"),
    ],
)
def test_annotations_that_do_not_fit(line, match, tmp_path, load):
    _tiny_imagenet(tmp_path / "tiny")
    with open(tmp_path / "tiny" / "val" / "val_annotations.txt", "a") as file:
        file.write(line)
    with (
        pytest.warns(UserWarning, match="those of val"),
        pytest.raises(ValueError, match=match) as error,
    ):
        load(tmp_path / "tiny")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("test", [["test/"], ["test/1.JPEG"], ["test/images/1.JPEG"]])
def test_a_test_split_without_labels_is_passed_over(test, tmp_path, load):
    before = load(_write(tmp_path / "set", IMAGENET))
    _write(tmp_path / "set", test)
    with pytest.warns(UserWarning, match=r"test/ holds .*The test images are those of val/\."):
        after = load(tmp_path / "set")
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("paths", "match"),
    [
        # CIFAR
        (["cifar-10-batches-py/data_batch_1"], r"into \S+/cache, and give cifar10 in place of"),
        (
            ["data_batch_1", "test_batch"],
            r"CIFAR-10 as it is downloaded: move .*give cifar10",
        ),
        (["train", "test", "meta"], r"CIFAR-100 as it is downloaded: move .*give cifar100"),
        (["cifar-10-python.tar.gz"], r"1 archive \(cifar-10-python.tar.gz\).*give cifar10"),
        (["data_batch_1.bin", "test_batch.bin"], "binary version of CIFAR-10 is not read"),
        (["train.bin", "test.bin"], "binary version of CIFAR-100 is not read"),
        (
            [*(f"train/{i}.png" for i in range(1, 8)), "test/1.png", "trainLabels.csv"],
            r"classes=\[\].*train holds 7 images \(1.png, 2.png, 3.png, …\)\. Move each image",
        ),
        # ImageNet
        (["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"], r"'val'\) unpack these arch"),
        (
            [f"train/{wnid}.tar" for wnid in WNIDS],
            r"train holds 3 archives \(n01440764.tar, .*into a folder of its name: cd \S+/train; ",
        ),
        (
            _classes("train") + FLAT_VAL,
            r"val/ holds 7 images \(ILSVRC2012_val_00000001.JPEG, .*class of train/, which are "
            r"n01440764, n01443537, n01484850\. Run valprep.sh, .* in \S+/val: it moves each",
        ),
        (
            [*_classes("train"), *FLAT_VAL, "test/ILSVRC2012_test_00000001.JPEG"],
            r"test/ holds 1 image \(ILS.*; val/ holds 7 images.*Run valprep.sh",
        ),
        (
            [*IMAGENET, "val/ILSVRC2012_val_00000001.JPEG"],
            r"set/val: ILSVRC2012_val_00000001.JPEG beside the folders of the classes; move",
        ),
        (
            ["ILSVRC/Data/CLS-LOC/train/n01440764/1.JPEG", "ILSVRC/ImageSets/CLS-LOC/train.txt"],
            r"set: 1 folder \(ILSVRC\). Is folder:\S+/ILSVRC/Data/CLS-LOC meant\?",
        ),
        (_classes("training") + _classes("validation"), r"2 folders \(training, validation\)"),
        (_classes("train") + _classes("valid"), r"2 folders \(train, valid\)\. Rename what is"),
        (_classes("train") + _classes("val", "012"), r"holds 3 folders \(0, 1, 2\)\. Accepted is"),
        (["imagenette2.tgz"], r"1 archive \(imagenette2.tgz\)\. Unpack the archives first\."),
        ([*_classes("train"), "val/images/1.png"], r"val/ holds 1 folder \(images\).*Move each"),
        # STL-10
        (["stl10_binary/train_X.bin"], "STL-10 is not read: .*save its images as train/CLASS/"),
        (["train_images/1.png", "test_images/1.png"], "Rename train_images to train and"),
        # ImageNet-100
        (
            [*_classes("train.X1"), *_classes("train.X2"), *_classes("val.X"), "Labels.json"],
            r"3 folders \(train.X1, .*mkdir train && mv train.X\*/\* train/ && mv val.X val",
        ),
        # Classes without splits, an empty folder.
        ([f"{wnid}/1.JPEG" for wnid in WNIDS], r"3 folders \(n01440764, .*no split is made"),
        (["__MACOSX/set/train/a/1.JPEG"], r"Found in \S+/set: nothing\."),
    ],
)
def test_layouts_that_are_refused(paths, match, tmp_path, load):
    _write(tmp_path / "set", paths)
    with pytest.raises((ValueError, FileNotFoundError), match=match) as error:
        load(tmp_path / "set")
    assert "\n" not in str(error.value)


def test_a_split_or_a_file_in_place_of_the_folder(tmp_path, load):
    folder = _write(tmp_path / "set", [*IMAGENET, "cifar-10-python.tar.gz"])
    with pytest.raises(FileNotFoundError, match=rf"Give the folder above it: folder:{folder}$"):
        load(folder / "train")
    with pytest.raises(NotADirectoryError, match=r"tar.gz: a file; .*give cifar10 in place"):
        load(folder / "cifar-10-python.tar.gz")
    with pytest.raises(NotADirectoryError, match=r"meta.bin: a file; .*Unpack it, if"):
        load(_write(folder, ["meta.bin"]) / "meta.bin")
    with pytest.raises(FileNotFoundError, match="set/none: no such folder; accepted is one with"):
        load(folder / "none")


def test_a_thousand_classes_are_not_listed(tmp_path, load):
    many = [f"n{i:08}" for i in range(1000)]
    folder = _write(tmp_path / "set", [f"train/{each}/" for each in many])
    few = [f"val/{each}/{i}.png" for each in many[:2] for i in range(2)]
    _write(folder, few)
    match = r"998 \(n00000002, n00000003, n00000004, …\) in one split only: train/ has 998 \("
    with pytest.raises(ValueError, match=match) as error:
        load(folder)
    assert len(str(error.value)) < 500
    shutil.rmtree(folder / "val")
    with pytest.raises(ValueError, match=r"class of train/, which are 1,000 \(n0") as error:
        load(_write(folder, FLAT_VAL))
    assert len(str(error.value)) < 1000


def test_what_systems_leave_is_neither_class_nor_image(tmp_path, load):
    before = load(_write(tmp_path / "set", IMAGENET))
    left = ["train/.ipynb_checkpoints/a.png", "val/__MACOSX/n01440764/b.png", "train/.DS_Store"]
    left += [f"train/{WNIDS[0]}/{name}" for name in ("._x.jpg", ".ipynb_checkpoints/c.png")]
    left += [f"train/{WNIDS[1]}/@eaDir/d.jpg", f"val/{WNIDS[2]}/Thumbs.db", "__MACOSX/train/"]
    _write(tmp_path / "set", left)
    after = load(tmp_path / "set")
    assert after.fingerprint == before.fingerprint
    assert after.skipped == 0


@pytest.mark.parametrize("name", ["x.jfif", "x.GIF", "x.Avif", "x.heic"])
def test_images_of_other_endings_are_told_and_skipped(name, tmp_path, load):
    before = load(_write(tmp_path / "set", IMAGENET))
    _write(tmp_path / "set", [f"train/{WNIDS[0]}/{name}"])
    match = rf"1 unreadable of 13 images, the first \S+/{name}: accepted are files that end in \.jp"
    with pytest.raises(ValueError, match=match):
        load(tmp_path / "set")
    after = load(tmp_path / "set", skip_unreadable=True)
    assert after.skipped == 1
    assert after.fingerprint == before.fingerprint


def test_a_class_of_other_endings_alone(tmp_path, load):
    paths = [*IMAGENET, "train/cat/x.gif", "train/cat/y.GIF", "val/cat/1.png"]
    with pytest.raises(ValueError, match=r"train/cat: no images but x.gif, y.GIF, which are not r"):
        load(_write(tmp_path / "set", paths), skip_unreadable=True)


def test_test_images_that_are_training_images_are_told(tmp_path, load):
    folder = _write(tmp_path / "set", IMAGENET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder)
    for i in range(2):
        shutil.copy(folder / "train" / WNIDS[0] / f"{WNIDS[0]}_{i}.JPEG", folder / "val" / WNIDS[1])
    first = folder / "val" / WNIDS[1] / f"{WNIDS[0]}_0.JPEG"
    match = rf"set: 2 of 8 test images are training images, too, the first {first}"
    for _ in ("decoded", "from the cache"):
        with pytest.warns(UserWarning, match=match):
            load(folder)


def test_a_changed_image_of_equal_size_and_time_is_noticed(tmp_path, load):
    folder = _write(tmp_path / "set", [path.replace("JPEG", "bmp") for path in IMAGENET])
    for seed, path in enumerate(folder.rglob("*.bmp")):
        Image.new("RGB", (8, 8), (seed, 0, 0)).save(path)
    before = load(folder)
    times = path.stat()
    Image.new("RGB", (8, 8), "white").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert load(folder).fingerprint != before.fingerprint


def test_a_class_behind_a_dead_link(tmp_path, load):
    folder = _write(tmp_path / "set", IMAGENET)
    for split in ("train", "val"):
        (folder / split / "cat").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match="set/train: cat leads nowhere; mend or remove"):
        load(folder)


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path, load, monkeypatch):
    folder = _write(tmp_path / "set", [*IMAGENET, f"train/{WNIDS[0]}/more/a.png"])
    scandir = os.scandir

    def refuse(place):  # to root, everything may be listed
        if Path(place).name == "more":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=rf"{WNIDS[0]}/more"):
        load(folder)
