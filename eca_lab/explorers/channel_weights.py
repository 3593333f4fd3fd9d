"""The explorer of the channel weights of trained networks."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from eca_lab.checks import check_choice, check_integer, check_number, shown
from eca_lab.data.augmentation import input_transform
from eca_lab.data.dataset import Dataset
from eca_lab.explorers.explorer import Explorer, plain
from eca_lab.figures import WEIGHTS, arm_color, dress, new_figure
from eca_lab.looking import probe


class _Seen(NamedTuple):
    """What a network makes of an image as it is: feature maps by layer, and probabilities."""

    network: str
    image: int
    maps: dict[str, np.ndarray]
    probabilities: list[float]


class ChannelWeightExplorer(Explorer):
    """Point at a weight of an image in a channel, see what it does, and change it.

    The images are the first test images of each class, equally many, at most `IMAGES` in all and
    sorted by class. The weights of a network are recorded when it is first shown.

    Args:
        networks: name -> model with channel attention, trained on the data set. They are put into
            evaluation mode.
        dataset: an `eca_lab.data.Dataset` with a test image of every class, at most `IMAGES`
            classes.
        network: one of `networks`, the first if left out.
        layer: one of the network's attention layers, the last if left out.
        image: number among the images shown, from 0.
        channel: number of the channel, from 0.
        factor: of the channel's weight, within `FACTOR_LIMITS`.

    Raises:
        TypeError, ValueError: what cannot be shown, such as a model that does not give a finite
            number for each class; and, as a `StateError`, what is not accepted of the last five.

    In the page, another network keeps the layer where it has one of that name, and a layer with too
    few channels lowers the channel.
    """

    MODULE = "channel_weights.js"
    ARGUMENTS = ("trained", "shapes")  # as notebook 02 calls networks and dataset
    STATE = ASKED = ("network", "layer", "image", "channel", "factor")
    USUAL: ClassVar = {"image": 0, "channel": 0, "factor": 1}
    PRESETS: ClassVar = {"Channel off": {"factor": 0}, "Original": {"factor": 1}}
    IMAGES = 200
    SIDE = 64  # pixels: of larger images the page gets only every second or third one
    FACTOR_LIMITS = (0, 4)
    FACTOR_STOPS = tuple(tenths / 10 for tenths in range(41))

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        dataset: Dataset,
        *,
        network: str | None = None,
        layer: str | None = None,
        image: int = 0,
        channel: int = 0,
        factor: float = 1,
    ) -> None:
        _check_networks(networks)
        _check_dataset(dataset, self.IMAGES)
        labels = dataset.test_labels.cpu().numpy()
        self._classes = tuple(dataset.classes)
        indices, self._counts = _first_of_each(labels, self._classes, self.IMAGES)
        self._images = dataset.test_images[indices]
        self._prepare = input_transform(dataset)
        self._networks = dict(networks)
        self._records: dict[str, probe.WeightRecord] = {}
        self._seen: _Seen | None = None
        self._channels = {name: self._channels_of(name) for name in networks}
        if network is None:
            network = next(iter(networks))
        if layer is None and network in networks:
            layer = list(self._channels[network])[-1]
        height, width = self._images.shape[2:]
        down = -(-height // self.SIDE)
        right = -(-width // self.SIDE)
        small = self._images[:, :, ::down, ::right].permute(0, 2, 3, 1).cpu().numpy()
        super().__init__(
            (network, layer, image, channel, factor),
            classes=self._classes,
            counts=self._counts,
            stops=self.FACTOR_STOPS,
            networks=[(name, list(layers.items())) for name, layers in self._channels.items()],
            colors={name: _color(name) for name in networks},
            indices=indices.astype("<i4").tobytes(),
            images=small.tobytes(),  # (N, h, w, 3)
            size=small.shape[1:3],
        )

    @property
    def weights(self) -> np.ndarray:
        """(N, C) weights of the layer for all images, as `eca_lab.looking.probe.record_weights`
        gives.
        """
        if self.network not in self._records:
            model = self._networks[self.network]
            record = probe.record_weights(model, self._images, prepare=self._prepare)
            for layer, weights in record.weights.items():
                if not np.isfinite(weights).all():
                    raise ValueError(
                        f"networks[{self.network!r}]: weights of {layer} are not finite; accepted "
                        "are networks that give finite numbers for every image"
                    )
            self._records[self.network] = record
        return self._records[self.network].weights[self.layer]

    @property
    def probabilities(self) -> pd.DataFrame:
        """DataFrame by class: the probabilities of the image, plain and with the changed weight."""
        columns = {name: self.answer[name] for name in ("plain", "changed")}
        return pd.DataFrame(columns, self._classes)

    def _result(self) -> str:
        plain, changed = self.probabilities.idxmax()
        if changed == plain:
            return f"predicts {plain}"
        return f"predicts {plain}, changed {changed}"

    def _figure(self) -> Figure:
        figure = new_figure(7.2, 4.2)
        ax = figure.add_subplot()
        chosen = f"image {self.image}, channel {self.channel}: {self.answer['weight']:.3f}"
        dress(ax, f"Weights, dark 0, bright 1; {chosen}", "channel", "images, sorted by class")
        ax.grid(visible=False)
        ax.imshow(self.weights, **WEIGHTS, aspect="auto", interpolation="nearest")
        middles = np.cumsum(self._counts) - np.array(self._counts) / 2
        every = -(-len(middles) // 20)  # more names than 20 would overlap
        ax.set_yticks(middles[::every], self._classes[::every])
        ax.plot(self.channel, self.image, "wo", fillstyle="none", markersize=9)
        return figure

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        check_choice("network", state["network"], tuple(self._channels))
        layers = self._channels[state["network"]]
        check_choice("layer", state["layer"], tuple(layers))
        check_integer("image", state["image"], least=0, most=len(self._images) - 1)
        check_integer("channel", state["channel"], least=0, most=layers[state["layer"]] - 1)
        least, most = self.FACTOR_LIMITS
        check_number("factor", state["factor"], least=least, most=most)
        numbers = {name: plain(state[name]) for name in ("image", "channel", "factor")}
        return {**state, **numbers}

    def _answer(self) -> dict[str, Any]:
        weights = self.weights
        seen = self._seen_now()
        before = seen.maps[self.layer][0, self.channel]
        shades = np.rint(255 * weights.clip(0, 1)).astype(np.uint8)  # (N, C)
        return {
            "weights": shades.tobytes(),
            "weight": float(weights[self.image, self.channel]),
            "plain": seen.probabilities,
            "changed": self._changed(seen.probabilities, channels=weights.shape[1]),
            "map": before.tobytes(),
            "size": before.shape,
        }

    def _seen_now(self) -> _Seen:
        """What the network makes of the image as it is, kept until either changes."""
        seen = self._seen
        if seen is None or (seen.network, seen.image) != (self.network, self.image):
            model = self._networks[self.network]
            picture = self._images[self.image, None]
            seen = _Seen(
                network=self.network,
                image=self.image,
                maps=probe.feature_maps(model, picture, prepare=self._prepare),
                probabilities=self._forward(self.network, self.image),
            )
            self._seen = seen
        return seen

    def _changed(self, plain: list[float], *, channels: int) -> list[float]:
        """The probabilities with the changed weight, of a layer of so many channels."""
        if self.factor == 1:
            return plain
        factors = torch.ones(channels)
        factors[self.channel] = self.factor
        model = self._networks[self.network]
        with probe.intervene(model, self.layer, probe.scale(factors)):
            return self._forward(self.network, self.image)

    def _recorded(self) -> Iterator[dict[str, Any]]:
        for network, layers in self._channels.items():
            for layer, channels in layers.items():
                channel = min(self.given["initial"]["channel"], channels - 1)
                yield {"network": network, "layer": layer, "channel": channel, "factor": 1}

    def _channels_of(self, name: str) -> dict[str, int]:
        """Layer -> channels, of a network, which is in evaluation mode then."""
        model = self._networks[name].eval()
        self._forward(name, image=0)
        try:
            record = probe.record_weights(model, self._images[:1], prepare=self._prepare)
        except ValueError as error:
            raise ValueError(f"networks[{name!r}]: {error}") from None
        return {layer: weights.shape[1] for layer, weights in record.weights.items()}

    def _forward(self, name: str, image: int) -> list[float]:
        """The probabilities that a network gives an image, by class."""
        model = self._networks[name]
        like = next(model.parameters(), torch.empty(0))
        with torch.inference_mode():
            batch = self._prepare(self._images[image, None].to(like.device))
            out = model(batch.to(like.dtype))
        shape = (1, len(self._classes))
        accepted = f"accepted is a tensor {shape}, of one finite number for each class"
        if not isinstance(out, torch.Tensor):
            raise TypeError(f"networks[{name!r}] gives a {type(out).__name__}: {accepted}")
        if out.shape != shape:
            raise ValueError(f"networks[{name!r}] gives a tensor {tuple(out.shape)}: {accepted}")
        chances = out[0].float().softmax(0)
        if not chances.isfinite().all():
            raise ValueError(f"networks[{name!r}] gives NaN or infinity: {accepted}")
        return chances.tolist()


def _color(name: Any) -> str:
    """Of the arm with which the name of a network begins, as "eca, seed 0" does, else of ECA."""
    try:
        return arm_color(name.split(", ")[0])
    except (AttributeError, ValueError):
        return arm_color("eca")


def _check_networks(networks: object) -> None:
    if not isinstance(networks, Mapping):
        raise TypeError(f"networks={shown(networks)}: accepted is a dict of models by name")
    if not networks:
        raise ValueError("networks: there are none; accepted is at least one")
    for name, model in networks.items():
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"networks[{name!r}]={shown(model)}: accepted is a torch.nn.Module")


def _check_dataset(dataset: Dataset, most: int) -> None:
    """Raise TypeError, ValueError for what cannot be shown, with at most so many classes."""
    for name in ("train_images", "test_images"):
        images = getattr(dataset, name)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            has = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"dataset.{name}={has}: accepted is torch.uint8 (N, 3, H, W)")
    labels = dataset.test_labels
    count = len(dataset.classes)
    if count > most:
        raise ValueError(
            f"dataset: {count:,} classes; accepted are at most {most}, of each of which an image "
            "is shown. probe.record_weights records the weights of more"
        )
    if labels.shape != (len(dataset.test_images),) or labels.is_floating_point():
        has = f"{labels.dtype} {tuple(labels.shape)}"
        accepted = f"accepted are {len(dataset.test_images)} integers"
        raise ValueError(f"dataset.test_labels={has}: {accepted}, one for each test image")
    wrong = labels[(labels < 0) | (labels >= count)]
    if len(wrong):
        accepted = f"accepted are 0 to {count - 1}, for {count} classes"
        raise ValueError(f"dataset.test_labels: one is {wrong[0]}; {accepted}")


def _first_of_each(
    labels: np.ndarray, classes: tuple[str, ...], most: int
) -> tuple[np.ndarray, list[int]]:
    """Where the first images of each class are, sorted by class, at most so many; and how many."""
    found = [np.flatnonzero(labels == label) for label in range(len(classes))]
    for name, images in zip(classes, found, strict=True):
        if not len(images):
            raise ValueError(f"class {name!r} has no test image: accepted is at least one")
    found = [images[: most // len(classes)] for images in found]
    return np.concatenate(found), [len(images) for images in found]
