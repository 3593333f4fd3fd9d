"""The explorer of the channel weights of trained networks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.checks import shown as in_words
from eca_lab.data.dataset import Dataset
from eca_lab.explorers.explorer import Explorer, plain
from eca_lab.explorers.network import describe
from eca_lab.explorers.shown import Shown, of_dataset, of_images, progress, shrunk
from eca_lab.figures import WEIGHTS, arm_color, dress, new_figure
from eca_lab.looking import probe
from eca_lab.networks import passes


def explore(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    labels: Any = None,
    classes: Sequence[str] | None = None,
    prepare: passes.Prepare | None = None,
    *,
    layer: str | None = None,
    image: int = 0,
    channel: int = 0,
    factor: float = 1,
) -> "ChannelWeightExplorer":
    """Look into a network: the explorer of channel weights, of any model and images of any size.

    Shown are the first images of each class, equally many, at most 200 in all and sorted by class;
    without labels the first 200, in the order in which they are given. (To have them sorted by what
    the model predicts, give that as labels.) The model is left as it was found.

    Its output is taken for logits if it is (N, classes), or holds them, see
    `eca_lab.networks.passes.logits_of`; for probabilities if its rows are none below 0 and sum
    to 1. Of any other output there are no bars of classes, and a line says why.

    `save("mine.html")` of what is returned writes it as a page that needs no kernel.

    Args:
        model: any with channel attention, see `eca_lab.record_weights`; on any device, in any
            floating dtype.
        images: (N, ...), or batches: a DataLoader, or another iterable. Of batches the first 10,000
            images are looked at. Floats from 0 to 1 and uint8 are shown as they are, of others each
            picture from its lowest value to its highest. What has neither 1 nor 3 channels, or is
            no picture, is not shown.
        labels: (N,) integers from 0; by default those that the batches carry, if they carry some.
        classes: their names, by default their numbers.
        prepare: makes of a batch of images what the model is called with. Integers need it.
        layer: one of the attention layers, the last if left out.
        image: number among the images shown, from 0.
        channel: number of the channel, from 0.
        factor: of the channel's weight, from 0 to 4.

    Raises:
        TypeError, ValueError: a model in which no channel attention is found; images, labels or
            classes that cannot be shown; weights that are not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={in_words(model)}: accepted is a torch.nn.Module")
    given = of_images(
        images,
        labels=labels,
        classes=classes,
        prepare=prepare,
        most=ChannelWeightExplorer.IMAGES,
    )
    name = type(model).__name__
    explorer = ChannelWeightExplorer(
        {name: model}, given, layer=layer, image=image, channel=channel, factor=factor
    )
    others = {"labels": labels, "classes": classes, "prepare": prepare}
    arguments = [f"{each}={each}" for each, value in others.items() if value is not None]
    explorer._called("explore", "model", "images", *arguments, network=name)
    return explorer


BOARD = 32  # cells of a side of the board, as board.js has them


class _Look(NamedTuple):
    """What a network makes of all images as they are.

    weights are (N, C) by layer; left_out says of layers why they have none; chances (N, K) are the
    probabilities of the K classes, or why there are none.
    """

    weights: dict[str, np.ndarray]
    left_out: dict[str, str]
    chances: np.ndarray | str


class _Seen(NamedTuple):
    """The feature maps (1, C, ...) of an image by layer."""

    network: str
    image: int
    maps: dict[str, np.ndarray]


class ChannelWeightExplorer(Explorer):
    """Point at a weight of an image in a channel, see what it does, and change it.

    The images are the first test images of each class, equally many, at most `IMAGES` in all and
    sorted by class. The weights of a network are recorded when it is first shown. The networks are
    left as they were found.

    Args:
        networks: name -> model with channel attention, trained on the data set.
        dataset: an `eca_lab.data.Dataset` with a test image of every class, at most `IMAGES`
            classes; or what `eca_lab.explore` makes of other images.
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
    BARS = 10  # classes that have a bar, at most
    RUN_BYTES = 2_000_000  # of the networks that the page runs itself, all together
    MAP_SIDE = 64  # cells of the longer side of a map, at most: of larger ones averages
    FACTOR_LIMITS = (0, 4)
    FACTOR_STOPS = tuple(tenths / 10 for tenths in range(41))
    # Without a kernel: maps of some images, of at most so many cells a side, and bytes in all.
    ALONE_SIDE = 16
    ALONE_MAPS = 2_000_000

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        dataset: Dataset | Shown,
        *,
        network: str | None = None,
        layer: str | None = None,
        image: int = 0,
        channel: int = 0,
        factor: float = 1,
    ) -> None:
        _check_networks(networks)
        self._shown = of_dataset(dataset, self.IMAGES) if isinstance(dataset, Dataset) else dataset
        shown = self._shown
        self._networks = dict(networks)
        self._looks: dict[str, _Look] = {}
        self._seen: _Seen | None = None
        self._channels = {name: self._channels_of(name) for name in networks}
        if network is None:
            network = next(iter(networks))
        if layer is None and network in networks:
            layer = list(self._channels[network])[-1]
        self._classes, self._why = self._classes_told(next(iter(networks)))
        pictures, described = shown.pictures, self._described()
        super().__init__(
            (network, layer, image, channel, factor),
            groups=shown.groups,
            counts=list(shown.counts),
            classes=self._classes,
            labels=None if shown.labels is None else shown.labels.tolist(),
            stops=self.FACTOR_STOPS,
            networks=[(name, list(layers.items())) for name, layers in self._channels.items()],
            colors={name: _color(name) for name in networks},
            indices=shown.indices.astype("<i4").tobytes(),
            images=None if pictures is None else pictures.tobytes(),  # (N, h, w, 3)
            size=None if pictures is None else pictures.shape[1:3],
            source="Test image" if shown.required else "Given as image",
            why=self._why,
            notes=[*shown.notes, *self._left_out()],
            described=described,
            board=described is not None and pictures.shape[1:3] == (BOARD, BOARD),
        )

    def _called(self, name: str, *arguments: str, **usual: Any) -> None:
        """Be named as another call, with these arguments and what is usual in it."""
        told = {"name": name, "arguments": arguments, "usual": {**self.USUAL, **usual}}
        told["title"] = f"Channel weights of {self.network}"
        self.given = {**self.given, **told}

    @property
    def weights(self) -> np.ndarray:
        """(N, C) weights of the layer for all images, as `eca_lab.looking.probe.record_weights`
        gives.
        """
        return self._look(self.network).weights[self.layer]

    @property
    def probabilities(self) -> pd.DataFrame:
        """DataFrame by class: the probabilities of the image, plain and with the changed weight.

        ValueError: the output of the model is no logits.
        """
        plain, changed = self._chances_now()
        if isinstance(plain, str):
            raise ValueError(plain)
        return pd.DataFrame({"plain": plain, "changed": changed}, self._classes)

    def _chances_now(self) -> tuple[Any, Any]:
        """The probabilities (K,) of the image, plain and with the changed weight, which may be NaN;
        or twice why there are none.
        """
        plain = self._look(self.network).chances
        if self._why or isinstance(plain, str):
            return self._why, self._why
        if self.factor == 1:
            return plain[self.image], plain[self.image]
        factors = torch.ones(self._channels[self.network][self.layer])
        factors[self.channel] = self.factor
        change = probe.scale(factors)
        only = self._shown.some([self.image])
        return plain[self.image], self._run(self.network, self.layer, change, [only])[0]

    def _result(self) -> str:
        if self._why:
            return f"weight {self.answer['weight']:.3f}"
        chances = self.probabilities
        plain = chances["plain"].idxmax()
        if chances["changed"].isna().any():
            return f"predicts {plain}, changed {_NOT_FINITE}"
        changed = chances["changed"].idxmax()
        return f"predicts {plain}" + ("" if changed == plain else f", changed {changed}")

    def _figure(self) -> Figure:
        figure = new_figure(7.2, 4.2)
        ax = figure.add_subplot()
        low, high = _limits(self.weights)
        chosen = f"image {self.image}, channel {self.channel}: {self.answer['weight']:.3f}"
        order = "images" if self._shown.labels is None else "images, sorted by class"
        dress(ax, f"Weights, dark {low:.3g}, bright {high:.3g}; {chosen}", "channel", order)
        ax.grid(visible=False)
        style = {**WEIGHTS, "vmin": low, "vmax": high}
        ax.imshow(self.weights, **style, aspect="auto", interpolation="nearest")
        counts = np.array(self._shown.counts)
        middles = np.cumsum(counts) - counts / 2
        every = -(-len(middles) // 20)  # more names than 20 would overlap
        ax.set_yticks(middles[::every], self._shown.groups[::every])
        ax.plot(self.channel, self.image, "wo", fillstyle="none", markersize=9)
        return figure

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        check_choice("network", state["network"], tuple(self._channels))
        layers = self._channels[state["network"]]
        check_choice("layer", state["layer"], tuple(layers))
        check_integer("image", state["image"], least=0, most=len(self._shown) - 1)
        check_integer("channel", state["channel"], least=0, most=layers[state["layer"]] - 1)
        least, most = self.FACTOR_LIMITS
        check_number("factor", state["factor"], least=least, most=most)
        numbers = {name: plain(state[name]) for name in ("image", "channel", "factor")}
        return {**state, **numbers}

    def _answer(self) -> dict[str, Any]:
        weights = self.weights
        maps = self._maps_now()[self.layer][:, self.channel, None]
        [[before]], form = _drawn(maps, self.MAP_SIDE)
        answer: dict[str, Any] = {
            **_told_weights(weights),
            "weight": float(weights[self.image, self.channel]),
            "map": before.tobytes(),
            "size": before.shape,
            "form": form,
        }
        plain, changed = self._chances_now()
        if isinstance(plain, str):
            return {**answer, "classes": [], "plain": [], "changed": []}
        [bars] = self._bars(plain[None], changed[None], [self.image])
        told = {"classes": bars, "plain": plain[bars], "changed": np.nan_to_num(changed[bars])}
        return answer | {name: numbers.tolist() for name, numbers in told.items()}

    def _bars(self, plain: np.ndarray, changed: np.ndarray, images: Any) -> np.ndarray:
        """Which classes have a bar, (n, B), of n images with such probabilities (n, K).

        All of few classes, in their order. Else the image's own, and those with the highest
        probability, plain or changed; the highest plain one comes first.
        """
        count = plain.shape[1]
        if count <= self.BARS:
            return np.tile(np.arange(count), (len(plain), 1))
        most = np.fmax(plain, changed)
        if self._shown.labels is not None:
            most[np.arange(len(most)), self._shown.labels[images]] = 2  # more than any
        best = np.argsort(-most, axis=1, kind="stable")[:, : self.BARS]
        order = np.argsort(-np.take_along_axis(plain, best, 1), axis=1, kind="stable")
        return np.take_along_axis(best, order, 1)

    def _maps_now(self) -> dict[str, np.ndarray]:
        """What the network makes of the image as it is, kept until either changes."""
        seen = self._seen
        if seen is None or (seen.network, seen.image) != (self.network, self.image):
            seen = _Seen(self.network, self.image, self._maps(self.network, [self.image]))
            self._seen = seen
        return seen.maps

    # --- What runs the networks ---

    def _channels_of(self, name: str) -> dict[str, int]:
        """Layer -> channels, of a network. One alone is looked at wholly, of several the first."""
        if len(self._networks) == 1:
            look = self._look(name)
        else:
            look = self._record(name, [self._shown.some([0])])
        return {layer: weights.shape[1] for layer, weights in look.weights.items()}

    def _look(self, name: str) -> _Look:
        """What a network makes of all images, recorded when it is first asked for."""
        if name not in self._looks:
            batches = progress(self._shown.batches(), f"Weights of {name}", len(self._shown.starts))
            self._looks[name] = self._record(name, batches)
        return self._looks[name]

    def _record(self, name: str, batches: Iterable[Any]) -> _Look:
        """Weights and probabilities, of the same passes."""
        model = self._networks[name]
        found: list[np.ndarray | str] = []

        def keep(_: nn.Module, __: object, output: Any) -> None:
            found.append(_probabilities(output, alone=self._shown.required))

        with model.register_forward_hook(keep):
            try:
                record = probe.record_weights(model, batches, prepare=self._shown.prepare)
            except ValueError as error:
                if str(error).startswith("images"):
                    raise
                raise ValueError(f"{self._argument(name)}: {error}") from None
        for layer, weights in record.weights.items():
            if not np.isfinite(weights).all():
                raise ValueError(
                    f"{self._argument(name)}: weights of {layer} are not finite; accepted are "
                    "networks that give finite numbers for every image"
                )
        return _Look(record.weights, record.left_out, self._accepted(name, found))

    def _run(
        self, name: str, layer: str, change: probe.Change, batches: Iterable[Any]
    ) -> np.ndarray:
        """The probabilities (n, K) with other weights in a layer, NaN of images where the network
        gives no finite numbers then.
        """
        model = self._networks[name]
        found: list[np.ndarray | str] = []
        with passes.evaluating(model), probe.intervene(model, layer, change):
            for batch in batches:
                with torch.inference_mode():
                    output = passes.call(model, batch, self._shown.prepare)
                found.append(_probabilities(output, alone=self._shown.required))
        return np.concatenate([each for each in found if not isinstance(each, str)])

    def _maps(self, name: str, images: list[int]) -> dict[str, np.ndarray]:
        """The feature maps of some images: layer -> (n, C, ...)."""
        some = self._shown.some(images)
        return probe.feature_maps(self._networks[name], [some], prepare=self._shown.prepare)

    def _argument(self, name: str) -> str:
        """How the one who called named this network."""
        return f"networks[{name!r}]" if self._shown.required else "model"

    def _accepted(self, name: str, found: list[np.ndarray | str]) -> np.ndarray | str:
        """The probabilities (n, K) of several batches, or what the network gives instead.

        TypeError, ValueError: it gives something else than its classes, and they are required.
        """
        wrong = next((each for each in found if isinstance(each, str)), "")
        numbers = [each for each in found if not isinstance(each, str)]
        chances = np.concatenate(numbers or [np.empty(0)])
        if np.isnan(chances).any():
            wrong = _NOT_FINITE
        if not self._shown.required:
            if wrong == _NOT_FINITE:
                raise ValueError(f"model gives {wrong}: accepted are finite numbers")
            return wrong or chances
        shape = (len(chances) or 1, len(self._shown.classes or ()))
        if not wrong and chances.shape != shape:
            wrong = f"a tensor {chances.shape}"
        if wrong:
            accepted = f"accepted is a tensor {shape}, of one finite number for each class"
            kind = ValueError if wrong == _NOT_FINITE or "tensor" in wrong else TypeError
            raise kind(f"networks[{name!r}] gives {wrong}: {accepted}")
        return chances

    def _classes_told(self, name: str) -> tuple[tuple[str, ...], str]:
        """The names of the classes that a network tells apart, or none of them and why not."""
        shown = self._shown
        if shown.required:
            return shown.classes or (), ""
        chances = self._look(name).chances
        none = "No bars of classes: the model gives"
        if isinstance(chances, str):
            return (), f"{none} {chances}, and no logits (N, classes)."
        count = chances.shape[1]
        gives = f"{none} {count:,} numbers for an image, and"
        if shown.classes is not None and len(shown.classes) != count:
            return (), f"{gives} there are names of {len(shown.classes):,} classes."
        if shown.labels is not None and shown.labels.max() >= count:
            return (), f"{gives} one label is {shown.labels.max()}."
        return shown.classes or tuple(map(str, range(count))), ""

    def _described(self) -> dict[str, dict[str, Any]] | None:
        """The networks as data, if the page can run them all, and draw all their classes."""
        shown = self._shown
        if shown.statistics is None or shown.pictures is None or len(self._classes) > self.BARS:
            return None
        size = tuple(shown.images.shape[2:])
        weights = [each for model in self._networks.values() for each in model.parameters()]
        large = 2 * sum(each.numel() for each in weights) > self.RUN_BYTES
        if large or shown.pictures.shape[1:3] != size:
            return None
        described = {}
        for name, model in self._networks.items():
            try:
                with passes.evaluating(model):
                    described[name] = describe(model, shown.statistics(), size=size)
            except ValueError:
                return None  # the kernel runs them
        return described

    def _left_out(self) -> Iterator[str]:
        """What looks like channel attention and is not shown, in sentences."""
        for look in self._looks.values():
            for layer, reason in look.left_out.items():
                yield f"Left out: {layer or 'the model itself'}, since {reason}."

    # --- For a page without a kernel ---

    def _alone(self) -> dict[str, Any]:
        """All that such a page shows: weights, predictions, and maps of some images; and what the
        model predicts with all weights of a layer at 1, without its attention. Of networks that
        the page runs, the weights.
        """
        if self.given["described"]:  # the page computes all else
            looks = [self._look(name) for name in self._channels]
            recorded = [[_told_weights(each) for each in look.weights.values()] for look in looks]
            return {"recorded": recorded}
        pairs = [(name, layer) for name, layers in self._channels.items() for layer in layers]
        off = {
            pair: self._told_off(*pair)
            for pair in progress(pairs, "Without the attention of a layer")
        }
        kept, recorded = self._kept_images(), []
        for name in self._channels:
            weights = self._look(name).weights
            maps = self._told_maps(name, kept)
            recorded.append(
                [
                    {**_told_weights(weights[layer]), **off[name, layer], **maps[layer]}
                    for layer in maps
                ]
            )
        initial = {**self._state(), "factor": 1}  # no other weights can be applied
        return {"recorded": recorded, "mapped": kept, "initial": initial}

    def _told_off(self, name: str, layer: str) -> dict[str, Any]:
        """Bars of classes for all images: as they are, and without the attention of a layer."""
        plain = self._look(name).chances
        if self._why or isinstance(plain, str):
            return {}
        changed = self._run(name, layer, probe.off, self._shown.batches())
        bars = self._bars(plain, changed, slice(None))
        told = {"plain": np.take_along_axis(plain, bars, 1)}
        told["changed"] = np.nan_to_num(np.take_along_axis(changed, bars, 1))
        return {
            "classes": bars.astype("<i4").tobytes(),
            **{key: values.astype("<f4").tobytes() for key, values in told.items()},
        }

    def _told_maps(self, name: str, images: list[int]) -> dict[str, dict[str, Any]]:
        """Layer -> the maps of some images as signed bytes (n, C, h, w), see `_shares`."""
        parts: dict[str, list[np.ndarray]] = {layer: [] for layer in self._channels[name]}
        forms = {}
        for start in progress(range(0, len(images), 8), f"Maps of {name}"):
            for layer, maps in self._maps(name, images[start : start + 8]).items():
                pictures, forms[layer] = _drawn(maps, self.ALONE_SIDE)
                parts[layer].append(_shares(pictures))
        return {
            layer: {
                "map": np.concatenate(shares).tobytes(),
                "size": shares[0].shape[2:],
                "form": forms[layer],
            }
            for layer, shares in parts.items()
        }

    def _kept_images(self) -> list[int]:
        """Of which images there are maps: the first of each group, then the second, as far as
        there is room; and the one that is shown.
        """
        one = sum(
            len(told["map"])
            for name in self._channels
            for told in self._told_maps(name, [self.image]).values()
        )
        groups = np.repeat(np.arange(len(self._shown.counts)), self._shown.counts)
        places = np.concatenate([np.arange(count) for count in self._shown.counts])
        turns = [int(image) for image in np.lexsort((groups, places)) if image != self.image]
        return sorted([self.image, *turns[: max(0, self.ALONE_MAPS // one - 1)]])


_NOT_FINITE = "NaN or infinity"


def _probabilities(output: Any, *, alone: bool) -> np.ndarray | str:
    """The probabilities (n, K) of a batch, from what a model gives, NaN of an image for which it
    gives no finite numbers; or in words what else it gives.

    Logits may stand among others, unless they are accepted alone.
    """
    if alone and not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    try:
        logits = passes.logits_of(output).detach().float().cpu()
    except TypeError:
        if isinstance(output, Tensor):
            return f"a tensor {tuple(output.shape)}"
        return f"a {type(output).__name__}"
    if logits.shape[1] < 2:
        return f"a tensor {tuple(logits.shape)}"
    done = (logits >= 0).all() and (logits.sum(1) - 1).abs().max() < 1e-3
    chances = logits if done else logits.softmax(1)
    return chances.where(chances.isfinite().all(1, keepdim=True), torch.nan).numpy()


def _limits(weights: np.ndarray) -> tuple[float, float]:
    """From which weight to which the colours go: from 0 to 1, or further as far as they do."""
    return min(0.0, float(weights.min())), max(1.0, float(weights.max()))


def _told_weights(weights: np.ndarray) -> dict[str, Any]:
    """(N, C) weights as bytes, between limits; and the smallest and the largest."""
    low, high = _limits(weights)
    shades = np.rint(255 * ((weights - low) / (high - low))).astype(np.uint8)
    spread = [float(weights.min()), float(weights.max())]
    return {"weights": shades.tobytes(), "limits": [low, high], "spread": spread}


def _drawn(maps: np.ndarray, side: int) -> tuple[np.ndarray, str]:
    """Maps (N, C, ...) as pictures (N, C, h, w) of at most so many cells a side; and what is to
    know of them, if they have other than two dimensions.
    """
    values, form = torch.from_numpy(maps), ""
    if values.dim() == 5:
        middle = values.shape[2] // 2
        values, form = values[:, :, middle], f"slice {middle + 1} of {values.shape[2]}"
    elif values.dim() != 4:
        values = values.flatten(2).unsqueeze(2)
        form = f"{values.shape[3]} positions, from left to right"
    return shrunk(values, side).numpy(), form


def _shares(pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, C, h, w) as signed bytes, each as shares of its largest value."""
    pictures = np.nan_to_num(pictures)
    most = np.abs(pictures).max((2, 3), keepdims=True)
    return np.rint(127 * pictures / np.where(most, most, 1)).astype(np.int8)


def _color(name: Any) -> str:
    """Of the arm with which the name of a network begins, as "eca, seed 0" does, else of ECA."""
    try:
        return arm_color(name.split(", ")[0])
    except (AttributeError, ValueError):
        return arm_color("eca")


def _check_networks(networks: object) -> None:
    if not isinstance(networks, Mapping):
        raise TypeError(f"networks={in_words(networks)}: accepted is a dict of models by name")
    if not networks:
        raise ValueError("networks: there are none; accepted is at least one")
    for name, model in networks.items():
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"networks[{name!r}]={in_words(model)}: accepted is a torch.nn.Module")
