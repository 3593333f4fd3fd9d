import os
import resource
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import resize

from eca_lab.data import folder as module
from eca_lab.data import load_dataset

MODES = ("L", "LA", "1", "RGBA", "P", "CMYK")


def _pixels(seed, height=8, width=8):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def _as_tensor(seeds):
    return torch.from_numpy(np.stack([_pixels(seed) for seed in seeds])).permute(0, 3, 1, 2)


def _make_folder(folder, test="val"):
    """Classes cat and dog: training images 0, 1, 2, test images 50, 51; files of one length."""
    for split, first, count in (("train", 0, 3), (test, 50, 2)):
        for label, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(_pixels(100 * label + first + i))
                image.save(folder / split / name / f"{i:03}.bmp")
    return folder


@pytest.fixture
def folder(tmp_path):
    return _make_folder(tmp_path / "pets")


@pytest.fixture
def load(tmp_path):
    """Loads a folder, with its cache under tmp_path/cache."""

    def load(folder, root="cache", **arguments):
        return load_dataset(f"folder:{folder}", root=tmp_path / root, **arguments)

    return load


@pytest.mark.parametrize("test", ["val", "test"])
def test_pixels_and_labels(test, tmp_path, load, capfd):
    folder = _make_folder(tmp_path / "pets", test)
    if test == "test":
        shutil.copytree(folder / "train", folder / "val")  # not looked at
    for _ in ("decoded", "from the cache"):
        pets = load(folder)
        assert torch.equal(pets.train_images, _as_tensor([0, 1, 2, 100, 101, 102]))
        assert torch.equal(pets.test_images, _as_tensor([50, 51, 150, 151]))
        assert pets.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert pets.test_labels.tolist() == [0, 0, 1, 1]
        assert pets.classes == ("cat", "dog")
        assert (pets.name, pets.skipped, pets.size) == ("pets", 0, 8)
    assert capfd.readouterr() == ("", "")  # a progress bar is for terminals


def test_images_become_rgb(folder, load):
    modes = {mode: Image.fromarray(_pixels(5)).convert(mode) for mode in MODES}
    for mode, image in modes.items():
        image.save(folder / "train" / "cat" / f"1{mode}.tif")
    expected = [np.array(modes[mode].convert("RGB")).transpose(2, 0, 1) for mode in sorted(modes)]
    assert np.array_equal(load(folder).train_images[3 : 3 + len(MODES)], expected)


def test_jpeg_is_decoded_and_turned_upright(folder, load):
    """Orientation 6: what is stored on the left is shown at the top."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(pixels)
    image.save(folder / "train" / "cat" / "a.JPEG", exif=exif, quality=95, subsampling=0)
    turned = load(folder).train_images[3]
    assert turned[:, :4].max() < 10
    assert turned[:, 4:].min() > 245


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20)])
def test_images_that_are_not_square_need_a_size_and_lose_their_sides(height, width, folder, load):
    pixels = _pixels(5, height, width)
    path = folder / "train" / "cat" / "000.bmp"
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match=rf"{path} is {width} x {height}; give a size"):
        load(folder)
    shrunk = resize(torch.from_numpy(pixels).permute(2, 0, 1), [10], antialias=True)
    # torchvision rounds the margin of 2.5 pixels to the even 2.
    expected = shrunk[:, :, 2:12] if width > height else shrunk[:, 2:12]
    assert load(folder, size=12).size == 12  # has a cache of its own
    loaded = load(folder, size=10)
    assert torch.equal(loaded.train_images[0], expected)
    upright = resize(_as_tensor([1])[0], [10, 10], antialias=True)
    assert torch.equal(loaded.train_images[1], upright)


def test_second_load_neither_decodes_nor_writes(folder, load, monkeypatch):
    namesake = shutil.copytree(folder, folder.parent / "other" / "pets")
    (namesake / "train" / "cat" / "000.bmp").unlink()
    first, small, other = load(folder), load(folder, size=4), load(namesake)
    for function in ("_decode", "written_whole"):
        monkeypatch.delattr(module, function)
    assert load(folder, size=4).fingerprint == small.fingerprint != first.fingerprint
    assert load(namesake).fingerprint == other.fingerprint != first.fingerprint
    load(folder).train_images.zero_()  # does not reach the file
    assert torch.equal(load(folder).train_images, first.train_images)
    monkeypatch.chdir(folder.parent)
    assert load("pets").fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "edit",
    [
        # As fast file systems may show it: the clock has moved on by no more than a nanosecond.
        "cp train/dog/000.bmp train/cat/001.bmp; touch -d @1.000000001 train/cat/001.bmp",
        # From the end of one class to the start of the next, so that the order stays.
        "mv train/cat/002.bmp train/dog/!.bmp",
        "mv train/cat train/cow; mv val/cat val/cow",
    ],
)
def test_edited_folder_is_decoded_again(edit, folder, load):
    os.utime(folder / "train" / "cat" / "001.bmp", (1, 1))
    before = load(folder)
    subprocess.run(edit, shell=True, cwd=folder, check=True)
    after, fresh = load(folder), load(folder, root="other")
    assert after.fingerprint == fresh.fingerprint != before.fingerprint
    assert torch.equal(after.train_images, fresh.train_images)


def test_fingerprint_is_that_of_the_content(folder, load, tmp_path):
    before = load(folder)
    moved = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copy)
    (moved / "val").rename(moved / "test")
    assert load(moved).fingerprint == before.fingerprint
    assert load(moved, size=8).fingerprint == before.fingerprint
    # From the end of one split to the start of the other.
    (moved / "train" / "dog" / "002.bmp").rename(moved / "test" / "cat" / "!.bmp")
    assert load(moved).fingerprint != before.fingerprint


def test_unreadable_images_are_an_error_or_skipped_and_counted(folder, load, monkeypatch):
    path = folder / "train" / "cat" / "001.bmp"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "train" / "dog" / "000.bmp").write_text("not an image")
    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    deep.save(folder / "val" / "dog" / "001.bmp", "PNG")
    os.mkfifo(folder / "val" / "cat" / "fifo.bmp")  # to open it would never return
    (folder / "val" / "cat" / "gone.bmp").symlink_to("nowhere")
    (folder / "val" / "cat" / "loop.bmp").symlink_to("loop.bmp")
    (folder / "val" / "cat" / "zero.bmp").symlink_to("/dev/zero")
    shutil.copy(folder / "val" / "cat" / "000.bmp", os.fsencode(folder) + b"/val/cat/\xff.bmp")
    match = r"8 unreadable of 15 .*train/cat/001\.bmp: .*=True \(--skip-unreadable\) leaves"
    with pytest.raises(ValueError, match=match):
        load(folder)
    for source in ("decoded", "from the cache"):
        if source == "from the cache":
            monkeypatch.delattr(module, "_decode")
        pets = load(folder, root="fresh", skip_unreadable=True)
        assert pets.skipped == 8
        assert torch.equal(pets.train_images, _as_tensor([0, 2, 101, 102]))
        assert torch.equal(pets.test_images, _as_tensor([50, 51, 150]))
        assert pets.train_labels.tolist() == [0, 0, 1, 1]
        assert pets.test_labels.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="8 unreadable of 15"):
        load(folder, root="fresh")


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/cat/more", "."),  # itself
        ("train/cat/more", ".."),  # would make dogs cats
        ("train/cat/more", "../../.."),  # above the split
        ("train/dog/more", "../cat"),
        ("train/cow", "cat"),
    ],
)
def test_links_that_repeat_a_folder_are_refused(link, target, folder, load):
    (folder / "val" / "cow").mkdir()
    (folder / "train" / "cow").mkdir()
    for seed, split in ((200, "train"), (250, "val")):
        Image.fromarray(_pixels(seed)).save(folder / split / "cow" / "000.bmp")
    assert load(folder).classes == ("cat", "cow", "dog")
    shutil.rmtree(folder / link, ignore_errors=True)
    (folder / link).symlink_to(target)
    with pytest.raises(ValueError, match=rf"{link}.* one folder: accepted are links"):
        load(folder)


def test_links_to_other_places_are_followed_and_crossing_ones_end(folder, load, tmp_path):
    before = load(folder).fingerprint
    (folder / "train" / "dog").rename(tmp_path / "dogs")
    (folder / "train" / "dog").symlink_to(tmp_path / "dogs")
    assert load(folder).fingerprint == before
    for one, other in ("ab", "ba"):
        (tmp_path / one).mkdir()
        for i in range(2):
            (tmp_path / one / f"to_{other}{i}").symlink_to(tmp_path / other)
    (folder / "train" / "dog" / "a").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match=r"to_a. and .* are one folder"):
        load(folder)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        ("rm -r train val", "pets/train: no such folder"),
        ("rm -r val", "pets/val: no such folder; accepted are train/ and test/"),
        ("rm val/cat/*", r"val/cat: no images; accepted .*\.jpg"),
        ("mv val/dog val/cow", "cow, dog in one split only"),
        ("rm -r train/dog val/dog", r"classes=\['cat'\]: accepted are two or more"),
        ("for i in val/dog/*; do echo > $i; done", "no test image of class 'dog' can be read; .*0"),
    ],
)
def test_unusable_folder(edit, match, folder, load):
    subprocess.run(edit, shell=True, cwd=folder, check=True)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        load(folder, skip_unreadable=True)


def test_a_cache_that_cannot_be_written_costs_the_cache_alone(folder, load, tmp_path):
    expected = load(folder)
    (tmp_path / "file").write_text("")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"/file/pets-.*/file'; the decoded images are not k"):
            decoded = load(folder, root="file")
        assert decoded.fingerprint == expected.fingerprint
        assert torch.equal(decoded.train_images, expected.train_images)


@pytest.mark.parametrize("noticed", ["at the start", "by writing"])
def test_a_full_disk_costs_the_cache_alone(noticed, folder, load, tmp_path, monkeypatch):
    expected = load(folder)
    if noticed == "by writing":
        monkeypatch.delattr(os, "posix_fallocate")
    (tmp_path / "full").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # bytes: no file gets larger
    try:
        with pytest.warns(UserWarning, match=r"/full/pets-.*File too large; the decoded images"):
            decoded = load(folder, root="full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(decoded.train_images, expected.train_images)
    assert decoded.fingerprint == expected.fingerprint
    assert list((tmp_path / "full").glob("[!.]*")) == []
    load(folder, root="full")
    assert len(list((tmp_path / "full").glob("[!.]*"))) == 2


@pytest.mark.parametrize("name", ["x" * 230, "x" * 255, "像" * 76], ids=len)
def test_names_as_long_as_the_file_system_takes(name, folder, load, monkeypatch):
    expected = load(folder)
    folder = folder.rename(folder.parent / name)
    for source in ("decoded", "from the cache"):
        if source == "from the cache":
            monkeypatch.delattr(module, "_decode")
        loaded = load(folder)
        assert (loaded.name, loaded.fingerprint) == (name, expected.fingerprint)


def test_what_is_no_image_is_named_alone(folder, load):
    path = folder / "train" / "cat" / "000.bmp"
    path.write_text("not an image")
    with pytest.raises(ValueError, match=rf"{path}: no image that Pillow can identify; skip_"):
        load(folder)


def test_the_fingerprint_of_records_stays(tmp_path, load):
    """Records of trials name their images by it: this one was computed when the first were made."""
    for split, colours in (("train", b"abcd"), ("val", b"efgh")):
        for i, colour in enumerate(colours):
            path = tmp_path / "set" / split / "xy"[i % 2] / f"{i}.ppm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"P6 4 4 255\n" + bytes([colour]) * 48)
    assert load(tmp_path / "set").fingerprint == (
        "e205a8d34170e443bc03f9bb1a83e7eea36a66fbda4746eb7f8c4705e20cd47e"
    )


@pytest.mark.parametrize("damage", ["empty", "cut", "zeroed", "older"])
@pytest.mark.parametrize("ending", ["images", "json"])
def test_damaged_cache_is_made_again(ending, damage, folder, load, tmp_path, monkeypatch):
    before = load(folder)
    (cache,) = (tmp_path / "cache").glob(f"*.{ending}")
    whole = cache.read_bytes()
    zeroed = whole[:400] + bytes(150) + whole[550:]
    cache.write_bytes({"empty": b"", "cut": whole[:-1], "zeroed": zeroed}.get(damage, whole))
    if damage == "older":
        monkeypatch.setattr(module, "_CACHE_VERSION", 0)
    again = load(folder)
    assert again.fingerprint == before.fingerprint
    assert torch.equal(again.train_images, _as_tensor([0, 1, 2, 100, 101, 102]))
    monkeypatch.delattr(module, "_decode")
    assert load(folder).fingerprint == before.fingerprint
