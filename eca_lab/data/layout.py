"""Where the images of a folder lie; and, where they lie otherwise, what to do about it."""

import os
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS

Sample = tuple[str, int]  # path and label of an image

ACCEPTED = "train/ and test/ or val/, with a folder of images for each class"
# Images, but none that are read: whoever has some shall hear of it.
OTHER_IMAGES = (".apng", ".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".svg")
ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip")
# What systems leave beside images. So is all that begins with a dot: ._x.jpg, .ipynb_checkpoints.
LEFTOVERS = {"__MACOSX", "@eaDir", "desktop.ini", "Thumbs.db"}
# Where Tiny ImageNet says the classes of val/images: a line for each, of name, class and a box.
ANNOTATIONS = "val_annotations.txt"

_PICKLES = "{0} as it is downloaded: move {1} into {{root}}, and give {2} in place of folder:PATH."
_BINARY = "The binary version of {0} is not read: give {1} in place of folder:PATH."
# Names by which a data set is known in a form that is not read, and what to do then.
_KNOWN = [
    (
        {"cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1"},
        _PICKLES.format("CIFAR-10", "cifar-10-batches-py/ or cifar-10-python.tar.gz", "cifar10"),
    ),
    (
        {"cifar-100-python", "cifar-100-python.tar.gz", "meta"},
        _PICKLES.format("CIFAR-100", "cifar-100-python/ or cifar-100-python.tar.gz", "cifar100"),
    ),
    (
        {"cifar-10-batches-bin", "cifar-10-binary.tar.gz", "data_batch_1.bin"},
        _BINARY.format("CIFAR-10", "cifar10"),
    ),
    (
        {"cifar-100-binary", "cifar-100-binary.tar.gz", "train.bin"},
        _BINARY.format("CIFAR-100", "cifar100"),
    ),
    (
        {"stl10_binary", "stl10_binary.tar.gz", "train_X.bin"},
        "The binary version of STL-10 is not read: torchvision.datasets.STL10 reads it; save its "
        "images as train/CLASS/NUMBER.png and test/CLASS/NUMBER.png.",
    ),
    (
        {"train_images"},
        "Rename train_images to train and test_images to test, and move each image into a folder "
        "for its class.",
    ),
    (
        {"train.X1"},
        "ImageNet-100 comes in parts: mkdir train && mv train.X*/* train/ && mv val.X val",
    ),
    (
        {"ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"},
        "torchvision.datasets.ImageNet(PATH, 'train') and (PATH, 'val') unpack these archives and "
        "sort their images, with ILSVRC2012_devkit_t12.tar.gz beside them.",
    ),
]


def list_folder(folder: Path, root: Path) -> tuple[tuple[str, ...], list[Sample], list[Sample]]:
    """Names of the classes; path and label of each training image, and of each test image.

    The test split is test/, or val/ where there is no test/, or one without labels. root is where
    downloads lie. FileNotFoundError, NotADirectoryError, ValueError: a folder that cannot be read,
    with what was found in it and what to do; OSError: what may not be read.
    """
    try:
        os.listdir(folder)
    except NotADirectoryError:
        problem = f"{folder}: a file; accepted is a folder with {ACCEPTED}"
        advice = _known({folder.name}, root) or "Unpack it, if it is an archive."
        raise NotADirectoryError(f"{problem}. {advice}") from None
    except FileNotFoundError:
        problem = f"{folder}: no such folder; accepted is one with {ACCEPTED}"
        raise FileNotFoundError(problem) from None
    train = folder / "train"
    if not train.is_dir():
        raise _missing(train, root)
    folders = _folders(train)
    if len(folders) < 2:
        accepted = "accepted are two or more, a folder of images for each"
        raise ValueError(
            f"{folder}: classes={folders!r}: {accepted}. {train} holds {_found(train)}. "
            + (_sorting(train) or _advice(folder, root))
        )
    test = _test_split(folder, folders, root)
    if not {*folders} & {*_folders(test)}:
        samples = _with_annotations(folders, test)
        return tuple(folders), _list_split(train, folders), samples
    classes = _common_classes(train, test)
    return classes, _list_split(train, classes), _list_split(test, classes)


def _test_split(folder: Path, classes: list[str], root: Path) -> Path:
    """The first of test/ and val/ that says the classes of its images."""
    splits = [split for split in (folder / "test", folder / "val") if split.is_dir()]
    if not splits:
        raise _missing(folder / "val", root)
    for split in splits:
        if {*classes} & {*_folders(split)} or (split / ANNOTATIONS).is_file():
            break
    else:
        held = "; ".join(f"{split.name}/ holds {_found(split)}" for split in splits)
        usual = "Move each image into the folder of its class."
        advice = _sorting(splits[-1]) or _sorting(splits[0]) or usual
        raise ValueError(
            f"{folder}: no classes of test images. {held}. Accepted is a folder of images for each "
            f"class of train/, which are {_few(classes)}. {advice}"
        )
    if split != splits[0]:
        passed = f"test/ holds {_found(splits[0])}, and no class of train/"
        warnings.warn(f"{folder}: {passed}. The test images are those of val/.", stacklevel=2)
    return split


def _common_classes(train: Path, test: Path) -> tuple[str, ...]:
    """Names of the classes, which must be the same in both splits."""
    classes = {*_folders(train)}
    tested = {*_folders(test)}
    lacking = classes - tested
    # Scripts that sort images leave the folder empty where they were.
    more = {name for name in tested - classes if _has_image(test / name)}
    if lacking or more:
        counts = [("train", lacking), (test.name, more)]
        held = ", ".join(f"{name}/ has {_few(only)}" for name, only in counts if only)
        raise ValueError(
            f"{train.parent}: {_few(lacking | more)} in one split only: {held}; accepted are equal "
            "classes in both, so move elsewhere what is no class"
        )
    return tuple(sorted(classes))


def _list_split(split: Path, classes: Iterable[str]) -> list[Sample]:
    """Path and label of each image, in the order of torchvision's `ImageFolder`.

    Links are followed, but to no folder twice: images would be repeated, or it would never end.
    """
    if beside := [entry.name for entry in _entries(split) if _is_image(entry)]:
        raise ValueError(
            f"{split}: {_few(beside)} beside the folders of the classes; move images into the "
            "folder of their class, or elsewhere"
        )
    above = (split.resolve(), *split.resolve().parents)
    seen: dict[Path, Path | str] = {path: path for path in above}
    samples = []
    for label, name in enumerate(classes):
        files = []
        for place, folders, names in os.walk(split / name, onerror=_fail, followlinks=True):
            real = Path(place).resolve()
            if real in seen:
                accepted = "accepted are links that lead to no folder twice"
                raise ValueError(f"{place} and {seen[real]} are one folder: {accepted}")
            seen[real] = place
            folders[:] = [folder for folder in folders if _is_content(folder)]
            files += [(place, name) for name in names if _is_image_name(name)]
        _check_endings(split / name, [file for _, file in files])
        samples += [(os.path.join(*file), label) for file in sorted(files)]
    return samples


def _with_annotations(classes: list[str], test: Path) -> list[Sample]:
    """Path and label of each test image, in Tiny ImageNet's val/images."""
    place = test / "images"
    source = test / ANNOTATIONS
    annotated = {}
    for line in source.read_text(encoding="utf-8").splitlines():
        name, tab, rest = line.partition("\t")
        if tab:
            annotated[name] = rest.split("\t")[0]
    images = set()
    if place.is_dir():
        images = {entry.name for entry in _entries(place) if _is_image(entry)}
    if only := images ^ annotated.keys():
        raise ValueError(
            f"{source}: {_few(only)} either without a line or without an image in {place}; "
            "accepted is one line for each image"
        )
    if only := {*annotated.values()} ^ {*classes}:
        raise ValueError(
            f"{source}: {_few(only)} in one split only; accepted are the classes of train/, which "
            f"are {_few(classes)}"
        )
    labels = {name: classes.index(chosen) for name, chosen in annotated.items()}
    ordered = sorted(images, key=lambda name: (labels[name], name))
    return [(os.path.join(place, name), labels[name]) for name in ordered]


def _check_endings(place: Path, names: list[str]) -> None:
    """Raise ValueError for a folder without an image that is read."""
    if not any(name.lower().endswith(IMG_EXTENSIONS) for name in names):
        others = f" but {_few(names)}, which are not read" if names else ""
        endings = ", ".join(IMG_EXTENSIONS)
        raise ValueError(f"{place}: no images{others}; accepted are files that end in {endings}")


# --- What is found, and what to do ---


def _missing(split: Path, root: Path) -> FileNotFoundError:
    """The error for a split that is not there."""
    folder = split.parent
    found = f"Found in {folder}: {_found(folder)}."
    advice = _advice(folder, root)
    return FileNotFoundError(f"{split}: no such folder; accepted are {ACCEPTED}. {found} {advice}")


def _found(place: Path) -> str:
    """What lies in a folder: how much of each kind, and the first names."""
    kinds: dict[str, list[str]] = {"folder": [], "image": [], "archive": [], "other file": []}
    for entry in _entries(place):
        if entry.is_dir():
            kind = "folder"
        elif _is_image(entry):
            kind = "image"
        elif entry.name.lower().endswith(ARCHIVES):
            kind = "archive"
        else:
            kind = "other file"
        kinds[kind].append(entry.name)
    counts = []
    for kind, names in kinds.items():
        plural = "s" if len(names) > 1 else ""
        if names:
            counts.append(f"{len(names):,} {kind}{plural} ({_first(names)})")
    return ", ".join(counts) or "nothing"


def _few(names: Collection[str]) -> str:
    """The names, or where there are many their number and the first."""
    return ", ".join(sorted(names)) if len(names) < 6 else f"{len(names):,} ({_first(names)})"


def _first(names: Collection[str]) -> str:
    first = sorted(names)[:3]
    if len(names) > 3:
        first.append("…")
    return ", ".join(first)


def _advice(folder: Path, root: Path) -> str:
    """What to do about a folder without splits."""
    names = [entry.name for entry in _entries(folder)]
    if known := _known({*names}, root):
        return known
    if folder.name in ("train", "test", "val") and (folder.parent / "train").is_dir():
        return f"Give the folder above it: folder:{folder.parent}"
    if nested := _nested(folder):
        meant = " or ".join(f"folder:{path}" for path in nested[:3])
        return f"Is {meant} meant?"
    if any(name.lower().endswith(ARCHIVES) for name in names):
        return "Unpack the archives first."
    return "Rename what is named otherwise, or make these folders: no split is made here."


def _nested(folder: Path) -> list[Path]:
    """The folders with a train/ that lie highest within a folder, down to ILSVRC/Data/CLS-LOC."""
    for depth in range(1, 4):
        holders = sorted(train.parent for train in folder.glob("*/" * depth + "train"))
        if found := [holder for holder in holders if LEFTOVERS.isdisjoint(holder.parts)]:
            return found
    return []


def _known(names: set[str], root: Path) -> str | None:
    """What to do about a data set that is known by the names of its files; None if it is not."""
    for known, advice in _KNOWN:
        if known & names:
            return advice.format(root=root)
    return None


def _sorting(split: Path) -> str | None:
    """How to sort a split in which images or archives lie side by side; None if none do."""
    names = [entry.name for entry in _entries(split)]
    if any(name.startswith("ILSVRC2012_val_") for name in names):
        return (
            f"Run valprep.sh, of soumith/imagenetloader.torch, in {split}: it moves each image "
            "into the folder of its class."
        )
    if any(name.lower().endswith(".tar") for name in names):
        loop = "for each in *.tar; do mkdir ${each%.tar}; tar -xf $each -C ${each%.tar}; done"
        return f"Unpack each archive into a folder of its name: cd {split}; {loop}"
    if any(_is_image_name(name) for name in names):
        return f"Move each image in {split} into a folder for its class."
    return None


# --- Entries of a folder ---


def _entries(place: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name, without what systems leave there."""
    with os.scandir(place) as entries:
        content = [entry for entry in entries if _is_content(entry.name)]
    return sorted(content, key=lambda entry: entry.name)


def _folders(place: Path) -> list[str]:
    """Names of the folders in a split. A class behind a dead link would be left out in silence."""
    entries = _entries(place)
    links = [entry for entry in entries if entry.is_symlink()]
    if dead := [link.name for link in links if not os.path.exists(link)]:
        raise FileNotFoundError(f"{place}: {_few(dead)} leads nowhere; mend or remove such links")
    return [entry.name for entry in entries if entry.is_dir()]


def _has_image(place: Path) -> bool:
    walk = os.walk(place, onerror=_fail, followlinks=False)
    return any(_is_image_name(name) for _, _, names in walk for name in names)


def _is_image(entry: os.DirEntry[str]) -> bool:
    return _is_image_name(entry.name) and not entry.is_dir()


def _is_image_name(name: str) -> bool:
    return _is_content(name) and name.lower().endswith((*IMG_EXTENSIONS, *OTHER_IMAGES))


def _is_content(name: str) -> bool:
    return not name.startswith(".") and name not in LEFTOVERS


def _fail(error: OSError) -> NoReturn:
    raise error  # os.walk would leave out in silence what it may not read
