import errno
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from eca_lab import data
from eca_lab.data import folder as module
from eca_lab.data import load_dataset, mapped

COUNT = 20  # images of a folder, all different


def _pixels(seed):
    return np.random.RandomState(seed).randint(0, 256, (8, 8, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes, eight images of each to train on and two to test on, in the order of seeds."""
    seeds = iter(range(COUNT))
    for split, count in (("train", 8), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / "pets" / split / name / f"{i}.bmp"
                Image.fromarray(_pixels(next(seeds))).save(path)
    return tmp_path / "pets"


@pytest.fixture
def load(folder, tmp_path):
    """Loads the folder, with its cache under tmp_path/cache."""
    return lambda root="cache", **selection: load_dataset(
        f"folder:{folder}", root=tmp_path / root, **selection
    )


@pytest.fixture
def pieces_of_two(monkeypatch):
    """Decode and copy two images of 8 x 8 pixels at a time."""
    for each in (module, mapped):
        monkeypatch.setattr(each, "PIECE", 2 * 3 * 8 * 8)


@pytest.fixture
def decoded(monkeypatch):
    """The paths of what is decoded."""
    paths = []

    def spy(path, size):
        paths.append(path)
        return decode(path, size)

    decode = module._decode
    monkeypatch.setattr(module, "_decode", spy)
    return paths


def _all_images(dataset):
    return torch.cat([dataset.train_images, dataset.test_images])


EXPECTED = torch.from_numpy(np.stack([_pixels(seed) for seed in range(COUNT)])).permute(0, 3, 1, 2)


def _is_kept(path):
    return not path.name.startswith(".")


@pytest.mark.parametrize(
    ("damage", "left"),
    [("none", 15), ("torn line", 17), ("second piece", 19), ("images", 20), ("journal", 20)],
)
def test_an_interrupted_decoding_goes_on(
    damage, left, load, tmp_path, pieces_of_two, decoded, monkeypatch
):
    synced = []

    def interrupted(descriptor):
        if len(synced) == 3:
            raise KeyboardInterrupt
        synced.append(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load()
    assert len(decoded) == 7  # pieces of 1, since their size was unknown, 2, 2 and 2: not noted
    decoded.clear()
    (images,) = (tmp_path / "cache").glob("*.images")
    (journal,) = (tmp_path / "cache").glob("*.journal")
    if damage == "torn line":
        journal.write_text(journal.read_text()[:-5])
    elif damage == "second piece":
        content = images.read_bytes()
        images.write_bytes(content[:400] + bytes(100) + content[500:])
    elif damage == "images":
        images.unlink()
    elif damage == "journal":
        journal.unlink()
    pets = load()
    assert len(decoded) == left
    assert torch.equal(_all_images(pets), EXPECTED)
    assert pets.fingerprint == load("fresh").fingerprint
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir() if _is_kept(path)) == [
        ".images",
        ".json",
    ]


def test_a_second_process_waits_and_does_not_decode(load, tmp_path, decoded, monkeypatch):
    load("other")
    decoded.clear()
    waits = threading.Event()
    monkeypatch.setattr(module.warnings, "warn", lambda *_, **__: waits.set())
    (name,) = (path.stem for path in (tmp_path / "other").glob("*.json"))
    (tmp_path / "cache").mkdir()
    found = []
    with FileLock(tmp_path / "cache" / f".{name}.lock"):
        second = threading.Thread(target=lambda: found.append(load()))
        second.start()
        assert waits.wait(60)
        for path in filter(_is_kept, (tmp_path / "other").iterdir()):  # with other times
            (tmp_path / "cache" / path.name).write_bytes(path.read_bytes())
    second.join(60)
    assert torch.equal(_all_images(found[0]), EXPECTED)
    assert decoded == []


def _full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_the_cache_of_few_images(load, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", _full)
    with pytest.warns(UserWarning, match="No space left on device; the decoded images are not k"):
        pets = load()
    assert torch.equal(_all_images(pets), EXPECTED)
    assert pets.files == ()
    assert not list(filter(_is_kept, (tmp_path / "cache").iterdir()))


def test_a_full_disk_is_an_error_for_more_than_memory_takes(load, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", _full)
    monkeypatch.setattr(os, "sysconf", lambda name: 1)  # a page of one byte
    before = sorted(folder.rglob("*"))
    with pytest.raises(OSError, match=r"pets: its images take 0\.0 GB .* memory, .*: .*No space"):
        load()
    assert sorted(folder.rglob("*")) == before
    assert not list(filter(_is_kept, (tmp_path / "cache").iterdir()))


def test_file_systems_that_cannot_allocate_are_written_to(load, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert load().files


@pytest.mark.parametrize(
    ("damage", "match"), [("cut", "3,833 bytes, not 3,840"), ("changed", "its time is another")]
)
def test_a_file_that_is_damaged_while_in_use_is_noticed(damage, match, load, decoded):
    pets = load()
    (file,) = pets.files
    file.check()
    if damage == "cut":
        os.truncate(file.path, file.path.stat().st_size - 7)
    else:
        with open(file.path, "r+b") as content:
            content.write(bytes(100))
        os.utime(file.path, (1, 1))
    with pytest.raises(OSError, match=rf"{file.path.name}: cut short or changed .* {match}; start"):
        file.check()
    with pytest.raises(OSError, match="cut short or changed"):
        pickle.loads(pickle.dumps(pets))
    decoded.clear()
    again = load()
    assert len(decoded) == COUNT
    assert torch.equal(_all_images(again), EXPECTED)
    again.files[0].check()


def test_images_of_the_folder_as_it_was_are_removed_but_stay_mapped(load, folder, tmp_path):
    (tmp_path / "cache").mkdir()
    before = load()
    old = (tmp_path / "cache" / before.files[0].path.name.rpartition("-")[0]).with_suffix(".pt")
    old.write_bytes(b"as version 2 left it")
    Image.fromarray(_pixels(99)).save(folder / "train" / "cat" / "0.bmp")
    after = load()
    assert not before.files[0].path.exists()
    assert not old.exists()
    assert torch.equal(_all_images(before), EXPECTED)
    assert torch.equal(after.train_images[0], torch.from_numpy(_pixels(99)).permute(2, 0, 1))


def test_to_another_process_goes_the_place_in_the_file(load):
    pets = load()
    few = replace(pets, train_images=pets.train_images[3:7], test_images=pets.test_images.clone())
    assert len(pickle.dumps(pets)) < 2500 < pets.train_images.nbytes
    copy = pickle.loads(pickle.dumps(few))
    assert torch.equal(copy.train_images, EXPECTED[3:7])
    assert torch.equal(copy.test_images, EXPECTED[16:])
    assert copy.file_of(copy.train_images)
    assert copy.file_of(copy.test_images) is None
    copy.train_images[0] = 0
    assert torch.equal(_all_images(load()), EXPECTED)


def test_chosen_images_that_are_many_have_a_file_of_their_own(
    load, tmp_path, pieces_of_two, monkeypatch
):
    expected = load(per_class=5)
    assert expected.file_of(expected.train_images) is None
    monkeypatch.setattr(data, "_MOST_IN_MEMORY", 0)
    for source in ("written", "found", "cut short"):
        if source == "cut short":
            (path,) = (tmp_path / "cache").glob("*-train_images.images")
            os.truncate(path, 100)
        with monkeypatch.context() as patch:
            if source == "found":
                patch.delattr(mapped, "written_whole")
            chosen = load(per_class=5)
        assert torch.equal(chosen.train_images, expected.train_images)
        assert chosen.fingerprint == expected.fingerprint
        of_train, of_test = map(chosen.file_of, (chosen.train_images, chosen.test_images))
        assert of_train.path.name.endswith("-train_images.images")
        assert of_test == chosen.files[0]  # all test images: no copy
    assert len(load().files) == 1
    monkeypatch.setattr(os, "posix_fallocate", _full)
    with pytest.raises(OSError, match=r"images: the chosen images take .* cannot be kept: .*space"):
        load(per_class=4)


# With a limit on its own memory of a quarter of the images, beside the mapping itself.
LIMITED = """
import resource, sys
import torch
from eca_lab.data import augmentation, folder, load_dataset, mapped
from eca_lab.data.augmentation import channel_statistics
from eca_lab.recipe import Recipe
from eca_lab.training.train import batches, generator

def epoch(dataset):
    streams = {"order": generator(0, "order"), "augmentation": generator(0, "augmentation")}
    channel_statistics(dataset.train_images)
    return sum(len(labels) for _, labels in batches(dataset, Recipe(batch_size=2), **streams))

torch.set_num_threads(1)
small, large, root = sys.argv[1:]
augmentation.PIECE = folder.PIECE = mapped.PIECE = 2**20
epoch(load_dataset(small, root, size=224))  # threads, and what is imported late
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
size = COUNT * 3 * 224**2
resource.setrlimit(resource.RLIMIT_DATA, (used + size + size // 4,) * 2)
dataset = load_dataset(large, root, size=224)
assert sum(file.images.nbytes for file in dataset.files) == size
print(epoch(dataset))
try:
    dataset.train_images.clone()
except RuntimeError:
    print("no memory for a copy")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_four_times_as_many_images_as_memory(tmp_path):
    count = 480
    for name, images in (("small", 16), ("large", count // 2)):
        for label in ("cat", "dog"):
            for split, number in (("train", images - 1), ("val", 1)):
                place = tmp_path / name / split / label
                place.mkdir(parents=True)
                Image.fromarray(_pixels(len(split))).save(place / "0.bmp")
                for i in range(1, number):
                    os.link(place / "0.bmp", place / f"{i}.bmp")
    code = LIMITED.replace("COUNT", str(count))
    names = [f"folder:{tmp_path / name}" for name in ("small", "large")]
    command = [sys.executable, "-c", code, *names, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["478", "no memory for a copy"]


READER = """
import pickle, sys
import psutil
import eca_lab.data
content = sys.stdin.buffer.read()
before = psutil.Process().memory_full_info()
dataset = pickle.loads(content)
total = int(dataset.train_images.sum())
after = psutil.Process().memory_full_info()
print(total, after.uss - before.uss, after.rss - before.rss)
"""


def test_processes_share_what_they_map(tmp_path):
    path = tmp_path / "x.images"
    np.random.RandomState(0).randint(0, 256, (400, 3, 224, 224), np.uint8).tofile(path)
    shape = (400, 3, 224, 224)
    file = mapped.open_images(path, mapped.describe(path, shape, []))
    labels = torch.zeros(1, dtype=torch.int64)
    dataset = data.Dataset(
        "x",
        train_images=file.images,
        train_labels=labels,
        test_images=file.images[:1],
        test_labels=labels,
        classes=(),
        fingerprint="",
        files=(file,),
    )
    expected = int(file.images.sum())  # which maps all of it here
    done = subprocess.run(
        [sys.executable, "-c", READER], input=pickle.dumps(dataset), capture_output=True, check=True
    )
    total, own, seen = map(int, done.stdout.split())
    assert total == expected
    assert seen > 0.9 * file.images.nbytes  # it has all of it, too,
    assert own < 0.25 * file.images.nbytes  # and hardly any for itself
