"""What a trained network does with test images, recorded: the images need not come along.

Shapes: N images, C channels of a layer.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from torch import nn

from eca_lab.attention.kernel_size import adaptive_kernel_size
from eca_lab.checks import check_integer
from eca_lab.data.augmentation import input_transform
from eca_lab.data.dataset import Dataset
from eca_lab.files import check_regular, written_whole
from eca_lab.looking import measures, probe
from eca_lab.provenance import code_version, provenance

UNTOUCHED = ("all", "untouched")
ORDERS = (("all", "first order"), ("all", "second order"))  # of `eca_lab.looking.probe.renumber`


@dataclass(frozen=True, eq=False)
class Recording:
    """One network and N test images, of which as many are of each class, the classes taking turns.

    weights maps a layer to its channel weights (N, C), in steps of 1/255 in a file; labels are
    (N,). right maps (layer, change) to which images are classified rightly, bool (N,): of every
    layer the `interventions`, of "all" layers UNTOUCHED and ORDERS. neighbours and follows map a
    layer to `eca_lab.looking.measures.neighbour_correlation` and the mean of `own_correlation`
    there.
    """

    weights: dict[str, np.ndarray]
    labels: np.ndarray
    right: dict[tuple[str, str], np.ndarray]
    neighbours: dict[str, measures.NeighbourCorrelation]
    follows: dict[str, float]

    def moved(self, layer: str, change: str) -> float:
        """By how many percentage points a change moves the top-1 of the untouched network."""
        return 100 * float(self.right[layer, change].mean() - self.right[UNTOUCHED].mean())


def interventions(weights: np.ndarray, classes: int) -> dict[str, probe.Change]:
    """What is done to a layer of weights (N, C), by name, see `eca_lab.looking.probe.intervene`.

    The swaps rely on images of so many classes that take turns.
    """
    order = np.random.default_rng(0).permutation(weights.shape[1])
    return {
        "off": probe.off,
        "one number": probe.freeze(weights.mean()),
        "fixed": probe.freeze(weights.mean(0)),
        "permuted": probe.permute(order),
        "other class": probe.swap(1),
        "same class": probe.swap(classes),
    }


def in_turns(labels: ArrayLike, per_class: int) -> np.ndarray:
    """Indices of the first images of each class, the classes taking turns: (classes * per_class,).

    ValueError where a class has fewer, of labels (N,), or fewer than 2 are asked for.
    """
    labels = np.asarray(labels)
    check_integer("per_class", per_class, least=2, most=int(np.bincount(labels).min()))
    classes = range(labels.max() + 1)
    first = [np.flatnonzero(labels == label)[:per_class] for label in classes]
    return np.stack(first, axis=1).ravel()


def record(model: nn.Module, dataset: Dataset, *, per_class: int = 100) -> Recording:
    """Record the weights of every attention module for test images, and what breaks: a `Recording`.

    Args:
        model: trained on the data set, on its device.
        dataset: whose test images are taken.
        per_class: how many of each class.

    Raises:
        TypeError, ValueError: as `in_turns` and `eca_lab.looking.probe.record_weights`.
    """
    chosen = in_turns(dataset.test_labels.cpu().numpy(), per_class)
    images = dataset.test_images[chosen]
    labels = dataset.test_labels[chosen].cpu().numpy()
    prepare = input_transform(dataset)
    classes = len(dataset.classes)
    batches = images.split(classes * max(2, 250 // classes))  # each of whole turns, for the swaps
    found = probe.record_weights(model, images, prepare=prepare, descriptors=True)

    @torch.inference_mode()
    def right(*contexts: AbstractContextManager[None]) -> np.ndarray:
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            guesses = [model(prepare(batch)).argmax(1).cpu() for batch in batches]
        return torch.cat(guesses).numpy() == labels

    outcomes = {UNTOUCHED: right()}
    follows = {}
    for layer, weights in found.weights.items():
        correlation = measures.own_correlation(weights, found.descriptors[layer])
        follows[layer] = float(correlation.mean())
        for name, change in interventions(weights, classes).items():
            outcomes[layer, name] = right(probe.intervene(model, layer, change))
    for seed, key in enumerate(ORDERS):
        rng = np.random.default_rng(seed)
        contexts = []
        for layer, weights in found.weights.items():
            contexts.append(probe.renumber(model, layer, rng.permutation(weights.shape[1])))
        outcomes[key] = right(*contexts)
    neighbours = _neighbours(model, found.descriptors)
    return Recording(found.weights, labels, outcomes, neighbours, follows)


def _neighbours(
    model: nn.Module, descriptors: Mapping[str, np.ndarray]
) -> dict[str, measures.NeighbourCorrelation]:
    """Are neighbours alike, layer by layer: in the kernel's own order, as far as it reaches."""
    found = {}
    for layer, values in descriptors.items():
        module = model.get_submodule(layer)
        values = values[:, getattr(module, "permutation", slice(None))]
        # SE, to which an order is nothing, gets the reach that ECA would have.
        size = getattr(module, "kernel_size", None) or adaptive_kernel_size(values.shape[1])
        found[layer] = measures.neighbour_correlation(values, max(1, size // 2), orders=2999)
    return found


def save_recording(path: str | Path, recording: Recording, card: Mapping[str, Any]) -> None:
    """Write a recording, made on the CPU, to a file.

    Args:
        path: of the file, in a folder that is there.
        recording: as `record` makes it.
        card: of the network that was recorded.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {"labels": recording.labels}
    for layer, weights in recording.weights.items():
        tensors[f"weights/{layer}"] = np.round(255 * weights).astype(np.uint8)
    for key, right in recording.right.items():
        tensors["/".join(("right", *key))] = np.packbits(right)
    about = {
        "network": {name: card[name] for name in ("arm", "sha256", "trial")},
        "neighbours": recording.neighbours,
        "follows": recording.follows,
        "code": code_version(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(torch.device("cpu")),
    }
    with written_whole(path) as file:
        file.write(safetensors.numpy.save(tensors, {"about": json.dumps(about)}))


def load_recording(path: str | Path, card: Mapping[str, Any]) -> Recording:
    """The `Recording` in a file of `save_recording`.

    FileNotFoundError; ValueError for another file, or one of another network than the card's.
    """
    try:
        check_regular(path)
        with safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()["about"])
            names = file.keys()
            parts = {tuple(name.split("/")): file.get_tensor(name) for name in names}
        labels = parts.pop(("labels",))
        recorded = about["network"]["sha256"]
        if recorded != card["sha256"]:
            raise ValueError(f"it is of weights with SHA-256 {recorded}, not {card['sha256']}")
        neighbours = {
            layer: measures.NeighbourCorrelation(*values)
            for layer, values in about["neighbours"].items()
        }
        weights = {layer: parts["weights", layer].astype(np.float32) / 255 for layer in neighbours}
        right = {}
        for (kind, *key), packed in parts.items():
            if kind == "right":
                layer, change = key
                right[layer, change] = np.unpackbits(packed, count=len(labels)).astype(bool)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no recording of this network: {error}") from None
    return Recording(weights, labels, right, neighbours, about["follows"])
