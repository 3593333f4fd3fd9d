import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from eca_lab.data import (
    folder,
    load_dataset,
)


def _must_not_run(*args, **kwargs):
    raise AssertionError("this must not run here")


def _pixels(seed, height=8, width=8):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


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
    monkeypatch.setattr(folder, "_decode", _must_not_run)
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
