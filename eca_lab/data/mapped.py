"""Images in a file that is mapped into memory, by all processes that need them."""

import errno
import json
import mmap
import os
import sys
import weakref
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch

from eca_lab.files import written_whole

PIECE = 2**25  # bytes that are decoded, checked or copied at a time
# File systems that cannot set space aside say so by one of these.
_NO_ALLOCATION = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class ImageFile:
    """uint8 images (N, 3, H, W), one after the other in a file, as a tensor that is mapped from it.

    The pages that are read are the system's, one copy for all processes, and it takes them back
    where memory is short. What is written into the tensor reaches neither the file nor another
    process. To another process it goes by its path, which must lead there to the same file.

    Args:
        path: of the file.
        shape: (N, 3, H, W).
        seen: its size in bytes and the time of its last change in ns, which it must have.

    Raises:
        OSError: no such file, or one of another size or time.
    """

    def __init__(self, path: Path, shape: Sequence[int], seen: Sequence[int]) -> None:
        self.path = path.absolute()  # other processes may work in another folder
        self.shape = tuple(shape)
        self.seen = tuple(seen)
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)
        self.check()
        mapped = mmap.mmap(self._descriptor, prod(shape), **_private())
        self.images = torch.frombuffer(mapped, dtype=torch.uint8).view(self.shape)

    def check(self) -> None:
        """Raise OSError for a file that was cut short or changed, even while it is mapped.

        To read what was cut off would end the process (SIGBUS): ask before each batch. Between the
        question and the reading there is no protection.
        """
        found = _facts(self._descriptor)
        if found != self.seen:
            (size, _), (was, _) = found, self.seen
            now = "its time is another" if size == was else f"{size:,} bytes, not {was:,}"
            advice = "start again: what is not whole is made anew"
            raise OSError(f"{self.path}: cut short or changed while it was in use, {now}; {advice}")

    def offset(self, images: torch.Tensor) -> int | None:
        """Where in this file a tensor of images begins; None for one that is not mapped from it."""
        if images.untyped_storage().data_ptr() != self.images.untyped_storage().data_ptr():
            return None
        return int(images.storage_offset()) if images.is_contiguous() else None

    def at(self, offset: int, shape: Sequence[int]) -> torch.Tensor:
        """The images that begin there."""
        return self.images.flatten()[offset:][: prod(shape)].view(tuple(shape))

    def __reduce__(self) -> tuple[type["ImageFile"], tuple[Any, ...]]:
        return ImageFile, (self.path, self.shape, self.seen)


def _private() -> dict[str, Any]:
    """How a file is mapped so that a write makes a copy of the page."""
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return {"access": mmap.ACCESS_COPY}
    # Else Linux counts every page as if it would be written to, and refuses more than its memory.
    reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
    return {"flags": mmap.MAP_PRIVATE | reserve, "prot": mmap.PROT_READ | mmap.PROT_WRITE}


def _facts(file: int | Path) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def describe(path: Path, shape: Sequence[int], pieces: Iterable[Sequence[int]]) -> dict[str, Any]:
    """What `open_images` must know of a file that is whole, as JSON holds it.

    Args:
        path: of the file.
        shape: of its images.
        pieces: (how many images, their CRC-32), one after the other.
    """
    return {"shape": list(shape), "seen": _facts(path), "pieces": list(pieces)}


def open_images(path: Path, described: dict[str, Any]) -> ImageFile | None:
    """The images of a file; None where it is not there, or not what `describe` saw.

    Where size and time are what they were, that is enough. Where the time is another, as of a
    copy, every piece is read and compared: about a second for each GB that is in memory.
    """
    shape, seen = described["shape"], tuple(described["seen"])
    with suppress(OSError):
        found = _facts(path)
        if found[0] != prod(shape) or found[0] != seen[0]:
            return None
        pieces = described["pieces"]
        if found == seen or count_whole(path, pieces, prod(shape[1:])) == len(pieces):
            return ImageFile(path, shape, found)
    return None


def copy_images(images: torch.Tensor, indices: torch.Tensor, path: Path) -> ImageFile:
    """Some images in a file of their own, piece by piece, unless it is there and whole.

    Args:
        images: (N, 3, H, W) uint8.
        indices: of those that are wanted, in the order in which they are.
        path: of the file, which is named by what it holds. Beside it lies what is known of it.

    Raises:
        OSError: where the file cannot be kept; there is none then.
    """
    index = path.with_suffix(".json")
    with suppress(OSError, ValueError):
        if found := open_images(path, json.loads(index.read_bytes())):
            return found
    size = images[0].numel()
    pieces = []
    try:
        with written_whole(path) as file:
            allocate(file, len(indices) * size)
            for part in indices.split(max(1, PIECE // size)):
                content = images[part].numpy().data
                file.write(content)
                pieces.append((len(part), zlib.crc32(content)))
        described = describe(path, (len(indices), *images.shape[1:]), pieces)
        with written_whole(index) as file:
            file.write(json.dumps(described).encode())
    except OSError as error:
        need = f"the chosen images take {len(indices) * size / 1e9:,.1f} GB there"
        raise OSError(f"{path}: {need}, which cannot be kept: {error}") from error
    return ImageFile(path, described["shape"], described["seen"])


def count_whole(path: Path, pieces: Iterable[Sequence[int]], image_bytes: int) -> int:
    """How many pieces, from the start of a file, have their checksum."""
    count = 0
    with open(path, "rb") as file:
        for images, checksum in pieces:
            if _checksum(file, images * image_bytes) != checksum:
                break
            count += 1
    return count


def _checksum(file: BinaryIO, size: int) -> int:
    """CRC-32 of the next bytes of a file."""
    checksum = 0
    while size > 0 and (part := file.read(min(size, PIECE))):
        checksum = zlib.crc32(part, checksum)
        size -= len(part)
    return checksum if size == 0 else -1


def allocate(file: BinaryIO, size: int) -> None:
    """Set so many bytes aside for a file. OSError where the disk has no room for them.

    On systems and file systems that cannot do that, writing will tell.
    """
    if not hasattr(os, "posix_fallocate") or not size:
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _NO_ALLOCATION:
            raise
