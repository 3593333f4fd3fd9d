"""Files that are there whole or not at all, and folders that are read whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def _checkout() -> Path:
    """The folder that has the folders data and notebooks, which are no part of the package.

    It has the package, too, or is the working directory, or the nearest above that. If there is
    none, it is the working directory: there they would be made.
    """
    beside = Path(__file__).resolve().parent.parent
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was removed
        return beside
    ways = (beside, here, *here.parents)
    return next((way for way in ways if (way / "data" / "studies").is_dir()), here)


CHECKOUT = _checkout()
DATA = CHECKOUT / "data"


@contextmanager
def written_whole(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which takes its name only when all of it is on the disk.

    Whatever happens before, a file that had the name stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_regular(path: str | Path) -> bytes:
    """The bytes of a file. OSError, and ValueError as `check_regular`."""
    check_regular(path)
    return Path(path).read_bytes()


def check_regular(path: str | Path) -> None:
    """Raise ValueError for a FIFO, a device or a folder: to open one might take for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no regular file")


def listed(folder: str | Path, ending: str) -> list[Path]:
    """Sorted paths of what ends so in a folder; OSError where it cannot be listed.

    `Path.glob` would give an empty list there.
    """
    return sorted(Path(folder, name) for name in os.listdir(folder) if name.endswith(ending))


def check_folder(name: str, value: str | os.PathLike[str]) -> Path:
    """Raise ValueError for an empty path, OSError for one where there is, or can be, no folder.

    Gives the folder itself, or the one that is there on the way to it.
    """
    if not os.fspath(value):
        raise ValueError(f"{name}='': accepted is the path of a folder, '.' for this one")
    path = Path(value).absolute()
    ways = (path, *path.parents)
    place = next(way for way in ways if way.is_symlink() or way.exists())
    if not place.is_dir():
        accepted = "accepted is a folder, or where one can be made"
        why = f"Not a directory: {str(value)!r}, since {str(place)!r} is none"
        raise NotADirectoryError(f"{name}: {why}; {accepted}")
    return place
