"""Images to train on, as uint8 tensors, with augmentation on the device where they live.

`load_dataset` reads CIFAR-10, CIFAR-100, Imagenette, any folder of images, or makes the embedded
set of shapes. The images are held whole: augmentation, normalisation and the network then work on
batches of one tensor, and no worker process feeds them.

Notation: N is the number of images, H = W the side of the square images in pixels.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from torch.nn.functional import pad
from torch.utils.data import DataLoader
from torchvision.datasets.folder import IMG_EXTENSIONS, ImageFolder
from torchvision.ops import roi_align
from torchvision.transforms.v2 import functional
from tqdm import tqdm

NAMES = ("shapes", "cifar10", "cifar100", "imagenette")

# How hard the shapes are: the backbone `tiny` without attention gets 82% of the test images right
# after ten epochs, about 70 s on two cores.
CONTRAST = 0.5  # mean distance between the colours of a shape and of its background, RGB in 0..1
CLUTTER = 4  # spots per image, one of them in front of the shape
NOISE = 0.08  # largest amplitude of the noise on each value, in 0..1

_TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
_VALUES_PER_CHUNK = 2**24  # of an image tensor worked on at a time: 16 MiB
_FILES_PER_BATCH = 128  # a folder with fewer files is decoded without worker processes
_CACHE_VERSION = 1  # to be raised when the decoding or the layout of the cache changes


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, held whole.

    Attributes:
        name: as given to `load_dataset`; of a folder, the last part of its path.
        train_images: (N, 3, H, W) uint8.
        train_labels: (N,) int64, indices into classes.
        test_images, test_labels: likewise.
        classes: names of the classes.
        fingerprint: of the content, hexadecimal; equal on every machine.
        skipped: how many unreadable images of the source were left out.
    """

    name: str
    train_images: torch.Tensor = field(repr=False)
    train_labels: torch.Tensor = field(repr=False)
    test_images: torch.Tensor = field(repr=False)
    test_labels: torch.Tensor = field(repr=False)
    classes: tuple[str, ...]
    fingerprint: str
    skipped: int = 0

    @property
    def size(self):
        """Side of the images in pixels."""
        return self.train_images.shape[-1]

    def to(self, device):
        """The same data set with its tensors on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    # To another process it goes as arrays: tensors would go through shared memory, of which a
    # container has 64 MiB as a rule.
    def __getstate__(self):
        return self.__dict__ | {name: getattr(self, name).cpu().numpy() for name in _TENSORS}

    def __setstate__(self, state):
        tensors = {name: torch.tensor(state[name]) for name in _TENSORS}
        self.__dict__.update(state | tensors)


def load_dataset(
    name,
    root="data/cache",
    size=None,
    classes=None,
    per_class=None,
    seed=0,
    unreadable="error",
    progress=True,
):
    """Load a data set, or a part of it.

    Args:
        name: what to load.
            "shapes": ten shapes on cluttered backgrounds, 32 x 32, made by `_shapes` on the spot.
            "cifar10", "cifar100": downloaded where root does not hold them yet.
            "imagenette": likewise; of its three archives the smallest whose shorter side is at
            least size. Without a size, 160 x 160.
            "folder:PATH": PATH/train and PATH/test, or PATH/val where there is no test, with a
            folder of images for each class. Decoded once, into a file under root, and again when
            a file was added, removed or changed.
        root: folder for downloads and decoded images.
        size: side to resize to, in pixels, at least 4. Of an image that is not square, the shorter
            side is resized and the centre kept. None keeps the images as they are.
        classes: None for all, a number of classes to draw, or their names. Labels are numbered
            from 0 in the order of the data set.
        per_class: number of training images to draw from each class; None for all. The test
            split stays whole: more test images mean a smaller error.
        seed: of both draws, 0 to 2^32 - 1. Draws are nested: 100 images of a class are among the
            200 of the same seed, whatever the other classes.
        unreadable: "error", or "skip" to leave out the images that cannot be decoded.
        progress: show a progress bar while decoding.

    Returns:
        A `Dataset` on the CPU. Its fingerprint is a hash of the source (every byte of the images
        or of their files, labels, names of classes), of the size and of the images chosen.

    Raises:
        TypeError, ValueError: an argument that is not accepted; more classes or images asked for
            than there are; images of different sizes without a size; unusable images or folders.
        FileNotFoundError: no such folder.
        OSError: root cannot be written.
    """
    _check_arguments(name, size, classes, per_class, seed, unreadable)
    root = Path(root)
    if name == "shapes":
        source = _shapes()
    elif name == "imagenette":
        source = _imagenette(root, size or 160, unreadable, progress)
    elif name in NAMES:
        source = _cifar(name, root)
    else:
        folder = Path(name.removeprefix("folder:")).expanduser().resolve()
        # Named without the rest of its path, which is nobody else's business in a recorded result.
        source = _folder(folder.name, folder, root, size, unreadable, progress)
    return _select(source, size, classes, per_class, seed)


def _select(source, size, classes, per_class, seed):
    """The chosen classes and training images of a data set, resized."""
    chosen = torch.tensor(_choose_classes(source, classes, seed))
    if per_class is None:
        train = torch.isin(source.train_labels, chosen).nonzero().flatten()
    else:
        drawn = [_draw_images(source, label, per_class, seed) for label in chosen.tolist()]
        train = torch.cat(drawn).sort().values
    test = torch.isin(source.test_labels, chosen).nonzero().flatten()
    size = size or source.size
    return replace(
        source,
        train_images=_resize(_take(source.train_images, train), size),
        train_labels=torch.searchsorted(chosen, source.train_labels[train]),
        test_images=_resize(_take(source.test_images, test), size),
        test_labels=torch.searchsorted(chosen, source.test_labels[test]),
        classes=tuple(source.classes[label] for label in chosen.tolist()),
        fingerprint=_fingerprint([source.fingerprint, size], chosen, train, test),
    )


def _choose_classes(source, classes, seed):
    """Sorted labels of the classes asked for."""
    count = len(source.classes)
    if classes is None:
        return list(range(count))
    if isinstance(classes, Integral):
        if classes > count:
            raise ValueError(f"classes={classes}: {source.name} has {count}")
        # RandomState, unlike NumPy's and torch's newer generators, is promised never to change.
        return sorted(np.random.RandomState(seed).permutation(count)[:classes].tolist())
    unknown = [name for name in classes if name not in source.classes]
    if unknown:
        raise ValueError(
            f"classes: {source.name} has no {', '.join(map(repr, unknown))}; accepted are "
            + ", ".join(source.classes)
        )
    return sorted(source.classes.index(name) for name in classes)


def _draw_images(source, label, per_class, seed):
    """Indices of so many training images of a class."""
    members = (source.train_labels == label).nonzero().flatten()
    if per_class > len(members):
        raise ValueError(
            f"per_class={per_class}: class {source.classes[label]!r} of {source.name} has "
            f"{len(members)} training images"
        )
    # A stream for each class, so that its draw does not depend on the other classes chosen.
    order = np.random.RandomState([seed, label]).permutation(len(members))
    return members[torch.from_numpy(order[:per_class])]


def _take(images, indices):
    """images[indices], for sorted indices; the images themselves, not a copy, where all are."""
    return images if len(indices) == len(images) else images[indices]


def _resize(images, size):
    """Images (N, 3, H, W) resized to (N, 3, size, size), a chunk at a time."""
    if images.shape[-1] == size:
        return images
    resized = torch.empty((len(images), 3, size, size), dtype=torch.uint8)
    step = _images_per_chunk(max(images[0].numel(), resized[0].numel()))
    for source, target in zip(images.split(step), resized.split(step), strict=True):
        target.copy_(_to_square(source, size))
    return resized


def _to_square(images, size):
    """Images (..., 3, height, width): the shorter side to size pixels, then the centre square."""
    images = functional.resize(images, [size], antialias=True)
    return functional.center_crop(images, [size])


def _images_per_chunk(values):
    """How many images of so many values make up a chunk."""
    return max(1, _VALUES_PER_CHUNK // values)


def _fingerprint(description, *tensors):
    """Hash of a description (anything that JSON can write) and of contiguous CPU tensors."""
    digest = hashlib.sha256(json.dumps(description).encode())
    for tensor in tensors:
        # With the shape: else what moves from the end of one tensor to the next goes unseen.
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy())
    return digest.hexdigest()


# --- CIFAR and Imagenette ---------------------------------------------------------------------


def _cifar(name, root):
    """CIFAR-10 or CIFAR-100, its files checked by torchvision against their MD5 sums."""
    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    try:
        train = kind[name](root, train=True)
    except RuntimeError:  # not there yet, or damaged
        _check_writable(root)
        train = kind[name](root, train=True, download=True)
    test = kind[name](root, train=False)
    tensors = {
        "train_images": torch.from_numpy(train.data).permute(0, 3, 1, 2).contiguous(),
        "train_labels": torch.tensor(train.targets),
        "test_images": torch.from_numpy(test.data).permute(0, 3, 1, 2).contiguous(),
        "test_labels": torch.tensor(test.targets),
    }
    return Dataset(
        name=name,
        classes=tuple(train.classes),
        fingerprint=_fingerprint(train.classes, *tensors.values()),
        **tensors,
    )


def _imagenette(root, size, unreadable, progress):
    """Imagenette, from the smallest of its archives that has the pixels."""
    archive = next((f"{side}px" for side in (160, 320) if size <= side), "full")
    extracted = {"160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"}
    folder = root / extracted[archive]
    if not folder.is_dir():
        _check_writable(root)
        # torchvision takes a folder for complete that it was interrupted in extracting.
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            torchvision.datasets.Imagenette(temporary, size=archive, download=True)
            os.replace(Path(temporary, folder.name), folder)
    synonyms = torchvision.datasets.Imagenette(root, size=archive).classes
    classes = tuple(names[0] for names in synonyms)
    return _folder("imagenette", folder, root, size, unreadable, progress, classes)


# --- Folders of images ------------------------------------------------------------------------


def _folder(name, folder, root, size, unreadable, progress, classes=None):
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
        _check_writable(root)
        content = _decode_folder(folder, classes, train, test, size, unreadable, progress)
        _write_cache(cache, content | {"stamp": stamp})
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
        **{tensor: content[tensor] for tensor in _TENSORS},
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
        "fingerprint": _fingerprint(
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
            image = _to_square(image, size) if size else image
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


def _check_writable(root):
    """Raise unless files can be made in root, which is made where there is none."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise OSError(f"root={str(root)!r}: no files can be written there: {error}") from error


def _write_cache(path, content):
    """Write a file that is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_cache(path, stamp):
    """Content of a cache file, its tensors mapped from it; None where it is of no use."""
    # Whatever keeps the file from being read, it can be made again.
    with suppress(Exception):
        content = torch.load(path, mmap=True, weights_only=True)
        if content["stamp"] == stamp:
            return content
    return None


# --- The embedded set of shapes ---------------------------------------------------------------

# Each shape as a function of coordinates (u to the right, v up) that is negative inside, zero on
# the outline, and about the distance to it elsewhere. Shapes reach about 1 from the centre.
_SHAPES = {
    "arrow": lambda u, v: np.minimum(
        np.maximum(0.8 * abs(u) + 0.6 * v - 0.6, -v), np.maximum(abs(u) - 0.3, abs(v) - 0.95)
    ),
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 1, 0.75 - np.hypot(u - 0.45, v)),
    "cross": lambda u, v: np.maximum(_box(u, v) - 1, np.minimum(abs(u), abs(v)) - 0.32),
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "frame": lambda u, v: abs(_box(u, v) - 0.65) - 0.22,
    "heart": lambda u, v: np.minimum(
        (abs(u) + abs(v) - 0.8) * 0.5**0.5, np.hypot(abs(u) - 0.4, v - 0.4) - 0.56
    ),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.72) - 0.24,
    "square": lambda u, v: _box(u, v) - 0.8,
    "star": lambda u, v: _star(u, v),
    "triangle": lambda u, v: np.maximum(0.75**0.5 * abs(u) + 0.5 * v, -v) - 0.55,
}


def _box(u, v):
    """Distance from the centre such that a square, not a disc, has all of its outline as far."""
    return np.maximum(abs(u), abs(v))


def _star(u, v):
    """Five points: what lies on the inner side of at least four of the five lines."""
    turns = 2 * np.pi * np.arange(5) / 5
    lines = [np.sin(turn) * u + np.cos(turn) * v - 0.36 for turn in turns]
    return np.partition(lines, 3, axis=0)[3]


def _shapes():
    """Ten shapes, 500 training and 200 test images of each, 32 x 32: equal on every machine."""
    classes = tuple(_SHAPES)
    train_images, train_labels = _render_split(500, seed=0)
    test_images, test_labels = _render_split(200, seed=1)
    tensors = (train_images, train_labels, test_images, test_labels)
    return Dataset("shapes", *tensors, classes, _fingerprint(classes, *tensors))


def _render_split(per_class, seed):
    """Images (10 * per_class, 3, 32, 32) and labels 0, 1, ..., 9, 0, 1, ..."""
    # RandomState is promised never to change, and the pixels are rounded from double precision.
    random = np.random.RandomState(seed)
    labels = np.arange(len(_SHAPES))
    images = [_render(np.tile(labels, 10), random) for _ in range(per_class // 10)]
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.tile(labels, per_class))


def _render(labels, random):
    """One uint8 image (3, 32, 32) for each label, drawn from a RandomState."""

    def draw(low, high, channels=1):
        """A random number for each image, (N, channels, 1, 1)."""
        return low + (high - low) * random.random_sample((len(labels), channels, 1, 1))

    def colour():
        hue = (draw(0, 1) + np.array([0, 2 / 3, 1 / 3]).reshape(3, 1, 1)) % 1
        rgb = np.clip(abs(6 * hue - 3) - 1, 0, 1)
        return draw(0.25, 0.7) + draw(0.1, 0.5) * (rgb - 0.5)

    def turn(x, y, most=np.pi):
        angle = draw(-most, most)
        return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x

    def stripes():
        wave = abs((turn(x, y)[0] / draw(2, 7) + draw(0, 2)) % 2 - 1)
        return draw(-0.12, 0.12, channels=3) * wave * wave * (3 - 2 * wave)

    def paint(image, colour, cover):
        return image + (colour - image) * np.clip(cover, 0, 1)

    def spot(image):
        u, v = turn(x - draw(-16, 16), y - draw(-16, 16))
        width, height = draw(1.5, 6), draw(1, 3)
        distance = (np.hypot(u / width, v / height) - 1) * np.minimum(width, height)
        return paint(image, colour(), np.clip(0.5 - distance, 0, 1) * draw(0.3, 0.8))

    x = np.linspace(-15.5, 15.5, 32)
    y = -x[:, None]

    ramp = np.clip(turn(x, y)[0] / 32 + 0.5, 0, 1)
    image = paint(colour(), colour(), ramp * draw(0.3, 1)) + stripes() + stripes()
    for _ in range(CLUTTER - 1):
        image = spot(image)

    radius = draw(8, 12)
    u, v = turn((x - draw(-4, 4)) / radius, (y - draw(-4, 4)) / radius, most=np.pi / 6)
    distance = np.empty_like(u)
    for label, shape in enumerate(_SHAPES.values()):
        distance[labels == label] = shape(u[labels == label], v[labels == label])
    direction = draw(-1, 1, channels=3)
    direction /= np.sqrt((direction**2).sum(1, keepdims=True))
    contrast = direction * draw(0.4, 1.6) * CONTRAST
    image = spot(image + contrast * np.clip(0.5 - distance * radius, 0, 1))

    blurred = np.pad(image, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
    blurred = (blurred[..., :-2] + 2 * blurred[..., 1:-1] + blurred[..., 2:]) / 4
    blurred = (blurred[..., :-2, :] + 2 * blurred[..., 1:-1, :] + blurred[..., 2:, :]) / 4
    image = paint(image, blurred, draw(0, 1))
    image += draw(0, NOISE) * (2 * random.random_sample(image.shape) - 1)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


# --- Augmentation and normalisation -----------------------------------------------------------


def augment(images, generator):
    """Random views of images, for training: (N, 3, H, W) uint8 in and out.

    Up to 32 pixels `flip_and_crop` with a padding of H // 8, as is usual for CIFAR; above,
    `random_resized_crop` to their own size, as for ImageNet.
    """
    size = images.shape[-1]
    if size <= 32:
        return flip_and_crop(images, generator, padding=size // 8)
    return random_resized_crop(images, generator, size)


def flip_and_crop(images, generator, padding):
    """Mirror every other image, at random, and shift each by up to padding pixels.

    Args:
        images: (N, 3, H, W) uint8, on any device.
        generator: torch.Generator on the CPU, so that one seed does the same on every device.
        padding: width of the black border from which each image is cut again, in pixels.

    Returns:
        (N, 3, H, W) uint8 on the device of the images.
    """
    count, _, height, width = images.shape
    mirrored = torch.randint(2, (1, count), generator=generator)
    offsets = torch.randint(2 * padding + 1, (2, count), generator=generator)
    # All random numbers in one copy to the device.
    mirrored, top, left = torch.cat([mirrored, offsets]).to(images.device)
    images = _mirror(images, mirrored)
    # A view of all windows (N, 3, top, left, H, W): only those chosen are ever copied.
    windows = pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def random_resized_crop(images, generator, size):
    """Cut a random box out of each image, resize it, and mirror every other one, at random.

    A box covers 0.35 to 1 of the image's area, uniformly, with a ratio of width to height of 3/4
    to 4/3, uniformly on a logarithmic scale; where it would be wider or higher than the image, it
    is clipped. The smallest area is 0.08 in the usual recipe for ImageNet, which has 90 epochs or
    more to make up for it.

    Args:
        images: (N, 3, H, W) uint8, on any device.
        generator: torch.Generator on the CPU, so that one seed does the same on every device.
        size: side of the result in pixels.

    Returns:
        (N, 3, size, size) uint8 on the device of the images.
    """
    count, _, height, width = images.shape
    area, ratio, top, left, mirrored = torch.rand(5, count, generator=generator)
    area = 0.35 + 0.65 * area
    ratio = torch.exp((2 * ratio - 1) * np.log(4 / 3))
    box_width = width * torch.sqrt(area * ratio).clamp(max=1)
    box_height = height * torch.sqrt(area / ratio).clamp(max=1)
    left = left * (width - box_width)
    top = top * (height - box_height)
    boxes = torch.stack([torch.arange(count), left, top, left + box_width, top + box_height], 1)
    # Averages over the pixels under each pixel of the result, so that shrinking does not alias.
    cut = roi_align(images.float(), boxes.to(images.device), size, aligned=True)
    return _mirror(cut.round().to(torch.uint8), (mirrored < 0.5).to(images.device))


def _mirror(images, mirrored):
    """Images (N, 3, H, W), those marked in mirrored (N,) left to right."""
    return torch.where(mirrored.bool()[:, None, None, None], images.flip(-1), images)


def normalize(images, mean, std):
    """uint8 images (N, 3, H, W) as float32, less the mean and divided by std, both (3,)."""
    mean, std = (255 * value.to(images.device)[:, None, None] for value in (mean, std))
    return images.float().sub_(mean).div_(std)


def channel_statistics(images):
    """Mean and standard deviation of each channel, of values in 0..1.

    Args:
        images: (N, 3, H, W) uint8.

    Returns:
        mean and std, both (3,) float32 on the device of the images.
    """
    # How often each value occurs: exact, and faster than to sum the pixels.
    counts = 0
    for chunk in images.split(_images_per_chunk(images[0].numel())):
        channels = chunk.transpose(0, 1).flatten(1)
        counts = counts + torch.stack([channel.bincount(minlength=256) for channel in channels])
    values = torch.arange(256, device=images.device)
    count = images.numel() // images.shape[1]
    mean = (counts * values).sum(1).double() / count
    std = ((counts * values**2).sum(1).double() / count - mean**2).sqrt()
    return (mean / 255).float(), (std / 255).float()


# --- Checks -----------------------------------------------------------------------------------


def _check_arguments(name, size, classes, per_class, seed, unreadable):
    """Raise for whatever is wrong without looking at any data."""
    is_folder = isinstance(name, str) and name.startswith("folder:") and name != "folder:"
    if name not in NAMES and not is_folder:
        raise ValueError(f"name={name!r}: accepted are {', '.join(NAMES)} and folder:PATH")
    if size is not None:
        _check_integer("size", size, least=4)
    if isinstance(classes, Integral):
        _check_integer("classes", classes, least=2)
    elif classes is not None:
        names = classes if isinstance(classes, Collection) else [None]
        if isinstance(classes, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes={classes!r}: accepted are None, a number or a list of names")
        if len(set(classes)) < max(2, len(classes)):
            raise ValueError(f"classes={classes!r}: accepted are two or more different names")
    if per_class is not None:
        _check_integer("per_class", per_class, least=1)
    _check_integer("seed", seed, least=0)
    if seed >= 2**32:
        raise ValueError(f"seed={seed}: accepted are integers below 2^32")
    if unreadable not in ("error", "skip"):
        raise ValueError(f"unreadable={unreadable!r}: accepted are 'error' and 'skip'")


def _check_integer(name, value, least):
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: accepted is an integer of at least {least}")
    if value < least:
        raise ValueError(f"{name}={value}: accepted is an integer of at least {least}")
