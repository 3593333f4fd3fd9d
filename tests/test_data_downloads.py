import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from eca_lab.data import dataset, downloads, folder, load_dataset

WNIDS = tuple(datasets.Imagenette._WNID_TO_CLASS)


def _pixels(seed, *shape):
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


def test_cifar(tmp_path, monkeypatch):
    asked = []

    class Cifar:
        classes = ("cat", "dog", "eel")
        root = None

        def __init__(self, root, train, download=False):
            asked.append(download)
            Cifar.root = root if download else Cifar.root
            if root != Cifar.root:
                raise RuntimeError("Dataset not found or corrupted.")
            self.data = _pixels(train, 6, 32, 32, 3)
            self.targets = [0, 2, 1, 1, 0, 2] if train else [2, 1, 0, 0, 1, 2]

    monkeypatch.setattr(datasets, "CIFAR100", Cifar)
    loaded = load_dataset("cifar100", root=tmp_path / "new" / "root")
    assert asked == [False, True, False]
    assert np.array_equal(loaded.train_images.permute(0, 2, 3, 1), _pixels(1, 6, 32, 32, 3))
    assert np.array_equal(loaded.test_images.permute(0, 2, 3, 1), _pixels(0, 6, 32, 32, 3))
    assert loaded.train_labels.tolist() == [0, 2, 1, 1, 0, 2]
    assert loaded.test_labels.tolist() == [2, 1, 0, 0, 1, 2]
    assert (loaded.name, loaded.classes, loaded.skipped) == ("cifar100", ("cat", "dog", "eel"), 0)

    source = downloads.load_cifar("cifar100", tmp_path / "new" / "root")
    assert asked[3:] == [False, False]
    tensors = [getattr(loaded, tensor) for tensor in dataset.TENSORS]
    assert all(tensor.is_contiguous() for tensor in tensors)
    assert source.fingerprint == dataset.fingerprint_of(["cat", "dog", "eel"], *tensors)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenette"])
def test_without_a_network_one_line_says_how_to_go_on(name, tmp_path, monkeypatch):
    def urlopen(request):
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    match = rf"^{name} .*Name or service not known.*folder:PATH"
    with pytest.raises(OSError, match=match) as error:
        load_dataset(name, root=tmp_path / "root")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "root").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"root='.*file': no files can be written there"):
        load_dataset(name, root=tmp_path / "file")


@pytest.fixture
def archives(monkeypatch):
    """Imagenette's archives downloaded so far, of one image a class; an Exception breaks them."""
    downloaded = []

    def download(url, root, md5):
        downloaded.append(Path(url).stem)
        for split, first in (("train", 0), ("val", 50)):
            for label, wnid in enumerate(WNIDS):
                place = Path(root, downloaded[-1], split, wnid)
                place.mkdir(parents=True)
                Image.fromarray(_pixels(first + label, 12, 15, 3)).save(place / "0.JPEG", "JPEG")
                if downloaded[0] is KeyboardInterrupt:
                    raise downloaded.pop(0)

    monkeypatch.setattr(datasets.imagenette, "download_and_extract_archive", download)
    return downloaded


def test_imagenette(archives, tmp_path, monkeypatch):
    archives.append(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        load_dataset("imagenette", root=tmp_path, size=12)
    assert list(tmp_path.iterdir()) == []  # nothing that would be taken for whole
    loaded = load_dataset("imagenette", root=tmp_path, size=12)
    assert loaded.classes == (
        *("tench", "English springer", "cassette player", "chain saw", "church"),
        *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
    )
    assert loaded.train_labels.tolist() == loaded.test_labels.tolist() == list(range(10))
    files = [tmp_path / f"imagenette2-160/{s}/{w}/0.JPEG" for s in ("train", "val") for w in WNIDS]
    images = torch.cat([loaded.train_images, loaded.test_images])
    for path, image in zip(files, images, strict=True):
        # 12 pixels high already: the centre of the 15 is cut out, with a margin of 1.5, or 2.
        assert np.array_equal(image.permute(1, 2, 0), np.array(Image.open(path))[:, 2:14])
    assert (loaded.name, loaded.skipped) == ("imagenette", 0)

    archives.clear()
    monkeypatch.delattr(folder, "_decode")
    assert load_dataset("imagenette", root=tmp_path, size=12).fingerprint == loaded.fingerprint
    assert archives == []


def test_imagenette_comes_from_the_smallest_archive(archives, tmp_path):
    for size in (160, 161, 320, 321):
        downloads.load_imagenette(tmp_path, size, "error")
    assert archives == ["imagenette2-160", "imagenette2-320", "imagenette2"]
