"""Folders of images, decoded once into a file that is mapped."""

import hashlib
import json
import mmap
import os
import warnings
import zlib
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from math import prod
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from eca_lab.data.dataset import Dataset, fingerprint_of, to_square
from eca_lab.data.layout import Sample, list_folder
from eca_lab.data.mapped import PIECE, allocate, count_whole, describe, open_images
from eca_lab.files import written_whole
from eca_lab.provenance import available_cores

_CACHE_VERSION = 3  # to be raised when the decoding or the layout of the cache changes
_Failure = tuple[None, None, str]  # as `_decode` gives it
# What is known of a piece that was decoded, as JSON holds it: the number of its samples; the
# indices of those that are kept, and the SHA-256 of their files; the problems of the others; the
# side of the images, None without any, and their CRC-32.
_Piece = dict[str, Any]


def load_folder(
    folder: Path,
    root: Path,
    *,
    name: str,
    size: int | None,
    skip_unreadable: bool,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """A folder of images, decoded into a file of the cache, or found there.

    The images are mapped from that file (`eca_lab.data.mapped`), so they may be more than memory
    holds. They are decoded piece by piece: after an interruption, only what is missing; of two
    processes one waits for the other. A file that was cut short or changed is made anew. Where the
    cache cannot be written, images of up to half of the memory are decoded into memory, with a
    warning.

    The fingerprint is that of the files' bytes, so that it does not hang on the JPEG decoder.

    Args:
        folder: what `eca_lab.data.layout.list_folder` reads.
        root: where the decoded images are kept.
        name: of the data set.
        size: side to resize to in pixels, None for images that are squares of one size.
        skip_unreadable: leave out the images that cannot be decoded.
        classes: names other than the folders', in their order.

    Raises:
        OSError, ValueError: as `list_folder`; OSError also where neither cache nor memory can take
            the images; ValueError also for images that cannot be decoded, of different sizes
            without a size, or a class of which none can be read.
    """
    folders, train, test = list_folder(folder, root)
    classes = classes or folders
    decoding = _Decoding(folder, classes, train, test, size)
    cache = _Cache(root, _cache_name(folder, size), _stamp(classes, train + test))
    try:
        content = cache.read() or cache.make(decoding)
    except OSError as error:
        content = decoding.into_memory(error)
        lost = "the decoded images are not kept, and will be decoded again next time"
        warnings.warn(f"{cache.index}: {error}; {lost}", stacklevel=2)
    problems, repeated = content["problems"], content["repeated"]
    if problems and not skip_unreadable:
        count = f"{len(problems)} unreadable of {len(train + test)} images"
        skip = "skip_unreadable=True (--skip-unreadable) leaves them out"
        raise ValueError(f"{folder}: {count}, the first {problems[0]}; {skip}")
    labels = torch.tensor(content["labels"])
    middle = content["train_count"]
    if repeated:
        count = f"{len(repeated):,} of {len(labels) - middle:,} test images"
        both = f"{count} are training images, too, the first {repeated[0]}"
        warnings.warn(f"{folder}: {both}. They measure training, not generalisation.", stacklevel=2)
    images = content["images"]
    return Dataset(
        name,
        train_images=images[:middle],
        train_labels=labels[:middle],
        test_images=images[middle:],
        test_labels=labels[middle:],
        classes=classes,
        fingerprint=content["fingerprint"],
        skipped=len(problems),
        files=content.get("files", ()),
    )


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
    return f"{name}-{size or 'unresized'}-{key}"


class _Decoding:
    """A folder that is to be decoded; the arguments are those of `load_folder`, and its samples."""

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        train: list[Sample],
        test: list[Sample],
        size: int | None,
    ) -> None:
        self.samples = train + test
        self._folder = folder
        self._classes = classes
        self._train_count = len(train)
        self._size = size

    def pieces(self, done: list[_Piece]) -> Iterator[tuple[_Piece, list[torch.Tensor]]]:
        """Each piece behind those that are done, and its images (3, side, side).

        ValueError for an image that is not of the size of the others.
        """
        side = _side(done)
        first = sum(piece["samples"] for piece in done)
        decode = partial(_decode, size=self._size)
        bar = tqdm(
            desc=f"Decoding {self._folder.name}",
            total=len(self.samples),
            initial=first,
            unit=" images",
            disable=None,
        )
        # Threads are enough: Pillow, hashlib and torch let each other run while they work.
        with ThreadPool(available_cores()) as pool, bar:
            while first < len(self.samples):
                count = max(1, PIECE // (3 * (side or self._size or 256) ** 2))
                paths = [path for path, _ in self.samples[first : first + count]]
                piece: _Piece = {"samples": len(paths), "kept": [], "files": [], "problems": []}
                images = []
                checksum = 0
                for index, (digest, image, problem) in enumerate(pool.imap(decode, paths), first):
                    bar.update()
                    if image is None:
                        piece["problems"].append(problem)
                        continue
                    _, height, width = image.shape
                    side = side or height
                    if (height, width) != (side, side):
                        odd = f"{paths[index - first]} is {width} x {height}"
                        whole = f"{self._folder}: not all squares of one size"
                        raise ValueError(f"{whole}, {odd}; give a size")
                    piece["kept"].append(index)
                    piece["files"].append(digest.hex())
                    images.append(image.contiguous())
                    checksum = zlib.crc32(images[-1].numpy().data, checksum)
                yield piece | {"side": side if images else None, "checksum": checksum}, images
                first += len(paths)

    def content(self, pieces: list[_Piece]) -> dict[str, Any]:
        """What is to be known of all pieces, as JSON holds it.

        train_count and labels, of the images that are kept; their fingerprint; problems, a text
        for each image that cannot be read; and repeated, the paths of test images that are
        training images byte for byte. ValueError for a class without an image.
        """
        kept = [index for piece in pieces for index in piece["kept"]]
        files = [bytes.fromhex(file) for piece in pieces for file in piece["files"]]
        problems = [problem for piece in pieces for problem in piece["problems"]]
        labels = [self.samples[index][1] for index in kept]
        middle = bisect(kept, self._train_count - 1)  # where the test split begins
        hashed = []
        for split, part in (("train", slice(middle)), ("test", slice(middle, len(kept)))):
            if lost := {*range(len(self._classes))} - {*labels[part]}:
                lacking = f"no {split} image of class {self._classes[min(lost)]!r} can be read"
                first = f"the first of the problems is {problems[0]}"
                raise ValueError(f"{self._folder}: {lacking}; {first}")
            digests = np.frombuffer(bytearray(b"".join(files[part])), np.uint8).reshape(-1, 32)
            hashed += [torch.from_numpy(digests), torch.tensor(labels[part])]
        trained_on = {*files[:middle]}
        tests = zip(kept[middle:], files[middle:], strict=True)
        return {
            "train_count": middle,
            "labels": labels,
            "fingerprint": fingerprint_of(self._classes, *hashed),
            "problems": problems,
            "repeated": [self.samples[index][0] for index, file in tests if file in trained_on],
        }

    def into_memory(self, cause: OSError) -> dict[str, Any]:
        """The `content`, and images, which could not be kept for some cause.

        OSError where half of the memory would not do for them.
        """
        memory: mmap.mmap | None = None
        pieces = []
        for piece, images in self.pieces([]):
            if images and memory is None:
                memory = mmap.mmap(-1, self._checked(images[0].numel() * len(self.samples), cause))
            for image in images:
                memory.write(image.numpy().data)
            pieces.append(piece)
        content = self.content(pieces)
        shape = _shape(pieces)
        whole = torch.frombuffer(memory, dtype=torch.uint8, count=prod(shape))
        return content | {"images": whole.view(shape)}

    def _checked(self, size: int, cause: OSError) -> int:
        """A number of bytes; OSError for more than half of the memory, where that is known."""
        with suppress(AttributeError, ValueError):  # on Windows it is not
            if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2:
                raise OSError(
                    f"{self._folder}: its images take {size / 1e9:,.1f} GB decoded, more than half "
                    f"of the memory, and the cache cannot keep them: {cause}. Make room there"
                ) from cause
        return size


class _Cache:
    """What is kept of a folder: an index, and the file of its images, with its stamp in the name.

    The file is written once, so that images that are in use never change. Until it is whole, a
    journal beside it has a line for each `_Piece` that is on the disk.
    """

    def __init__(self, root: Path, name: str, stamp: str) -> None:
        self.index = root / f"{name}.json"
        self._root = root
        self._name = name
        self._stamp = stamp
        self._images = root / f"{name}-{stamp[:12]}.images"
        self._journal = self._images.with_suffix(".journal")

    def read(self) -> dict[str, Any] | None:
        """The `_Decoding.content`, images, and the files that they are mapped from.

        None where the cache is of no use.
        """
        # Whatever keeps it from being read, it can be made again.
        with suppress(Exception):
            content = json.loads(self.index.read_bytes())
            if content["stamp"] != self._stamp:
                return None
            file = open_images(self._images, content["images"])
            if file is not None:
                return content | {"images": file.images, "files": (file,)}
        return None

    def make(self, decoding: _Decoding) -> dict[str, Any]:
        """Decode into the file, from where that was interrupted, and `read`.

        OSError where it cannot be kept; then, and for errors in the images, nothing is left of it.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with _locked(self._root / f".{self._name}.lock"):
            if content := self.read():  # another process has made it meanwhile
                return content
            try:
                self._write(decoding)
            except (OSError, ValueError):
                self._images.unlink(missing_ok=True)
                self._journal.unlink(missing_ok=True)
                raise
            self._remove_others()
        if content := self.read():
            return content
        raise OSError(f"{self._images.name} cannot be read back")

    def _write(self, decoding: _Decoding) -> None:
        done = self._done()
        if not done:  # whoever has an older one mapped shall keep it
            self._images.unlink(missing_ok=True)
        self._images.touch()
        start = prod(_shape(done))
        pieces = [*done]
        with open(self._images, "r+b") as file, open(self._journal, "w") as journal:
            file.truncate(start)
            file.seek(start)
            # Written anew, too: the last line may be torn.
            journal.writelines(f"{json.dumps(piece)}\n" for piece in done)
            allocated = False
            for piece, images in decoding.pieces(done):
                if images and not allocated:
                    allocate(file, images[0].numel() * len(decoding.samples))
                    allocated = True
                for image in images:
                    file.write(image.numpy().data)
                file.flush()
                os.fsync(file.fileno())
                journal.write(f"{json.dumps(piece)}\n")
                journal.flush()
                pieces.append(piece)
            content = decoding.content(pieces)
            file.truncate(prod(_shape(pieces)))
            os.fsync(file.fileno())
        content["images"] = describe(self._images, _shape(pieces), _checksums(pieces))
        content["stamp"] = self._stamp
        with written_whole(self.index) as index:
            index.write(json.dumps(content).encode())

    def _done(self) -> list[_Piece]:
        """The pieces of an interrupted decoding that are on the disk."""
        done: list[_Piece] = []
        with suppress(OSError, ValueError):  # there was none; its last line is torn
            for line in self._journal.read_text().splitlines():
                done.append(json.loads(line))
        with suppress(OSError):
            image_bytes = prod(_shape(done)[1:])
            return done[: count_whole(self._images, _checksums(done), image_bytes)]
        return []

    def _remove_others(self) -> None:
        """The journal, what there is of the folder as it was before, and the cache of version 2."""
        with suppress(OSError):  # what is in use on Windows
            self._journal.unlink()
            (self._root / f"{self._name}.pt").unlink(missing_ok=True)
            for path in self._root.iterdir():
                if path.name.startswith(f"{self._name}-") and not self._is_current(path):
                    path.unlink()

    def _is_current(self, path: Path) -> bool:
        return path.name.startswith(self._images.stem)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time. Says so where it has to wait."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        warnings.warn(f"{path}: another process decodes these images; waiting", stacklevel=5)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _shape(pieces: list[_Piece]) -> tuple[int, int, int, int]:
    """The shape of the images of all pieces."""
    side = _side(pieces) or 0
    return sum(len(piece["kept"]) for piece in pieces), 3, side, side


def _side(pieces: list[_Piece]) -> int | None:
    """The side of the images; None where there are none."""
    return next((piece["side"] for piece in pieces if piece["side"]), None)


def _checksums(pieces: list[_Piece]) -> list[tuple[int, int]]:
    """How many images each piece has, and their CRC-32."""
    return [(len(piece["kept"]), piece["checksum"]) for piece in pieces]


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
