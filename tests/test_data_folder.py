import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import resize

from eca_lab.data import folder as folder_module
from eca_lab.data import (
    load_dataset,
)


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
    for function in ("_decode", "check_writable", "written_whole"):
        monkeypatch.setattr(folder_module, function, _must_not_run)
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
            monkeypatch.setattr(folder_module, "_decode", _must_not_run)
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
    monkeypatch.setattr(folder_module, "_decode", _must_not_run)
    edit(folder)
    with pytest.raises(error, match=match):
        load(folder)


def _empty(folder):
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))


def test_root_that_cannot_be_written(folder, load, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "_decode", _must_not_run)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"root='.*file': no files can be written there"):
        load(folder, root=tmp_path / "file")


def test_interrupted_decoding_leaves_nothing(folder, load, tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "_decode", interrupted)
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
    monkeypatch.setattr(folder_module, "_decode", _must_not_run)
    assert load(folder).fingerprint == before.fingerprint


def test_cache_from_another_version_is_made_again(folder, load, monkeypatch):
    load(folder)
    monkeypatch.setattr(folder_module, "_CACHE_VERSION", folder_module._CACHE_VERSION + 1)
    monkeypatch.setattr(folder_module, "_decode_batch", _must_not_run)
    with pytest.raises(AssertionError):
        load(folder)


def test_decoding_in_parallel_gives_the_same(tmp_path, load, monkeypatch):
    folder = _make_folder(tmp_path / "pets", per_class=20)
    for i in (3, 4, 11):
        (folder / "train" / "dog" / f"{i:03}.png").write_text("not an image")
    alone = load(folder, unreadable="skip", root=tmp_path / "alone")
    # Batches that straddle classes and splits, for two processes.
    monkeypatch.setattr(folder_module, "_FILES_PER_BATCH", 6)
    monkeypatch.setattr(folder_module, "available_cores", lambda: 2)
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
