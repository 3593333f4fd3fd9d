"""The panel of the channel weights of trained networks."""

from typing import ClassVar

import numpy as np
from markupsafe import Markup

from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.explorers.channel_weights_picture import ChannelWeightPicture
from eca_lab.explorers.panel import Panel, table, wrapped


class ChannelWeightExplorer(Panel):
    """Choose network, layer, two classes, an image and a channel; see the weights and change one.

    Linked views: the mean weights of both classes and the image's own over the channels, the
    weights of all images sorted by class, their histogram, the channel's feature map of the image
    before and after its weight, and the probabilities of the classes, as the network is and with
    the channel's weight multiplied by factor.

    The images are the first test images of each class, equally many, at most `IMAGES` in all and
    sorted by class. The weights of a network are recorded when it is first shown.

    Args:
        networks: name -> model with channel attention, trained on the data set, see
            `eca_lab.probe.attention_layers`. They are put into evaluation mode.
        dataset: an `eca_lab.data.Dataset` with a test image of every class.
        network: one of `networks`, the first if left out.
        layer: one of the network's attention layers, the last if left out.
        first_class, second_class: names of classes; the first two if left out.
        image: number among the images shown, from 0.
        channel: number of the channel, from 0.
        factor: of the channel's weight, within `FACTOR_LIMITS`.

    All but networks and dataset can be read and set as attributes. Another network keeps the layer
    where it has one of that name, and a layer with too few channels lowers the channel. Any other
    value that is not accepted raises an error that names it; typed into a box, it shows that
    message instead.
    """

    STATE = ("network", "layer", "first_class", "second_class", "image", "channel", "factor")
    GIVEN = ("networks", "dataset")
    PRESETS: ClassVar = {"channel off": {"factor": 0}, "channel doubled": {"factor": 2}}
    IMAGES = 200
    BINS = 40  # of the histogram
    FACTOR_LIMITS = (0, 4)
    FACTOR_STOPS = tuple(tenths / 10 for tenths in range(41))

    def __init__(
        self,
        networks,
        dataset,
        network=None,
        layer=None,
        first_class=None,
        second_class=None,
        image=0,
        channel=0,
        factor=1,
    ):
        from eca_lab.train import input_transform

        self._networks, self._layers = dict(networks), _checked_networks(networks)
        self._classes = tuple(dataset.classes)
        labels = dataset.test_labels.cpu().numpy()
        self._indices, counts = _first_of_each(labels, self._classes, self.IMAGES)
        self._images = dataset.test_images[self._indices]
        self._labels = labels[self._indices]
        self._prepare = input_transform(dataset)
        self._records, self._seen = {}, (None, None)
        network = next(iter(networks)) if network is None else network
        if layer is None and network in self._layers:
            layer = self._layers[network][-1]
        first_class = self._classes[0] if first_class is None else first_class
        second_class = self._classes[1] if second_class is None else second_class
        state = network, layer, first_class, second_class, image, channel, factor
        picture = ChannelWeightPicture(self._classes, counts)
        super().__init__(picture, **dict(zip(self.STATE, state, strict=True)))

    @property
    def indices(self):
        """(N,) numbers, in the test set, of the images that `image` counts."""
        return self._indices

    @property
    def weights(self):
        """(N, C) weights of the layer for all images, as `eca_lab.probe.record_weights` gives."""
        return self._record(self.network).weights[self.layer]

    @property
    def weight(self):
        """The weight of the channel for the image, before it is multiplied by factor."""
        return float(self.weights[self.image, self.channel])

    @property
    def class_weights(self):
        """Two (C,): the mean weights of the first and of the second class."""
        return [weights.mean(0) for weights in self._weights_of_classes]

    @property
    def probabilities(self):
        """DataFrame by class: the probabilities of the image, plain and with the changed weight."""
        import pandas as pd

        plain, changed = self._probabilities
        return pd.DataFrame({"plain": plain, "changed": changed}, index=list(self._classes))

    def _result(self):
        plain, changed = (self._classes[chances.argmax()] for chances in self._probabilities)
        return f"predicts {plain}" + (f", changed {changed}" if changed != plain else "")

    def _build_controls(self):
        last = len(self._indices) - 1

        def channels():
            return range(self.weights.shape[1])

        return [
            wrapped(
                self._choice("network", "network", lambda: self._networks),
                self._choice("layer", "layer", lambda: self._layers[self.network]),
                self._choice("first_class", "class", lambda: self._classes),
                self._choice("second_class", "and class", lambda: self._classes),
            ),
            self._row("image", "image", lambda: range(last + 1), f"image, 0 to {last}"),
            self._row("channel", "channel", channels, "channel, from 0"),
            self._row(
                "factor", "factor", lambda: self.FACTOR_STOPS, "factor of the channel's weight", 0.1
            ),
        ]

    def _fitted(self, changes):
        network = changes.get("network", self.network)
        layers = self._layers.get(network, ())
        if "layer" not in changes and self.layer not in layers:
            changes["layer"] = layers[-1] if layers else self.layer
        layer = changes.get("layer", self.layer)
        if layer in layers and "channel" not in changes:
            last = self._record(network).weights[layer].shape[1] - 1
            if self.channel > last:
                note = f"Lowered to fit {last + 1} channels: channel to {last}"
                return {**changes, "channel": last}, note
        return changes, ""

    def _checked(self, state):
        network, layer = state["network"], state["layer"]
        check_choice("network", network, tuple(self._layers))
        check_choice("layer", layer, self._layers[network])
        check_choice("first_class", state["first_class"], self._classes)
        check_choice("second_class", state["second_class"], self._classes)
        channels = self._record(network).weights[layer].shape[1]
        check_integer("image", state["image"], 0, len(self._indices) - 1)
        check_integer("channel", state["channel"], 0, channels - 1)
        check_number("factor", state["factor"], *self.FACTOR_LIMITS)
        kinds = {"image": int, "channel": int, "factor": float}
        return {**state, **{name: kind(state[name]) for name, kind in kinds.items()}}

    def _shown(self):
        import torch

        from eca_lab import probe

        weights, model = self.weights, self._networks[self.network]
        maps, plain = self._look()
        factors = torch.ones(weights.shape[1])
        factors[self.channel] = self.factor
        with probe.intervene(model, self.layer, probe.scale(factors)):
            self._probabilities = plain, self._forward(model)
        before = maps[self.layer][0, self.channel]
        names = self.first_class, self.second_class
        return self._lines(), {
            "weights": weights,
            "means": self.class_weights,
            "classes": [(self._classes.index(name), name) for name in names],
            "image": self.image,
            "channel": self.channel,
            "histograms": [
                np.histogram(each, self.BINS, range=(0, 1))[0] / each.size
                for each in self._weights_of_classes
            ],
            "picture": self._images[self.image].permute(1, 2, 0).cpu().numpy(),
            "maps": (before, before * self.weight * self.factor),
            "chances": self._probabilities,
        }

    def _lines(self):
        true = self._classes[self._labels[self.image]]
        rows = [("", "plain", "changed")]
        for name, (plain, changed) in self.probabilities.iterrows():
            if max(plain, changed) >= 0.005:
                rows.append((name, f"{plain:.1%}", f"{changed:.1%}"))
        first, second = (means[self.channel] for means in self.class_weights)
        number = f"Image {self.image} is test image {self._indices[self.image]:,}, of class "
        return [
            Markup("{}<b>{}</b>.").format(number, true),
            f"Channel {self.channel}: weight {self.weight:.3f} × {self.factor:g} = "
            f"{self.weight * self.factor:.3f}; {self.first_class} has {first:.3f} in the mean, "
            f"{self.second_class} {second:.3f}.",
            table(rows),
        ]

    @property
    def _weights_of_classes(self):
        names = self.first_class, self.second_class
        return [self.weights[self._labels == self._classes.index(name)] for name in names]

    def _record(self, network):
        """The weights of all images in a network, recorded at the first call."""
        from eca_lab import probe

        if network not in self._records:
            self._records[network] = probe.record_weights(
                self._networks[network], self._images, self._prepare
            )
        return self._records[network]

    def _look(self):
        """Each layer's input (1, C, h, w), and the probabilities, of the network as it is."""
        from eca_lab import probe

        key = self.network, self.image
        if self._seen[0] != key:
            model, image = self._networks[self.network], self._images[self.image, None]
            seen = probe.feature_maps(model, image, self._prepare), self._forward(model)
            self._seen = key, seen
        return self._seen[1]

    def _forward(self, model):
        """The probabilities (G,) of the chosen image."""
        import torch

        like = next(model.parameters())
        with torch.inference_mode():
            batch = self._prepare(self._images[self.image, None].to(like.device))
            return model(batch.to(like.dtype))[0].float().softmax(0).cpu().numpy()


def _checked_networks(networks):
    """The attention layers of each network by name; the networks are in evaluation mode then."""
    from eca_lab import probe

    if not networks:
        raise ValueError("networks: there are none; accepted is at least one")
    layers = {name: tuple(probe.attention_layers(model)) for name, model in networks.items()}
    for name, found in layers.items():
        if not found:
            raise ValueError(
                f"networks[{name!r}] has no channel attention: accepted are models with some"
            )
        networks[name].eval()
    return layers


def _first_of_each(labels, classes, most):
    """Where the first images of each class are, sorted by class, at most so many; and how many."""
    found = [np.flatnonzero(labels == label) for label in range(len(classes))]
    for name, images in zip(classes, found, strict=True):
        if not len(images):
            raise ValueError(f"class {name!r} has no test image: accepted is at least one")
    found = [images[: max(1, most // len(classes))] for images in found]
    return np.concatenate(found), [len(images) for images in found]
