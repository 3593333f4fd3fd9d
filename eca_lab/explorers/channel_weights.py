"""The panel of the channel weights of trained networks."""

import html
from numbers import Integral

import ipywidgets
import numpy as np

from eca_lab.explorers.channel_weights_picture import ChannelWeightPicture
from eca_lab.explorers.panel import Panel, new_box, new_slider, rows_as_html, state


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
        dataset: an `eca_lab.data.Dataset`.
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

    Raises:
        TypeError, ValueError: also for no network at all, one without channel attention, and a
            class without a test image.
    """

    IMAGES = 200
    BINS = 40  # of the histogram
    FACTOR_LIMITS = (0, 4)

    network = state("network")
    layer = state("layer")
    first_class = state("first_class")
    second_class = state("second_class")
    image = state("image")
    channel = state("channel")
    factor = state("factor")

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
        super().__init__(
            ChannelWeightPicture(self._classes, counts),
            network=network,
            layer=layer,
            first_class=self._classes[0] if first_class is None else first_class,
            second_class=self._classes[1] if second_class is None else second_class,
            image=image,
            channel=channel,
            factor=factor,
        )

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
        return [self.weights[self._labels == label].mean(0) for label in self._chosen_labels]

    @property
    def probabilities(self):
        """DataFrame by class: the probabilities of the image, plain and with the changed weight."""
        import pandas as pd

        plain, changed = self._probabilities
        return pd.DataFrame({"plain": plain, "changed": changed}, index=list(self._classes))

    def __repr__(self):
        """The constructor call that gives an equal panel of the same networks and data."""
        state = ", ".join(f"{name}={value!r}" for name, value in self._state.items())
        return f"ChannelWeightExplorer(networks, dataset, {state})"

    def _result(self):
        plain, changed = (self._classes[chances.argmax()] for chances in self._probabilities)
        return f"predicts {plain}" + (f", changed {changed}" if changed != plain else "")

    def _in_words(self):
        return (
            f"{self.network}, {self.layer}, {self.first_class} and {self.second_class}, image "
            f"{self.image}, channel {self.channel}, factor {self.factor:g}"
        )

    def _build_controls(self):
        self._choices = {
            "network": ipywidgets.Dropdown(options=tuple(self._networks), description="network"),
            "layer": ipywidgets.Dropdown(description="layer"),
            "first_class": ipywidgets.Dropdown(options=self._classes, description="class"),
            "second_class": ipywidgets.Dropdown(options=self._classes, description="and class"),
        }
        for choice in self._choices.values():
            choice.layout = ipywidgets.Layout(width="252px")
        last = len(self._indices) - 1
        self._image_slider = new_slider(ipywidgets.IntSlider, "image", 0, last, 1)
        self._channel_slider = new_slider(ipywidgets.IntSlider, "channel", 0, 1, 1)
        self._factor_slider = new_slider(
            ipywidgets.FloatSlider, "factor", *self.FACTOR_LIMITS, step=0.1
        )
        self._image_box = new_box(ipywidgets.IntText, f"image, 0 to {last}", 1)
        self._channel_box = new_box(ipywidgets.IntText, "channel, from 0", 1)
        self._factor_box = new_box(ipywidgets.FloatText, "factor of the channel's weight", 0.1)
        self._table = ipywidgets.HTML()
        self._observe([(choice, name, str) for name, choice in self._choices.items()])
        self._observe(
            [
                (self._image_slider, "image", int),
                (self._image_box, "image", int),
                (self._channel_slider, "channel", int),
                (self._channel_box, "channel", int),
                (self._factor_slider, "factor", lambda value: round(value, 1)),
                (self._factor_box, "factor", float),
            ]
        )
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        presets = {"channel off": {"factor": 0}, "channel doubled": {"factor": 2}}
        return [
            ipywidgets.Box([*self._choices.values()], layout=wrap),
            ipywidgets.HBox([self._image_slider, self._image_box]),
            ipywidgets.HBox([self._channel_slider, self._channel_box]),
            ipywidgets.HBox([self._factor_slider, self._factor_box]),
            ipywidgets.Box(self._buttons(presets), layout=wrap),
        ]

    def _set(self, **changes):
        note = ""
        network = changes.get("network", self._state.get("network"))
        if self._state and network in self._layers:
            layers = self._layers[network]
            if "layer" not in changes and self.layer not in layers:
                changes["layer"] = layers[-1]
            layer = changes.get("layer", self.layer)
            if layer in layers and "channel" not in changes:
                last = self._record(network).weights[layer].shape[1] - 1
                if self.channel > last:
                    changes["channel"] = last
                    note = f"Lowered to fit {last + 1} channels: channel to {last}"
        super()._set(**changes)
        self._status.value = note

    def _checked(self, network, layer, first_class, second_class, image, channel, factor):
        for name, value, accepted in (
            ("network", network, self._layers),
            ("layer", layer, self._layers.get(network, ())),
            ("first_class", first_class, self._classes),
            ("second_class", second_class, self._classes),
        ):
            if value not in accepted:
                raise ValueError(f"{name}={value!r}: accepted are {', '.join(accepted)}")
        channels = self._record(network).weights[layer].shape[1]
        for name, value, count in (
            ("image", image, len(self._indices)),
            ("channel", channel, channels),
        ):
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name}={value!r}: accepted is an integer")
            if not 0 <= value < count:
                raise ValueError(f"{name}={value}: accepted here are 0 to {count - 1}")
        lowest, highest = self.FACTOR_LIMITS
        if not lowest <= factor <= highest:
            raise ValueError(f"factor={factor}: accepted are {lowest} to {highest}")
        return {
            "network": network,
            "layer": layer,
            "first_class": first_class,
            "second_class": second_class,
            "image": int(image),
            "channel": int(channel),
            "factor": float(factor),
        }

    def _sync_controls(self):
        self._choices["layer"].options = self._layers[self.network]
        for name, choice in self._choices.items():
            choice.value = self._state[name]
        self._channel_slider.max = self.weights.shape[1] - 1
        self._image_slider.value = self._image_box.value = self.image
        self._channel_slider.value = self._channel_box.value = self.channel
        self._factor_slider.value = self._factor_box.value = self.factor

    def _show(self):
        import torch

        from eca_lab import probe

        weights, means = self.weights, self.class_weights
        inputs, plain = self._look()
        factors = torch.ones(weights.shape[1])
        factors[self.channel] = self.factor
        model = self._networks[self.network]
        with probe.intervene(model, self.layer, probe.scale(factors)):
            self._probabilities = plain, self._forward(model)
        before = inputs[self.layer][self.channel]
        of_classes = [weights[self._labels == label] for label in self._chosen_labels]
        self._read_out(self._lines())
        self._image.value = self._picture.png(
            weights=weights,
            means=means,
            classes=list(
                zip(self._chosen_labels, (self.first_class, self.second_class), strict=True)
            ),
            image=self.image,
            channel=self.channel,
            histograms=[probe.weight_histogram(each, self.BINS) for each in of_classes],
            picture=self._images[self.image].permute(1, 2, 0).cpu().numpy(),
            maps=(before, before * self.weight * self.factor),
            chances=self._probabilities,
        )

    def _lines(self):
        true = self._classes[self._labels[self.image]]
        rows = [("", "plain", "changed")]
        for name, (plain, changed) in self.probabilities.iterrows():
            if max(plain, changed) >= 0.005:
                rows.append((html.escape(name), f"{plain:.1%}", f"{changed:.1%}"))
        first, second = (means[self.channel] for means in self.class_weights)
        return [
            f"Image {self.image} is test image {self._indices[self.image]:,}, of class "
            f"<b>{html.escape(true)}</b>.",
            f"Channel {self.channel}: weight {self.weight:.3f} × {self.factor:g} = "
            f"{self.weight * self.factor:.3f}; {html.escape(self.first_class)} has {first:.3f} in "
            f"the mean, {html.escape(self.second_class)} {second:.3f}.",
            rows_as_html(rows),
            f"This state: <code>{html.escape(repr(self))}</code>",
        ]

    @property
    def _chosen_labels(self):
        return [self._classes.index(name) for name in (self.first_class, self.second_class)]

    def _record(self, network):
        """The weights of all images in a network, recorded at the first call."""
        from eca_lab import probe

        if network not in self._records:
            self._records[network] = probe.record_weights(
                self._networks[network], self._images, self._labels, self._prepare
            )
        return self._records[network]

    def _look(self):
        """Each layer's input (C, h, w), and the probabilities, of the network as it is."""
        from eca_lab import probe

        key = self.network, self.image
        if self._seen[0] != key:
            model, inputs = self._networks[self.network], {}

            def keep(layer):
                def hook(_, given):
                    inputs[layer] = given[0][0].float().cpu().numpy()

                return hook

            hooks = [
                module.register_forward_pre_hook(keep(layer))
                for layer, module in probe.attention_layers(model).items()
            ]
            try:
                self._seen = key, (inputs, self._forward(model))
            finally:
                for hook in hooks:
                    hook.remove()
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
