"""Folders of images, decoded once into a cache."""

import hashlib
import os
import warnings
from bisect import bisect
from contextlib import suppress
from functools import partial
from io import BytesIO
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from eca_lab.data.dataset import Dataset, fingerprint_of, to_square
from eca_lab.data.layout import Sample, list_folder
from eca_lab.files import written_whole
from eca_lab.provenance import available_cores

_CACHE_VERSION = 2  # to be raised when the decoding or the layout of the cache changes
_Failure = tuple[None, None, str]  # as `_decode` gives it


def load_folder(
    folder: Path,
    root: Path,
    *,
    name: str,
    size: int | None,
    skip_unreadable: bool,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """A folder of images, decoded or from the cache.

    The fingerprint is that of the files' bytes, so that it does not hang on the JPEG decoder.

    Args:
        folder: what `eca_lab.data.layout.list_folder` reads.
        root: where the decoded images are kept.
        name: of the data set.
        size: side to resize to in pixels, None for images that are squares of one size.
        skip_unreadable: leave out the images that cannot be decoded.
        classes: names other than the folders', in their order.

    Raises:
        OSError, ValueError: as `list_folder`; ValueError also for images that cannot be decoded, of
            different sizes without a size, or a class of which none can be read.
    """
    folders, train, test = list_folder(folder, root)
    classes = classes or folders
    stamp = _stamp(classes, train + test)
    cache = root / _cache_name(folder, size)
    content = _read_cache(cache, stamp)
    if content is None:
        content = _decode_folder(folder, classes, train, test, size) | {"stamp": stamp}
        _write_cache(cache, content)
        # Mapped from the file, the pixels need no memory of their own.
        content = _read_cache(cache, stamp) or content
    del content["stamp"]
    problems, repeated = content.pop("problems"), content.pop("repeated")
    if problems and not skip_unreadable:
        count = f"{len(problems)} unreadable of {len(train + test)} images"
        skip = "skip_unreadable=True (--skip-unreadable) leaves them out"
        raise ValueError(f"{folder}: {count}, the first {problems[0]}; {skip}")
    if repeated:
        count = f"{len(repeated):,} of {len(content['test_images']):,} test images"
        both = f"{count} are training images, too, the first {repeated[0]}"
        warnings.warn(f"{folder}: {both}. They measure training, not generalisation.", stacklevel=2)
    return Dataset(name, classes=classes, skipped=len(problems), **content)


def _stamp(classes: tuple[str, ...], samples: list[Sample]) -> str:
    """A hash of what is known of the files without reading them: 0.5 s for 60,000 of them.

    To hash their bytes takes three times as long, and far longer if they must come from a disk.
    """
    facts: list[object] = [_CACHE_VERSION, classes]
    for path, _ in samples:
        status = os.stat(path, follow_symlinks=os.path.exists(path))
        # Times can be set (cp -p, touch -d), that of the last change cannot.
        facts.append((path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return fingerprint_of(facts)


def _cache_name(folder: Path, size: int | None) -> str:
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    # Names of files end at 255 bytes, and a folder's own may be as long.
    name = os.fsencode(folder.name)[:150].decode(errors="ignore")
    return f"{name}-{size or 'unresized'}-{key}.pt"


def _write_cache(path: Path, content: dict[str, Any]) -> None:
    """Keep what was decoded, if it can be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ or error  # of a full disk torch makes a RuntimeError
        lost = "the decoded images are not kept, and will be decoded again next time"
        warnings.warn(f"{path}: {cause}; {lost}", stacklevel=2)


def _decode_folder(
    folder: Path,
    classes: tuple[str, ...],
    train: list[Sample],
    test: list[Sample],
    size: int | None,
) -> dict[str, Any]:
    """The fields of a `Dataset`; problems, a text for each image that cannot be read; and repeated,
    the paths of test images that are training images byte for byte.
    """
    samples = train + test
    images = None
    digests: list[bytes] = []
    kept: list[int] = []
    problems: list[str] = []
    # Threads are enough: Pillow, hashlib and torch let each other run while they work.
    with ThreadPool(available_cores()) as pool:
        decoded = pool.imap(partial(_decode, size=size), [path for path, _ in samples])
        bar = tqdm(decoded, f"Decoding {folder.name}", len(samples), unit=" images", disable=None)
        for index, (digest, image, problem) in enumerate(bar):
            if image is None:
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
    middle = bisect(kept, len(train) - 1)  # where the test split begins
    trained_on = set(digests[:middle])
    tests = zip(kept[middle:], digests[middle:], strict=True)
    repeated = [samples[index][0] for index, digest in tests if digest in trained_on]
    content: dict[str, Any] = {"problems": problems, "repeated": repeated}
    hashed = []
    for split, part in (("train", slice(middle)), ("test", slice(middle, len(kept)))):
        labels = torch.tensor([samples[index][1] for index in kept[part]])
        lost = {*range(len(classes))} - {*labels.tolist()}
        if images is None or lost:
            lacking = f"no {split} image of class {classes[min(lost)]!r} can be read"
            raise ValueError(f"{folder}: {lacking}; the first of the problems is {problems[0]}")
        content[f"{split}_images"] = images[part]
        content[f"{split}_labels"] = labels
        hashes = [list(digest) for digest in digests[part]]
        hashed += [torch.tensor(hashes, dtype=torch.uint8), labels]
    content["fingerprint"] = fingerprint_of(classes, *hashed)
    return content


def _decode(path: str, size: int | None) -> tuple[bytes, torch.Tensor, None] | _Failure:
    """SHA-256 of a file, its image (3, H, W), upright and in RGB, and None; else what is wrong."""
    try:
        path.encode()  # raises for a name that is not UTF-8
        if not path.lower().endswith(IMG_EXTENSIONS):
            raise ValueError(f"accepted are files that end in {', '.join(IMG_EXTENSIONS)}")
        if not os.path.isfile(path):  # to open a FIFO would wait for ever
            raise ValueError("no regular file, or a link that leads to none")
        data = Path(path).read_bytes()
        with Image.open(BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode}; accepted are 8 bits a channel")
            upright = ImageOps.exif_transpose(image).convert("RGB")
        pixels = functional.pil_to_tensor(upright)
        if size:
            pixels = to_square(pixels, size)
    except UnidentifiedImageError:  # whose text names the object that Pillow was given
        return None, None, f"{path}: no image that Pillow can identify"
    # Pillow raises whatever its many formats trip over: struct.error, KeyError, ...
    except Exception as error:
        return None, None, f"{os.fsencode(path).decode(errors='backslashreplace')}: {error}"
    return hashlib.sha256(data).digest(), pixels, None


def _read_cache(path: Path, stamp: str) -> dict[str, Any] | None:
    """Content of a cache file, its tensors mapped from it; None where it is of no use."""
    # Whatever keeps the file from being read, it can be made again.
    with suppress(Exception):
        content = torch.load(path, mmap=True, weights_only=True)
        # The file is a ZIP archive, with a checksum of all that it holds: 0.03 s for 100 MB.
        with ZipFile(path) as archive:
            if content["stamp"] == stamp and archive.testzip() is None:
                return content
    return None
