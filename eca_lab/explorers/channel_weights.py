"""The explorer of the channel weights of trained networks."""

from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from eca_lab import probe
from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.explorers.explorer import Explorer, plain
from eca_lab.figures import WEIGHTS, arm_color, dress, new_figure
from eca_lab.train import input_transform


class ChannelWeightExplorer(Explorer):
    """Point at a weight of an image in a channel, see what it does, and change it.

    The images are the first test images of each class, equally many, at most `IMAGES` in all and
    sorted by class. The weights of a network are recorded when it is first shown.

    Args:
        networks: name -> model with channel attention, trained on the data set, see
            `eca_lab.probe.attention_layers`. They are put into evaluation mode.
        dataset: an `eca_lab.data.Dataset` with a test image of every class.
        network: one of `networks`, the first if left out.
        layer: one of the network's attention layers, the last if left out.
        image: number among the images shown, from 0.
        channel: number of the channel, from 0.
        factor: of the channel's weight, within `FACTOR_LIMITS`.

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
        labels = dataset.test_labels.cpu().numpy()
        self._classes = tuple(dataset.classes)
        indices, self._counts = _first_of_each(labels, self._classes, self.IMAGES)
        self._images, self._prepare = dataset.test_images[indices], input_transform(dataset)
        self._networks, self._records, self._seen = dict(networks), {}, (None, None)
        if not networks:
            raise ValueError("networks: there are none; accepted is at least one")
        looked = self._images[:1], self._prepare
        self._channels = {name: _channels(name, networks[name], *looked) for name in networks}
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
        """(N, C) weights of the layer for all images, as `eca_lab.probe.record_weights` gives."""
        if self.network not in self._records:
            model = self._networks[self.network]
            self._records[self.network] = probe.record_weights(model, self._images, self._prepare)
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
        ax.set_yticks(np.cumsum(self._counts) - np.array(self._counts) / 2, self._classes)
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
            self._seen = key, (maps, self._forward(model))
        maps, plain = self._seen[1]
        before, factors = maps[self.layer][0, self.channel], torch.ones(weights.shape[1])
        factors[self.channel] = self.factor
        with probe.intervene(model, self.layer, probe.scale(factors)):
            changed = plain if self.factor == 1 else self._forward(model)
        shades = np.rint(255 * weights.clip(0, 1)).astype(np.uint8)  # (N, C)
        weight = float(weights[self.image, self.channel])
        answer = {"weights": shades.tobytes(), "weight": weight, "plain": plain, "changed": changed}
        return {**answer, "map": before.tobytes(), "size": before.shape}

    def _recorded(self):
        for network, layers in self._channels.items():
            for layer, channels in layers.items():
                channel = min(self.given["initial"]["channel"], channels - 1)
                yield {"network": network, "layer": layer, "channel": channel, "factor": 1}

    def _forward(self, model):
        """The probabilities of the chosen image, by class."""
        like = next(model.parameters())
        with torch.inference_mode():
            batch = self._prepare(self._images[self.image, None].to(like.device))
            return model(batch.to(like.dtype))[0].float().softmax(0).tolist()


def _color(name):
    """Of the arm with which the name of a network begins, as "eca, seed 0" does, else of ECA."""
    try:
        return arm_color(name.split(", ")[0])
    except (AttributeError, ValueError):
        return arm_color("eca")


def _channels(name, model, image, prepare):
    """Layer -> channels, of a network, which is in evaluation mode then."""
    if not probe.attention_layers(model.eval()):
        raise ValueError(
            f"networks[{name!r}] has no channel attention: accepted are models with some"
        )
    weights = probe.record_weights(model, image, prepare).weights
    return {layer: each.shape[1] for layer, each in weights.items()}


def _first_of_each(labels, classes, most):
    """Where the first images of each class are, sorted by class, at most so many; and how many."""
    found = [np.flatnonzero(labels == label) for label in range(len(classes))]
    for name, images in zip(classes, found, strict=True):
        if not len(images):
            raise ValueError(f"class {name!r} has no test image: accepted is at least one")
    found = [images[: max(1, most // len(classes))] for images in found]
    return np.concatenate(found), [len(images) for images in found]
