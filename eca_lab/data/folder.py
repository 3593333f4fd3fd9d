"""Folders of images, decoded once into a cache."""

import hashlib
import os
from bisect import bisect
from contextlib import suppress
from functools import partial
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path
from zipfile import ZipFile

import torch
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from eca_lab.data.dataset import Dataset, fingerprint_of, to_square
from eca_lab.files import written_whole
from eca_lab.provenance import available_cores

_CACHE_VERSION = 1  # to be raised when the decoding or the layout of the cache changes


def load_folder(name, folder, root, size, skip_unreadable, classes=None):
    """A folder of images, decoded or from the cache; classes gives names other than the folders'.

    The fingerprint is that of the files' bytes, so that it does not hang on the JPEG decoder.
    """
    found, train, test = _list_folder(folder)
    classes = classes or found
    facts = [_CACHE_VERSION, classes]
    for path, _ in train + test:
        status = os.stat(path, follow_symlinks=os.path.exists(path))
        facts.append((path, status.st_size, status.st_mtime_ns))
    stamp = fingerprint_of(facts)
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    cache = root / f"{folder.name}-{size or 'unresized'}-{key}.pt"
    content = _read_cache(cache, stamp)
    if content is None:
        root.mkdir(parents=True, exist_ok=True)
        with written_whole(cache) as file:  # opened first, lest the decoding be in vain
            content = _decode_folder(folder, classes, train, test, size) | {"stamp": stamp}
            torch.save(content, file)
        # Mapped from the file, the pixels need no memory of their own.
        content = _read_cache(cache, stamp) or content
    del content["stamp"]
    problems = content.pop("problems")
    if problems and not skip_unreadable:
        count = f"{len(problems)} unreadable of {len(train + test)} images"
        skip = "skip_unreadable=True (--skip-unreadable) leaves them out"
        raise ValueError(f"{folder}: {count}, the first {problems[0]}; {skip}")
    return Dataset(name, classes=classes, skipped=len(problems), **content)


def _list_folder(folder):
    """Names of the classes; path and label of each training image, and of each test image."""
    splits = folder / "train", folder / ("test" if (folder / "test").is_dir() else "val")
    if missing := [split for split in splits if not split.is_dir()]:
        accepted = "train/ and test/ or val/, with a folder of images for each class"
        raise FileNotFoundError(f"{missing[0]}: no such folder; accepted are {accepted}")
    classes, others = (sorted(each.name for each in os.scandir(s) if each.is_dir()) for s in splits)
    if only := ", ".join(sorted({*classes} ^ {*others})):
        raise ValueError(f"{folder}: {only} in one split only; accepted are equal classes in both")
    if len(classes) < 2:
        raise ValueError(f"{folder}: classes={classes!r}: accepted are two or more")
    return tuple(classes), *(_list_split(split, classes) for split in splits)


def _list_split(split, classes):
    """Path and label of each image, in the order of torchvision's `ImageFolder`.

    Links are followed, but to no folder twice: images would be repeated, or it would never end.
    """
    seen = {path: path for path in (split.resolve(), *split.resolve().parents)}
    samples = []
    for label, name in enumerate(classes):
        files = []
        for place, _, names in os.walk(split / name, followlinks=True):
            real = Path(place).resolve()
            if real in seen:
                accepted = "accepted are links that lead to no folder twice"
                raise ValueError(f"{place} and {seen[real]} are one folder: {accepted}")
            seen[real] = place
            files += [(place, name) for name in names if name.lower().endswith(IMG_EXTENSIONS)]
        if not files:
            endings = ", ".join(IMG_EXTENSIONS)
            raise ValueError(f"{split / name}: no images; accepted are files that end in {endings}")
        samples += [(os.path.join(*file), label) for file in sorted(files)]
    return samples


def _decode_folder(folder, classes, train, test, size):
    """The fields of a `Dataset`, and problems, a text for each image that cannot be read."""
    samples = train + test
    images, digests, kept, problems = None, [], [], []
    # Threads are enough: Pillow, hashlib and torch let each other run while they work.
    with ThreadPool(available_cores()) as pool:
        decoded = pool.imap(partial(_decode, size=size), [path for path, _ in samples])
        bar = tqdm(decoded, f"Decoding {folder.name}", len(samples), unit=" images", disable=None)
        for index, (digest, image, problem) in enumerate(bar):
            if problem:
                problems.append(problem)
                continue
            _, height, width = image.shape
            if images is None:
                images = torch.empty((len(samples), 3, height, height), dtype=torch.uint8)
            if image.shape != images.shape[1:]:
                odd = f"{samples[index][0]} is {width} x {height}"
                raise ValueError(f"{folder}: not all squares of one size, {odd}; give a size")
            images[len(kept)] = image
            digests.append(digest)
            kept.append(index)
    content, hashed = {"problems": problems}, []
    middle = bisect(kept, len(train) - 1)  # where the test split begins
    for split, part in (("train", slice(middle)), ("test", slice(middle, len(kept)))):
        labels = torch.tensor([samples[index][1] for index in kept[part]])
        if lost := {*range(len(classes))} - {*labels.tolist()}:
            lacking = f"no {split} image of class {classes[lost.pop()]!r} can be read"
            raise ValueError(f"{folder}: {lacking}; the first of the problems is {problems[0]}")
        content |= {f"{split}_images": images[part], f"{split}_labels": labels}
        hashed += [torch.tensor([*map(list, digests[part])], dtype=torch.uint8), labels]
    return content | {"fingerprint": fingerprint_of(classes, *hashed)}


def _decode(path, size):
    """SHA-256 of a file, its image (3, H, W), upright and in RGB, and None; else what is wrong."""
    try:
        path.encode()  # raises for a name that is not UTF-8
        if not os.path.isfile(path):  # to open a FIFO would wait for ever
            raise ValueError("no regular file, or a link that leads to none")
        data = Path(path).read_bytes()
        with Image.open(BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode}; accepted are 8 bits a channel")
            image = functional.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
        image = to_square(image, size) if size else image
    # Pillow raises whatever its many formats trip over: struct.error, KeyError, ...
    except Exception as error:
        return None, None, f"{os.fsencode(path).decode(errors='backslashreplace')}: {error}"
    return hashlib.sha256(data).digest(), image, None


def _read_cache(path, stamp):
    """Content of a cache file, its tensors mapped from it; None where it is of no use."""
    # Whatever keeps the file from being read, it can be made again.
    with suppress(Exception):
        content = torch.load(path, mmap=True, weights_only=True)
        # The file is a ZIP archive, with a checksum of all that it holds: 0.03 s for 100 MB.
        with ZipFile(path) as archive:
            if content["stamp"] == stamp and archive.testzip() is None:
                return content
