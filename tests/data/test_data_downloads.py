import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import urllib.request
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from eca_lab.data import downloads, folder, load_dataset

WNIDS = tuple(datasets.Imagenette._WNID_TO_CLASS)


def _pixels(seed, *shape):
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


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
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
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


def test_damaged_cifar_is_restored(cifar, tmp_path):
    name, _, _ = cifar
    before = load_dataset(name, root=tmp_path)
    path = next(path for path in tmp_path.rglob("*") if path.name in ("data_batch_2", "train"))
    path.write_bytes(path.read_bytes()[:-1])
    assert load_dataset(name, root=tmp_path).fingerprint == before.fingerprint


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
    with pytest.raises(OSError, match=f"^{name} .*/file"):
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
        downloads.load_imagenette(tmp_path, size=size, skip_unreadable=False)
    assert archives == ["imagenette2-160", "imagenette2-320", "imagenette2"]
