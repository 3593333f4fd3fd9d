"""Folders of images, decoded once into a cache."""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision.datasets.folder import IMG_EXTENSIONS, ImageFolder
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from eca_lab.data.dataset import TENSORS, Dataset, fingerprint_of, to_square
from eca_lab.files import written_whole

_FILES_PER_BATCH = 128  # a folder with fewer files is decoded without worker processes
_CACHE_VERSION = 1  # to be raised when the decoding or the layout of the cache changes


def load_folder(name, folder, root, size, unreadable, progress, classes=None):
    """A folder of images, decoded or from the cache; classes gives names other than the folders'.

    The fingerprint is that of the files' bytes, so that it does not hang on the JPEG decoder.
    """
    train, test = _list_folder(folder)
    classes = classes or tuple(train.classes)
    stamp = _stamp(classes, train.samples + test.samples)
    key = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    cache = root / f"{folder.name}-{size or 'unresized'}-{key}.pt"
    content = _read_cache(cache, stamp)
    if content is None:
        check_writable(root)
        content = _decode_folder(folder, classes, train, test, size, unreadable, progress)
        with written_whole(cache) as file:
            torch.save(content | {"stamp": stamp}, file)
        # Mapped from the file, the pixels need no memory of their own.
        content = _read_cache(cache, stamp) or content
    problems = content["problems"]
    if problems and unreadable == "error":
        raise _unreadable(problems[0])
    return Dataset(
        name=name,
        classes=classes,
        fingerprint=content["fingerprint"],
        skipped=len(problems),
        **{tensor: content[tensor] for tensor in TENSORS},
    )


def _list_folder(folder):
    """The training and the test split of a folder, as two `ImageFolder` with equal classes."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    test = "test" if (folder / "test").is_dir() else "val"
    for split in ("train", test):
        if not (folder / split).is_dir():
            raise FileNotFoundError(
                f"{folder}: there is no {split}/; accepted is a folder with train/ and with test/ "
                "or val/, which hold a folder of images for each class"
            )
    splits = [ImageFolder(folder / split, allow_empty=True) for split in ("train", test)]
    only = [sorted(set(a.classes) - set(b.classes)) for a, b in (splits, splits[::-1])]
    if any(only):
        raise ValueError(
            f"{folder}: the classes of train/ and {test}/ differ; only in train/: "
            f"{', '.join(only[0]) or 'none'}; only in {test}/: {', '.join(only[1]) or 'none'}"
        )
    for split in splits:
        for label in set(range(len(split.classes))) - set(split.targets):
            raise ValueError(
                f"{Path(split.root, split.classes[label])}: no images; accepted are files that "
                f"end in {', '.join(IMG_EXTENSIONS)}"
            )
    return splits


def _stamp(classes, samples):
    """Hash of the classes and of path, size and time of every file."""
    digest = hashlib.sha256(json.dumps([_CACHE_VERSION, classes]).encode())
    for path, _ in samples:
        status = os.stat(path)
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _decode_folder(folder, classes, train, test, size, unreadable, progress):
    """Decode the images of two `ImageFolder`, in parallel on all cores.

    Returns:
        dict of the tensors, the fingerprint, and problems, a list of a text for each image that
        cannot be read.
    """
    samples = train.samples + test.samples
    paths = [path for path, _ in samples]
    # A list of paths is data set enough for a DataLoader, and its collate_fn runs in the workers.
    # A generator of its own leaves torch's global one as it was.
    batches = DataLoader(
        paths,
        batch_size=_FILES_PER_BATCH,
        collate_fn=partial(_decode_batch, size=size),
        num_workers=min(available_cores(), len(paths) // _FILES_PER_BATCH),
        generator=torch.Generator(),
    )
    results = (result for batch in batches for result in batch)
    bar = {"desc": f"Decoding {folder.name}", "unit": " images", "disable": not progress}
    images, digests, kept, problems = None, [], [], []
    for index, (digest, image, problem) in enumerate(tqdm(results, total=len(paths), **bar)):
        if problem:
            if unreadable == "error":
                raise _unreadable(problem)
            problems.append(problem)
            continue
        side = image.shape[1]
        if images is None:
            images = np.empty((len(paths), 3, side, side), np.uint8)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"{folder}: the images are not all squares of one size: {paths[index]} is "
                f"{image.shape[2]} x {side}; give a size to resize them to"
            )
        images[len(kept)] = image
        digests.append(np.frombuffer(digest, np.uint8))
        kept.append(index)
    labels = torch.tensor([samples[index][1] for index in kept], dtype=torch.int64)
    middle = sum(index < len(train.samples) for index in kept)  # where the test split begins
    for split, part in ((train, labels[:middle]), (test, labels[middle:])):
        for label in set(range(len(classes))) - set(part.tolist()):
            raise ValueError(
                f"{Path(split.root, split.classes[label])}: none of the images can be read"
            )
    images, digests = torch.from_numpy(images), torch.from_numpy(np.stack(digests))
    return {
        "train_images": images[:middle],
        "train_labels": labels[:middle],
        "test_images": images[middle : len(kept)],
        "test_labels": labels[middle:],
        "fingerprint": fingerprint_of(
            classes, digests[:middle], labels[:middle], digests[middle:], labels[middle:]
        ),
        "problems": problems,
    }


def _decode_batch(paths, size):
    """Digest of the file, image (3, H, W) and problem of each path: the first two or the last."""
    results = []
    for path in paths:
        try:
            digest, image = _decode(path)
        # Pillow raises whatever its many formats trip over: struct.error, KeyError, ...
        except Exception as error:
            results.append((None, None, f"{path}: {error}"))
        else:
            image = to_square(image, size) if size else image
            results.append((digest, image.numpy(), None))
    return results


def _decode(path):
    """SHA-256 of a file, and its image (3, height, width): upright, in RGB, 8 bits a channel."""
    data = Path(path).read_bytes()
    with Image.open(BytesIO(data)) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode}; accepted are 8 bits a channel")
        image = ImageOps.exif_transpose(image).convert("RGB")
    return hashlib.sha256(data).digest(), functional.pil_to_tensor(image)


def _unreadable(problem):
    return ValueError(f'unreadable image {problem}; unreadable="skip" leaves such images out')


def available_cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_writable(root):
    """Raise unless files can be made in root, which is made where there is none."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise OSError(f"root={str(root)!r}: no files can be written there: {error}") from error


def _read_cache(path, stamp):
    """Content of a cache file, its tensors mapped from it; None where it is of no use."""
    # Whatever keeps the file from being read, it can be made again.
    with suppress(Exception):
        content = torch.load(path, mmap=True, weights_only=True)
        if content["stamp"] == stamp:
            return content
    return None
