"""The explorer of the channel weights of trained networks."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from eca_lab.checks import check_choice, check_integer, check_number, shown
from eca_lab.data.augmentation import input_transform
from eca_lab.explorers.explorer import Explorer, plain
from eca_lab.figures import WEIGHTS, arm_color, dress, new_figure
from eca_lab.looking import probe


class ChannelWeightExplorer(Explorer):
    """Point at a weight of an image in a channel, see what it does, and change it.

    The images are the first test images of each class, equally many, at most `IMAGES` in all and
    sorted by class. The weights of a network are recorded when it is first shown.

    Args:
        networks: name -> model with channel attention, trained on the data set, see
            `eca_lab.looking.probe.attention_layers`. They are put into evaluation mode.
        dataset: an `eca_lab.data.Dataset` with a test image of every class, at most `IMAGES`
            classes.
        network: one of `networks`, the first if left out.
        layer: one of the network's attention layers, the last if left out.
        image: number among the images shown, from 0.
        channel: number of the channel, from 0.
        factor: of the channel's weight, within `FACTOR_LIMITS`.

    TypeError, ValueError: what cannot be shown, such as a model that does not give a finite number
    for each class; and, as a `StateError`, what is not accepted of the last five.

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

    def __init__(self, networks, dataset, network=None, layer=None, image=0, channel=0, factor=1):
        _check_networks(networks)
        _check_dataset(dataset, self.IMAGES)
        labels = dataset.test_labels.cpu().numpy()
        self._classes = tuple(dataset.classes)
        indices, self._counts = _first_of_each(labels, self._classes, self.IMAGES)
        self._images, self._prepare = dataset.test_images[indices], input_transform(dataset)
        self._networks, self._records, self._seen = dict(networks), {}, (None, None)
        self._channels = {name: self._channels_of(name) for name in networks}
        network = next(iter(networks)) if network is None else network
        if layer is None and network in networks:
            layer = list(self._channels[network])[-1]
        down, right = (-(-pixels // self.SIDE) for pixels in self._images.shape[2:])
        small = self._images[:, :, ::down, ::right].permute(0, 2, 3, 1).cpu().numpy()
        super().__init__(
            (network, layer, image, channel, factor),
            **{"classes": self._classes, "counts": self._counts, "stops": self.FACTOR_STOPS},
            networks=[(name, list(each.items())) for name, each in self._channels.items()],
            colors={name: _color(name) for name in networks},
            indices=indices.astype("<i4").tobytes(),
            images=small.tobytes(),  # (N, h, w, 3)
            size=small.shape[1:3],
        )

    @property
    def weights(self):
        """(N, C) weights of the layer for all images, as `eca_lab.looking.probe.record_weights`
        gives.
        """
        if self.network not in self._records:
            model = self._networks[self.network]
            record = probe.record_weights(model, self._images, self._prepare)
            for layer, weights in record.weights.items():
                if not np.isfinite(weights).all():
                    raise ValueError(
                        f"networks[{self.network!r}]: weights of {layer} are not finite; accepted "
                        "are networks that give finite numbers for every image"
                    )
            self._records[self.network] = record
        return self._records[self.network].weights[self.layer]

    @property
    def probabilities(self):
        """DataFrame by class: the probabilities of the image, plain and with the changed weight."""
        columns = {name: self.answer[name] for name in ("plain", "changed")}
        return pd.DataFrame(columns, self._classes)

    def _result(self):
        plain, changed = self.probabilities.idxmax()
        return f"predicts {plain}" + (f", changed {changed}" if changed != plain else "")

    def _figure(self):
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

    def _checked(self, state):
        check_choice("network", state["network"], tuple(self._channels))
        layers = self._channels[state["network"]]
        check_choice("layer", state["layer"], tuple(layers))
        check_integer("image", state["image"], 0, len(self._images) - 1)
        check_integer("channel", state["channel"], 0, layers[state["layer"]] - 1)
        check_number("factor", state["factor"], *self.FACTOR_LIMITS)
        return {**state, **{name: plain(state[name]) for name in ("image", "channel", "factor")}}

    def _answer(self):
        model, weights = self._networks[self.network], self.weights
        if self._seen[0] != (key := (self.network, self.image)):
            maps = probe.feature_maps(model, self._images[self.image, None], self._prepare)
            self._seen = key, (maps, self._forward(self.network, self.image))
        maps, plain = self._seen[1]
        before, factors = maps[self.layer][0, self.channel], torch.ones(weights.shape[1])
        factors[self.channel] = self.factor
        with probe.intervene(model, self.layer, probe.scale(factors)):
            changed = plain if self.factor == 1 else self._forward(self.network, self.image)
        shades = np.rint(255 * weights.clip(0, 1)).astype(np.uint8)  # (N, C)
        weight = float(weights[self.image, self.channel])
        answer = {"weights": shades.tobytes(), "weight": weight, "plain": plain, "changed": changed}
        return {**answer, "map": before.tobytes(), "size": before.shape}

    def _recorded(self):
        for network, layers in self._channels.items():
            for layer, channels in layers.items():
                channel = min(self.given["initial"]["channel"], channels - 1)
                yield {"network": network, "layer": layer, "channel": channel, "factor": 1}

    def _channels_of(self, name):
        """Layer -> channels, of a network, which is in evaluation mode then."""
        model = self._networks[name]
        if not probe.attention_layers(model.eval()):
            raise ValueError(
                f"networks[{name!r}] has no channel attention: accepted are models with some"
            )
        self._forward(name, image=0)
        weights = probe.record_weights(model, self._images[:1], self._prepare).weights
        return {layer: each.shape[1] for layer, each in weights.items()}

    def _forward(self, name, image):
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


def _color(name):
    """Of the arm with which the name of a network begins, as "eca, seed 0" does, else of ECA."""
    try:
        return arm_color(name.split(", ")[0])
    except (AttributeError, ValueError):
        return arm_color("eca")


def _check_networks(networks):
    if not isinstance(networks, Mapping):
        raise TypeError(f"networks={shown(networks)}: accepted is a dict of models by name")
    if not networks:
        raise ValueError("networks: there are none; accepted is at least one")
    for name, model in networks.items():
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"networks[{name!r}]={shown(model)}: accepted is a torch.nn.Module")


def _check_dataset(dataset, most):
    """Raise TypeError, ValueError for what cannot be shown, with at most so many classes."""
    for name in ("train_images", "test_images"):
        images = getattr(dataset, name)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            has = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"dataset.{name}={has}: accepted is torch.uint8 (N, 3, H, W)")
    labels, count = dataset.test_labels, len(dataset.classes)
    if count > most:
        raise ValueError(
            f"dataset: {count:,} classes; accepted are at most {most}, of each of which an image "
            "is shown. probe.record_weights records the weights of more"
        )
    if labels.shape != (len(dataset.test_images),) or labels.is_floating_point():
        has = f"{labels.dtype} {tuple(labels.shape)}"
        accepted = f"accepted are {len(dataset.test_images)} integers"
        raise ValueError(f"dataset.test_labels={has}: {accepted}, one for each test image")
    if len(wrong := labels[(labels < 0) | (labels >= count)]):
        accepted = f"accepted are 0 to {count - 1}, for {count} classes"
        raise ValueError(f"dataset.test_labels: one is {wrong[0]}; {accepted}")


def _first_of_each(labels, classes, most):
    """Where the first images of each class are, sorted by class, at most so many; and how many."""
    found = [np.flatnonzero(labels == label) for label in range(len(classes))]
    for name, images in zip(classes, found, strict=True):
        if not len(images):
            raise ValueError(f"class {name!r} has no test image: accepted is at least one")
    found = [images[: most // len(classes)] for images in found]
    return np.concatenate(found), [len(images) for images in found]
