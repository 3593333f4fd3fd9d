import hashlib
import io
import pickle
import tarfile
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
STEMS = {"160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"}


@pytest.fixture
def web(monkeypatch):
    """What each address answers, and the addresses asked for; all others fail."""
    answers, asked = {}, []

    def urlopen(request):
        asked.append(request.full_url)
        if request.full_url not in answers:
            raise URLError(OSError(-2, "Name or service not known"))
        response = io.BytesIO(answers[request.full_url])
        response.url, response.length = request.full_url, len(answers[request.full_url])
        return response

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return answers, asked


def _md5(content):
    return hashlib.md5(content).hexdigest()


def _archive(files):
    """A .tar.gz of {name: bytes}."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def cifar(request, web, monkeypatch):
    """A small archive in the format of CIFAR: name, {split: rows of pixels}, {split: labels}."""
    kind = getattr(datasets, request.param)
    key, count = ("labels", 10) if request.param == "CIFAR10" else ("fine_labels", 100)
    random = np.random.RandomState(count)
    files, pixels, labels = {}, {"train": [], "test": []}, {"train": [], "test": []}
    for split in ("train", "test"):
        for name, _ in getattr(kind, f"{split}_list"):
            rows = random.randint(0, 256, (2 * count, 3072), np.uint8)
            drawn = random.permutation(np.arange(2 * count) % count).tolist()
            files[name] = pickle.dumps({"data": rows, key: drawn, "coarse_labels": None})
            pixels[split].append(rows)
            labels[split] += drawn
    names = [f"class {i}" for i in range(count)]
    meta = kind.meta["filename"]
    files[meta] = pickle.dumps({kind.meta["key"]: names})
    archive = _archive({f"{kind.base_folder}/{name}": data for name, data in files.items()})
    web[0][kind.url] = archive
    monkeypatch.setattr(kind, "tgz_md5", _md5(archive))
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": _md5(files[meta])})
    for entries in ("train_list", "test_list"):
        sums = [[name, _md5(files[name])] for name, _ in getattr(kind, entries)]
        monkeypatch.setattr(kind, entries, sums)
    return request.param.lower(), {s: np.concatenate(rows) for s, rows in pixels.items()}, labels


def test_cifar(cifar, web, tmp_path):
    name, pixels, labels = cifar
    loaded = load_dataset(name, root=tmp_path / "new" / "root")
    for split in ("train", "test"):
        # A row of CIFAR is 1024 red values, then green and blue, each row by row.
        images = getattr(loaded, f"{split}_images")
        assert np.array_equal(images.numpy(), pixels[split].reshape(-1, 3, 32, 32))
        assert getattr(loaded, f"{split}_labels").tolist() == labels[split]
    assert loaded.classes == tuple(f"class {i}" for i in range(len(set(labels["test"]))))
    assert (loaded.name, loaded.size, loaded.skipped) == (name, 32, 0)

    web[1].clear()
    source = downloads.load_cifar(name, tmp_path / "new" / "root")
    tensors = [getattr(loaded, tensor) for tensor in dataset.TENSORS]
    assert source.fingerprint == dataset.fingerprint_of(list(loaded.classes), *tensors)
    assert web[1] == []
    # What is damaged is restored.
    damaged = next(path for path in tmp_path.rglob("*") if path.name in ("data_batch_2", "train"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = load_dataset(name, root=tmp_path / "new" / "root")
    assert again.fingerprint == loaded.fingerprint


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenette"])
def test_without_a_network_one_line_says_how_to_go_on(name, web, tmp_path):
    with pytest.raises(
        OSError, match=rf"^{name} .*Name or service not known.*folder:PATH"
    ) as error:
        load_dataset(name, root=tmp_path / "root")
    assert "\n" not in str(error.value)
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"root='.*file': no files can be written there"):
        load_dataset(name, root=tmp_path / "file")


@pytest.fixture
def serve_imagenette(web, monkeypatch):
    """Serve a small archive in the place of one of Imagenette's; the others are not there."""

    def serve(archive):
        files = {}
        for split, first in (("train", 0), ("val", 50)):
            for label, wnid in enumerate(WNIDS):
                content = io.BytesIO()
                pixels = np.random.RandomState(first + label).randint(0, 256, (12, 15, 3), np.uint8)
                Image.fromarray(pixels).save(content, "JPEG")
                files[f"{STEMS[archive]}/{split}/{wnid}/{wnid}_0.JPEG"] = content.getvalue()
        packed = _archive(files)
        archives = {
            name: (f"https://host/{stem}.tgz", _md5(packed)) for name, stem in STEMS.items()
        }
        web[0][archives[archive][0]] = packed
        monkeypatch.setattr(datasets.Imagenette, "_ARCHIVES", archives)
        return files

    return serve


def test_imagenette(serve_imagenette, web, tmp_path, monkeypatch):
    files = serve_imagenette("160px")
    loaded = load_dataset("imagenette", root=tmp_path, size=12)
    assert loaded.classes == (
        *("tench", "English springer", "cassette player", "chain saw", "church"),
        *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
    )
    assert loaded.train_labels.tolist() == loaded.test_labels.tolist() == list(range(10))
    images = torch.cat([loaded.train_images, loaded.test_images])
    for (name, content), image in zip(files.items(), images, strict=True):
        pixels = np.array(Image.open(io.BytesIO(content)))
        # 12 pixels high already: the centre of the 15 is cut out, with a margin of 1.5, or 2.
        assert np.array_equal(image.permute(1, 2, 0), pixels[:, 2:14]), name
    assert (loaded.name, loaded.skipped) == ("imagenette", 0)

    web[1].clear()
    monkeypatch.delattr(folder, "_decode")
    assert load_dataset("imagenette", root=tmp_path, size=12).fingerprint == loaded.fingerprint
    assert web[1] == []
    # No archive, no half-made folder.
    names = sorted(path.name.split("-12-")[0] for path in tmp_path.iterdir())
    assert names == ["imagenette2-160", "imagenette2-160"]


@pytest.mark.parametrize(("size", "archive"), [(None, "160px"), (161, "320px"), (321, "full")])
def test_imagenette_comes_from_the_smallest_archive(size, archive, serve_imagenette, tmp_path):
    serve_imagenette(archive)
    assert load_dataset("imagenette", root=tmp_path, size=size).size == (size or 160)


def test_interrupted_imagenette_starts_anew(serve_imagenette, tmp_path, monkeypatch):
    serve_imagenette("160px")

    def interrupted(archive, folder, remove_finished):
        Path(folder, "imagenette2-160", "train", WNIDS[0]).mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(datasets.utils, "extract_archive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("imagenette", root=tmp_path, size=12)
    assert list(tmp_path.iterdir()) == []
    assert len(load_dataset("imagenette", root=tmp_path, size=12).classes) == 10
