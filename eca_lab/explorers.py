"""Panels: sliders, a read-out and a picture. Numbers and pictures come from the other modules.

A panel's state is a set of plain attributes that can be read and set; its sliders and boxes only
show that state. The panel of the kernel size needs no torch: others import it when they are made.
"""

import base64
import bisect
import html
from fractions import Fraction
from functools import lru_cache
from numbers import Integral
from typing import ClassVar

import ipywidgets
import numpy as np

from eca_lab import checks
from eca_lab import kernel_size as ks
from eca_lab.plots import (
    ChannelWeightPicture,
    KernelSizePicture,
    ReductionPicture,
    StudyPicture,
)

NETWORK_NAMES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet152": "ResNet-152",
    "mobilenet_v2": "MobileNetV2",
}


def _state(name):
    """An attribute of a panel that is checked, and shown, when it is set."""
    return property(lambda panel: panel._state[name], lambda panel, new: panel._set(**{name: new}))


class _Panel(ipywidgets.VBox):
    """Controls, a status line and a read-out beside a picture, all showing one checked state.

    A subclass gives `_build_controls`, which returns their rows; `_checked`, which returns the
    state to take, or raises; `_sync_controls`, `_show`, and the texts `_in_words` and `_result`.

    Args:
        picture: one of `eca_lab.plots`.
        state: the attributes to begin with.
    """

    def __init__(self, picture, **state):
        self._picture = picture
        self._syncing = False
        rows = self._build_controls()
        self._status = ipywidgets.HTML()
        self._readout = ipywidgets.HTML()
        self._image = ipywidgets.Image(format="png")
        # Beside the controls where there is room for 540 pixels, below them elsewhere.
        self._image.layout = ipywidgets.Layout(
            flex="1 1 540px", min_width="0", max_width="min(720px, 100%)", height="auto"
        )
        self._state = {}
        self._set(**state)
        self._initial = dict(self._state)
        left = ipywidgets.VBox([*rows, self._status, self._readout])
        left.layout = ipywidgets.Layout(flex="1 1 400px", max_width="560px", margin="0 16px 0 0")
        body = ipywidgets.Box([left, self._image])
        body.layout = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start")
        super().__init__([body])

    def _repr_mimebundle_(self, **kwargs):
        # Beside the live view, what a reader without a kernel can see: the picture, and one line.
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = f"{self!r}: {self._result()}"
        bundle["image/png"] = base64.b64encode(self._image.value).decode()
        return bundle

    def _observe(self, controls):
        """Let each (control, attribute, how its value is read) set its attribute."""
        for control, name, read in controls:
            control.observe(
                lambda change, name=name, read=read: self._try(**{name: read(change.new)}), "value"
            )

    def _buttons(self, presets):
        """A button for each preset, and one that goes back to the first state."""
        reset = ipywidgets.Button(description="Reset", icon="undo")
        reset.on_click(lambda _: self._try(**self._initial))
        buttons = []
        for name, state in presets.items():
            button = ipywidgets.Button(description=name)
            button.on_click(lambda _, state=state: self._try(**state))
            buttons.append(button)
        for button in (*buttons, reset):
            button.layout = ipywidgets.Layout(width="auto")
        return [*buttons, reset]

    def _try(self, **changes):
        # Nobody sees what an observer raises, so a wrong entry is answered in the status line.
        if self._syncing:
            return
        try:
            self._set(**changes)
        except (TypeError, ValueError) as error:
            self._status.value = (
                f'<div style="color: var(--jp-error-color0)">{error}. '
                f"Still showing {self._in_words()}.</div>"
            )

    def _set(self, **changes):
        """Make all changes and show the result, or raise and change nothing."""
        state = self._checked(**{**self._state, **changes})
        self._state = state
        self._status.value = ""
        self._syncing = True
        try:
            self._sync_controls()
        finally:
            self._syncing = False
        self._show()

    def _read_out(self, lines):
        self._readout.value = (
            '<div style="color: var(--jp-ui-font-color1); line-height: 1.5">'
            + "".join(f"<div>{line}</div>" for line in lines)
            + "</div>"
        )


class KernelSizeExplorer(_Panel):
    """Slide C, gamma and b; see k, what shares it, what it costs, and what networks really use.

    Args:
        channels: C, an integer from 1 to `MAX_CHANNELS`.
        gamma: slope of the mapping, a number within `GAMMA_LIMITS`.
        b: offset of the mapping, a number within `B_LIMITS`.
        ties: "up" or "down", as for `eca_lab.kernel_size.adaptive_kernel_size`.
        network: one of `eca_lab.kernel_size.NETWORKS`, whose stages are marked.

    All five can be read and set as attributes. A value that is not accepted raises a ValueError or
    a TypeError that names it; typed into a box, it shows that message under the controls instead.
    """

    MAX_CHANNELS = 8192
    GAMMA_LIMITS = (0.5, 4)
    B_LIMITS = (-4, 4)
    REDUCTION = 16  # r of the SE module that ECA is compared with

    # Where the slider of C stops: sixteenths of an octave, as far as they are different integers.
    CHANNEL_STOPS = tuple(sorted({round(2 ** (step / 16)) for step in range(16 * 13 + 1)}))

    PRESETS: ClassVar = {
        "C = 128, a tie": {"channels": 128, "gamma": 2, "b": 1},
        "C = 2048, a tie": {"channels": 2048, "gamma": 2, "b": 1},
        "ResNet-50": {"channels": 256, "gamma": 2, "b": 1, "network": "resnet50"},
        "k > C": {"channels": 4, "gamma": 0.5, "b": 1},
    }

    channels = _state("channels")
    gamma = _state("gamma")
    b = _state("b")
    ties = _state("ties")
    network = _state("network")

    def __init__(self, channels=256, gamma=2, b=1, ties="up", network="resnet50"):
        super().__init__(
            KernelSizePicture(self.MAX_CHANNELS),
            channels=channels,
            gamma=gamma,
            b=b,
            ties=ties,
            network=network,
        )

    @property
    def kernel_size(self):
        """k of the present state, a positive odd integer."""
        return ks.adaptive_kernel_size(self.channels, self.gamma, self.b, self.ties)

    def __repr__(self):
        """The constructor call that gives an equal panel; ties and network only where unusual."""
        usual = {"ties": "up", "network": "resnet50"}
        shown = (f"{name}={v!r}" for name, v in self._state.items() if usual.get(name) != v)
        return f"KernelSizeExplorer({', '.join(shown)})"

    def _result(self):
        return f"k = {self.kernel_size}"

    def _in_words(self):
        return f"C = {self.channels}, γ = {self.gamma}, b = {self.b}"

    def _build_controls(self):
        last_stop = len(self.CHANNEL_STOPS) - 1
        self._channels_slider = _slider(ipywidgets.IntSlider, "channels C", 0, last_stop, 1)
        self._gamma_slider = _slider(ipywidgets.FloatSlider, "slope γ", *self.GAMMA_LIMITS, 0.1)
        self._b_slider = _slider(ipywidgets.FloatSlider, "offset b", *self.B_LIMITS, 0.5)
        self._channels_box = _box(ipywidgets.IntText, "channels C, any whole number", 1)
        self._gamma_box = _box(ipywidgets.FloatText, "slope γ", 0.1)
        self._b_box = _box(ipywidgets.FloatText, "offset b", 0.5)
        self._ties_choice = ipywidgets.Dropdown(
            options=[("up, as in Figure 3", "up"), ("down", "down")], description="ties go"
        )
        self._network_choice = ipywidgets.Dropdown(
            options=[(NETWORK_NAMES[name], name) for name in ks.NETWORKS], description="network"
        )
        for choice in (self._ties_choice, self._network_choice):
            choice.layout = ipywidgets.Layout(width="252px")
        # Which control sets which attribute, and how its value is read. A slider's steps of 0.1 add
        # up to 2.3000000000000003, which is no tie where 2.3 would be one: hence the rounding.
        self._observe(
            [
                (self._channels_slider, "channels", self.CHANNEL_STOPS.__getitem__),
                (self._channels_box, "channels", int),
                (self._gamma_slider, "gamma", lambda value: round(value, 1)),
                (self._gamma_box, "gamma", float),
                (self._b_slider, "b", lambda value: round(value, 1)),
                (self._b_box, "b", float),
                (self._ties_choice, "ties", str),
                (self._network_choice, "network", str),
            ]
        )
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        return [
            ipywidgets.HBox([self._channels_slider, self._channels_box]),
            ipywidgets.HBox([self._gamma_slider, self._gamma_box]),
            ipywidgets.HBox([self._b_slider, self._b_box]),
            ipywidgets.Box([self._ties_choice, self._network_choice], layout=wrap),
            ipywidgets.Box(self._buttons(self.PRESETS), layout=wrap),
        ]

    def _checked(self, channels, gamma, b, ties, network):
        ks.adaptive_kernel_size(channels, gamma, b, ties)
        ks.stage_channels(network)
        limits = {
            "channels": (1, self.MAX_CHANNELS),
            "gamma": self.GAMMA_LIMITS,
            "b": self.B_LIMITS,
        }
        for name, value in (("channels", channels), ("gamma", gamma), ("b", b)):
            lowest, highest = limits[name]
            if not lowest <= value <= highest:
                raise ValueError(f"{name}={value}: accepted here are {lowest} to {highest}")
        gamma, b = (int(x) if x == int(x) else float(x) for x in (gamma, b))
        return {"channels": int(channels), "gamma": gamma, "b": b, "ties": ties, "network": network}

    def _sync_controls(self):
        self._channels_slider.value = _nearest(self.CHANNEL_STOPS, self.channels)
        self._channels_box.value = self.channels
        self._gamma_slider.value = self._gamma_box.value = self.gamma
        self._b_slider.value = self._b_box.value = self.b
        self._ties_choice.value = self.ties
        self._network_choice.value = self.network

    def _show(self):
        channels, k = self.channels, self.kernel_size
        mapping = (self.gamma, self.b, self.ties)
        starts, sizes = _steps(self.MAX_CHANNELS, *mapping)
        run = bisect.bisect_right(starts, channels) - 1
        interval = starts[run], starts[run + 1] - 1
        stages = ks.stage_channels(self.network)
        formula = [ks.adaptive_kernel_size(width, *mapping) for width in stages]
        released = ks.released_kernel_sizes(self.network)
        se = 2 * channels**2 / self.REDUCTION

        self._read_out(
            [
                *self._rounding_lines(),
                f"Every C from {interval[0]:,} to {interval[1]:,} shares k = {k}.",
                f"Parameters of a module: ECA {k}; SE with r = {self.REDUCTION}, "
                f"2C²/r {_equals(se)}.",
                _table(NETWORK_NAMES[self.network], stages, formula, released),
                f"This state: <code>{self!r}</code>",
            ]
        )
        self._image.value = self._picture.png(
            point=(channels, k),
            interval=interval,
            steps=(starts, sizes),
            stages=(stages, formula, released),
            band=_band(min(channels, self._picture.SIDE), k),
            parameters=(k, se),
        )

    def _rounding_lines(self):
        channels, gamma, b, k = self.channels, self.gamma, self.b, self.kernel_size
        t = ks.rounding_argument(channels, gamma, b)
        offset = f"+ {b}" if b >= 0 else f"− {-b}"
        sign, octaves = _equals(ks.rounding_argument(channels, gamma=1, b=0)).split()
        lines = [
            "k = |t|<sub>odd</sub> with t = (log<sub>2</sub> C + b) / γ",
            f"t = (log<sub>2</sub> {channels} {offset}) / {gamma} "
            f"{sign} ({octaves} {offset}) / {gamma} {_equals(t)}",
        ]
        if t == int(t) and t % 2 == 0:
            below, above = sorted((int(abs(t)) - 1, int(abs(t)) + 1))
            rule = f"ties go {self.ties}" if t else "and a kernel size is positive"
            lines.append(
                f"A <b>tie</b>: {int(abs(t))} is midway between {below} and {above}; "
                f"{rule}: <b>k = {k}</b>"
            )
        else:
            lines.append(f"Nearest odd integer to {_equals(abs(t)).split()[1]}: <b>k = {k}</b>")
        if k > channels:
            lines.append(
                f'<span style="color: var(--jp-error-color0)"><b>Cannot be built</b>: k = {k} is '
                f"larger than C = {channels}, so some weights would only ever meet padding.</span>"
            )
        return lines


def _slider(kind, description, lowest, highest, step):
    slider = kind(min=lowest, max=highest, step=step, description=description, readout=False)
    slider.layout = ipywidgets.Layout(flex="1 1 auto", width="auto")
    return slider


def _box(kind, tooltip, step):
    # The visible label stands at the slider beside it; the tooltip names the box on its own.
    return kind(step=step, tooltip=tooltip, layout=ipywidgets.Layout(width="84px"))


def _nearest(stops, channels):
    """Index of the stop that is nearest to a number of channels."""
    return min(range(len(stops)), key=lambda index: abs(stops[index] - channels))


@lru_cache(maxsize=64)
def _steps(largest_channels, gamma, b, ties):
    """The steps of psi over C = 1, 2, ...: the first C of every run of equal k, and those k.

    The last run begins beyond `largest_channels`, so that every smaller C has an end to its run.
    """

    def psi(channels):
        return ks.adaptive_kernel_size(channels, gamma, b, ties)

    starts, sizes = [1], [psi(1)]
    while starts[-1] <= largest_channels:
        # Up to 2^(-b) channels |t| falls, and psi with it; beyond, psi never falls: bisect.
        start = starts[-1] + 1
        while start <= 2**-b and psi(start) == sizes[-1]:
            start += 1
        if start > 2**-b:
            start = bisect.bisect_right(range(2**60), sizes[-1], lo=start, key=psi)
        starts.append(start)
        sizes.append(psi(start))
    return starts, sizes


def _band(side, k):
    """Which of the weights 1..k stands where in the matrix of ECA, (side, side); 0 for none."""
    index = np.arange(side)
    weight = index - index[:, None] + (k + 1) // 2
    return np.where((weight >= 1) & (weight <= k), weight, 0)


def _table(name, stages, formula, released):
    """The stages of a network as HTML, with what was released in bold where Equation 12 differs."""
    marked = [
        f"{there}" if here == there else f"<b>≠ {there}</b>"
        for here, there in zip(formula, released, strict=True)
    ]
    return _rows_as_html(
        [(f"{name}: C", *stages), ("k by Eq. 12", *formula), ("k released", *marked)]
    )


def _rows_as_html(rows):
    """A table of rows, each a title and its cells."""
    cells = "".join(
        f'<tr><th scope="row" style="text-align: left">{title}</th>'
        + "".join(f'<td style="text-align: right; padding-left: 16px">{x}</td>' for x in row)
        + "</tr>"
        for title, *row in rows
    )
    return f"<table>{cells}</table>"


def _equals(number):
    """A number behind its sign of equality, e.g. "= 4.5" or "≈ 4.494"."""
    for digits in (",.0f", ".1f", ".2f"):
        text = f"{float(number):{digits}}"
        if Fraction(text.replace(",", "")) == number:
            return f"= {text}"
    return f"≈ {float(number):,.3f}"


class ReductionExplorer(_Panel):
    """Slide C, r, k and groups; see what SE, SE-GC and ECA let channels tell each other.

    Side by side: the matrix that takes channel means to logits (of SE, whose ReLU bends the map,
    its Jacobian W2 D W1 at one descriptor y), its singular values, its rank, and its cost.

    Args:
        channels: C, an integer within `CHANNEL_LIMITS`.
        reduction: r of SE, an integer from 1 to C.
        kernel_size: k of ECA, odd and at most C.
        groups: g of SE-GC, a divisor of C.
        seed: of the random weights and of y, a non-negative integer.
        weights: "random", or the name of a layer of `trained`, which fixes all but the seed: what
            is given beside it must agree.
        trained: layer name -> dict with "se", an `eca_lab.attention.SE`; "eca", an ECA of as many
            channels; and, if at hand, "se_gc", an SEGroup, and "y", a (C,) descriptor, such as the
            mean over images of what SE's `squeeze` gives. SE-GC and y are random without them.

    What is left out is 64, 16, 3, 16 and 0, or as in the trained layer. All but trained can be read
    and set as attributes. Setting weights to a layer sets the rest to that layer's; setting one of
    the rest makes the weights random again. Where C no longer has room for r or k, or is no
    multiple of groups, these are lowered, and the status line says so. Any other value that is not
    accepted raises a ValueError or a TypeError that names it; typed into a box, it shows that
    message instead.

    Raises:
        TypeError, ValueError: also for trained modules of other classes or widths.
    """

    CHANNEL_LIMITS = (8, 512)
    CHANNEL_STOPS = (8, 16, 32, 64, 128, 256, 512)
    LAST_KERNEL_STOP = 31  # the slider's; the box takes more

    PRESETS: ClassVar = {
        "ResNet-50, stage 1": {"channels": 256, "reduction": 16, "kernel_size": 5, "groups": 16},
        "no reduction": {"reduction": 1},
        "no interaction": {"kernel_size": 1},
    }

    channels = _state("channels")
    reduction = _state("reduction")
    kernel_size = _state("kernel_size")
    groups = _state("groups")
    seed = _state("seed")
    weights = _state("weights")

    def __init__(
        self,
        channels=None,
        reduction=None,
        kernel_size=None,
        groups=None,
        seed=0,
        weights="random",
        trained=None,
    ):
        self._trained = _checked_layers(trained or {}, self.CHANNEL_LIMITS)
        given = {
            "channels": channels,
            "reduction": reduction,
            "kernel_size": kernel_size,
            "groups": groups,
        }
        given = {name: value for name, value in given.items() if value is not None}
        usual = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16}
        if weights in self._trained:
            usual.update(self._sizes_of(weights, usual["groups"]))
        super().__init__(
            ReductionPicture(self.CHANNEL_LIMITS[1]),
            **{**usual, **given},
            seed=seed,
            weights=weights,
        )

    @property
    def measures(self):
        """DataFrame indexed by SE, SE-GC and ECA: cost, and the measures of `eca_lab.jacobian`.

        Columns: spec, parameters, multiply_adds (of one image, without the squeeze), rank,
        effective_rank, diagonal_share, bandwidth.
        """
        import pandas as pd

        rows = {name: module["measures"] for name, module in self._modules.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self):
        """The constructor call that gives an equal panel; the seed only where it is not 0."""
        state = dict(self._state)
        if state["weights"] == "random":
            del state["weights"]
        else:
            # All that the layer fixes goes without saying.
            kept = ("groups", "seed", "weights")
            if "se_gc" in self._trained[self.weights]:
                kept = ("seed", "weights")
            state = {name: state[name] for name in kept}
        if not state["seed"]:
            del state["seed"]
        shown = [f"{name}={value!r}" for name, value in state.items()]
        shown += ["trained=trained"] if "weights" in state else []
        return f"ReductionExplorer({', '.join(shown)})"

    def _result(self):
        ranks = ", ".join(f"{name} {rank}" for name, rank in self.measures["rank"].items())
        return f"ranks {ranks} of {self.channels}"

    def _in_words(self):
        return (
            f"C = {self.channels}, r = {self.reduction}, k = {self.kernel_size}, "
            f"{self.groups} groups, {self.weights} weights, seed {self.seed}"
        )

    def _build_controls(self):
        self._channels_slider = _slider(
            ipywidgets.IntSlider, "channels C", 0, len(self.CHANNEL_STOPS) - 1, 1
        )
        self._reduction_slider = _slider(ipywidgets.IntSlider, "reduction r", 0, 1, 1)
        self._kernel_slider = _slider(ipywidgets.IntSlider, "kernel k", 0, 1, 1)
        self._groups_slider = _slider(ipywidgets.IntSlider, "groups g", 0, 1, 1)
        self._channels_box = _box(ipywidgets.IntText, "channels C, any whole number", 1)
        self._reduction_box = _box(ipywidgets.IntText, "reduction r, at most C", 1)
        self._kernel_box = _box(ipywidgets.IntText, "kernel k, odd and at most C", 2)
        self._groups_box = _box(ipywidgets.IntText, "groups g, a divisor of C", 1)
        self._seed_box = ipywidgets.IntText(
            description="seed", layout=ipywidgets.Layout(width="180px")
        )
        draw = ipywidgets.Button(description="Draw again", icon="random")
        draw.layout = ipywidgets.Layout(width="auto")
        draw.on_click(lambda _: self._try(seed=self.seed + 1))
        self._weights_choice = ipywidgets.Dropdown(
            options=[("random", "random"), *((f"trained, {each}", each) for each in self._trained)],
            description="weights",
            layout=ipywidgets.Layout(width="300px"),
        )
        self._observe(
            [
                (self._channels_slider, "channels", self.CHANNEL_STOPS.__getitem__),
                (self._channels_box, "channels", int),
                (self._reduction_slider, "reduction", lambda i: _octave_stops(self.channels)[i]),
                (self._reduction_box, "reduction", int),
                (self._kernel_slider, "kernel_size", lambda i: 2 * i + 1),
                (self._kernel_box, "kernel_size", int),
                (self._groups_slider, "groups", lambda i: _divisors(self.channels)[i]),
                (self._groups_box, "groups", int),
                (self._seed_box, "seed", int),
                (self._weights_choice, "weights", str),
            ]
        )
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        return [
            ipywidgets.HBox([self._channels_slider, self._channels_box]),
            ipywidgets.HBox([self._reduction_slider, self._reduction_box]),
            ipywidgets.HBox([self._kernel_slider, self._kernel_box]),
            ipywidgets.HBox([self._groups_slider, self._groups_box]),
            ipywidgets.Box([self._seed_box, draw], layout=wrap),
            # With random weights alone there is nothing to choose.
            *([self._weights_choice] if self._trained else []),
            ipywidgets.Box(self._buttons(self.PRESETS), layout=wrap),
        ]

    def _set(self, **changes):
        note = ""
        if self._state:
            changes, note = self._fitted(changes)
        super()._set(**changes)
        self._status.value = note

    def _fitted(self, changes):
        """The changes, and those that they entail, with a note on what was lowered."""
        layer = changes.get("weights", self.weights)
        if "weights" in changes and layer in self._trained:
            return {**self._sizes_of(layer, self.groups), **changes}, ""
        changed = {name: v for name, v in changes.items() if v != self._state[name]}
        if changed and "weights" not in changes:
            changes = {**changes, "weights": "random"}
        if "channels" not in changed:
            return changes, ""
        channels = changes["channels"]
        _check_within("channels", channels, self.CHANNEL_LIMITS)
        largest = {
            "reduction": min(self.reduction, channels),
            "kernel_size": min(self.kernel_size, channels - 1 + channels % 2),
            "groups": max(each for each in _divisors(channels) if each <= self.groups),
        }
        lowered = {
            name: value
            for name, value in largest.items()
            if name not in changes and value < self._state[name]
        }
        words = ", ".join(f"{name} to {value}" for name, value in lowered.items())
        return {**changes, **lowered}, f"Lowered to fit C = {channels}: {words}" if words else ""

    def _checked(self, channels, reduction, kernel_size, groups, seed, weights):
        _check_within("channels", channels, self.CHANNEL_LIMITS)
        checks.check_integer("reduction", reduction)
        if reduction > channels:
            raise ValueError(f"reduction={reduction}: accepted are at most channels={channels}")
        ks.check_kernel_size(kernel_size, channels)
        checks.check_integer("groups", groups)
        if channels % groups:
            raise ValueError(f"groups={groups}: accepted are divisors of channels={channels}")
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f"seed={seed!r}: accepted is an integer")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed={seed}: accepted are 0 to 2^63 - 1")
        if weights != "random" and weights not in self._trained:
            accepted = ", ".join(map(repr, ("random", *self._trained)))
            raise ValueError(f"weights={weights!r}: accepted are {accepted}")
        state = {
            "channels": int(channels),
            "reduction": int(reduction),
            "kernel_size": int(kernel_size),
            "groups": int(groups),
        }
        if weights != "random":
            for name, value in self._sizes_of(weights, groups).items():
                if state[name] != value:
                    raise ValueError(
                        f"{name}={state[name]} with weights={weights!r}: accepted is {value}"
                    )
        return {**state, "seed": int(seed), "weights": weights}

    def _sizes_of(self, layer, groups):
        """The sizes of a trained layer; groups, where it has no SE-GC, the nearest divisor."""
        modules = self._trained[layer]
        channels = modules["se"].channels
        if "se_gc" in modules:
            groups = modules["se_gc"].conv.groups
        return {
            "channels": channels,
            "reduction": modules["se"].reduction,
            "kernel_size": modules["eca"].kernel_size,
            "groups": max(each for each in _divisors(channels) if each <= groups),
        }

    def _sync_controls(self):
        channels = self.channels
        kernels = range(1, min(channels, self.LAST_KERNEL_STOP) + 1, 2)
        for slider, box, stops, value in (
            (self._channels_slider, self._channels_box, self.CHANNEL_STOPS, channels),
            (self._reduction_slider, self._reduction_box, _octave_stops(channels), self.reduction),
            (self._kernel_slider, self._kernel_box, kernels, self.kernel_size),
            (self._groups_slider, self._groups_box, _divisors(channels), self.groups),
        ):
            slider.max = len(stops) - 1
            slider.value = _nearest(stops, value)
            box.value = value
        self._seed_box.value = self.seed
        self._weights_choice.value = self.weights

    def _show(self):
        layer = self._trained.get(self.weights, {})
        self._modules = {}
        for name, key, spec in (
            ("SE", "se", f"se(r={self.reduction})"),
            ("SE-GC", "se_gc", f"se_gc(groups={self.groups})"),
            ("ECA", "eca", f"eca(k={self.kernel_size})"),
        ):
            # A trained SE is looked at where its network was, an untrained one anywhere.
            self._modules[name] = (
                _measured(layer[key], layer.get("y"), self.seed)
                if key in layer
                else _drawn(spec, self.channels, self.seed)
            )
        modules = self._modules.values()
        self._read_out(self._lines())
        self._image.value = self._picture.png(
            matrices=[module["matrix"] for module in modules],
            ranks=[module["measures"]["rank"] for module in modules],
            spectra=[module["spectrum"] / (module["spectrum"][0] or 1) for module in modules],
            parameters=[module["measures"]["parameters"] for module in modules],
        )

    def _lines(self):
        channels, r, k, groups = self.channels, self.reduction, self.kernel_size, self.groups
        hidden, width = channels // r, channels // groups
        return [
            f"<b>SE</b>: W<sub>2</sub> ReLU(W<sub>1</sub> y). C // r = {channels} // {r} = "
            f"{hidden} hidden {_plural(hidden, 'unit')}, so rank ≤ {hidden}, and less where y "
            f"switches some off. 2C (C // r) = 2 · {channels} · {hidden} = "
            f"{2 * channels * hidden:,} parameters.",
            f"<b>SE-GC</b>: {groups} {_plural(groups, 'block')} of C/g = {channels}/{groups} = "
            f"{width} {_plural(width, 'channel')}. C²/g = {channels}²/{groups} = "
            f"{channels * width:,} parameters.",
            f"<b>ECA</b>: a channel sees those up to k // 2 = {k // 2} away. "
            f"k = {k} {_plural(k, 'parameter')}.",
            _measures_table(self.measures),
            "Rank: singular values above 10<sup>−5</sup> of the largest.",
            f"This state: <code>{html.escape(repr(self))}</code>",
        ]


def _measured(module, y, seed):
    """What a panel shows of a module: its matrix, its spectrum and a dict of its measures.

    y is the (C,) descriptor at which to look; drawn from a normal distribution if left out.
    """
    import torch

    from eca_lab import cost, jacobian

    weight = next(module.parameters())
    if y is None:
        y = torch.randn(module.channels, generator=torch.Generator().manual_seed(seed))
    matrix = jacobian.logit_jacobian(module, y[None].to(weight))[0].cpu()
    spectrum = torch.linalg.svdvals(matrix)
    measures = {
        "spec": module.spec,
        "parameters": cost.parameters(module),
        "multiply_adds": cost.multiply_adds(module, 1, module.channels),
        "rank": jacobian.rank(spectrum).item(),
        "effective_rank": jacobian.effective_rank(spectrum).item(),
        "diagonal_share": jacobian.diagonal_share(matrix).item(),
        "bandwidth": jacobian.bandwidth(matrix).item(),
    }
    return {"matrix": matrix.numpy(), "spectrum": spectrum.numpy(), "measures": measures}


@lru_cache(maxsize=32)
def _drawn(spec, channels, seed):
    """`_measured` of an untrained module, the same for the same seed."""
    import torch

    from eca_lab.attention import make_attention

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _measured(make_attention(spec, channels), None, seed)


def _checked_layers(trained, limits):
    """Trained layers as `ReductionExplorer` takes them, or an error that names what is wrong."""
    if not trained:
        return {}
    from eca_lab.attention import ECA, SE, SEGroup

    kinds = {"se": SE, "eca": ECA, "se_gc": SEGroup}
    for layer, modules in trained.items():
        if layer == "random":
            raise ValueError("trained['random']: accepted is any other name of a layer")
        if not {"se", "eca"} <= modules.keys() <= {*kinds, "y"}:
            raise ValueError(
                f"trained[{layer!r}] holds {', '.join(modules)}: accepted are se and eca, and "
                "beside them se_gc and y"
            )
        for key, kind in kinds.items():
            if key in modules and type(modules[key]) is not kind:
                raise TypeError(
                    f"trained[{layer!r}][{key!r}] is a {type(modules[key]).__name__}: accepted is "
                    f"{kind.__name__}"
                )
        channels = modules["se"].channels
        _check_within(f"trained[{layer!r}]: channels", channels, limits)
        widths = {modules[key].channels for key in kinds if key in modules}
        if "y" in modules:
            widths.add(tuple(modules["y"].shape))
        if not widths <= {channels, (channels,)}:
            raise ValueError(
                f"trained[{layer!r}] has widths {widths}: accepted is one number of channels"
            )
    return trained


def _check_within(name, value, limits):
    checks.check_integer(name, value)
    lowest, highest = limits
    if not lowest <= value <= highest:
        raise ValueError(f"{name}={value}: accepted here are {lowest} to {highest}")


def _divisors(number):
    return [each for each in range(1, number + 1) if number % each == 0]


def _octave_stops(largest):
    """1, 2, 4, ... up to a largest number."""
    return [2**n for n in range(int(largest).bit_length())]


def _plural(number, noun):
    return noun if number == 1 else f"{noun}s"


def _measures_table(measures):
    """The measures of three modules as HTML, one column each."""
    rows = {
        "parameters": "{:,}",
        "multiply_adds": "{:,}",
        "rank": "<b>{}</b>",
        "effective_rank": "{:.1f}",
        "diagonal_share": "{:.1%}",
        "bandwidth": "{}",
    }
    columns = [("", *(name.replace("_", " ") for name in rows))]
    for name, values in measures.iterrows():
        columns.append((name, *(rows[each].format(values[each]) for each in rows)))
    return _rows_as_html(zip(*columns, strict=True))


class StudyExplorer(_Panel):
    """Choose data, backbone, metric, baseline and margin; see what the recorded trials say.

    Args:
        results: DataFrame of `eca_lab.results.load_results`, not empty.
        data: one of `data_sets`, the first if left out.
        backbone: one that these data were run on, the first if left out.
        metric: one of `METRICS`.
        baseline: an arm, the one that the others are compared with; "eca" if left out and there.
        margin: in points, 0.01 to 5; differences nearer to 0 do not matter.

    All but results can be read and set as attributes. Other data, or another backbone, take over
    what they have of the rest. Any other value that is not accepted raises an error that names it;
    typed into a box, it shows that message instead.

    Raises:
        TypeError, ValueError: also for results without a row.
    """

    METRICS = ("top1", "top5")
    MARGIN_LIMITS = (0.01, 5)

    data = _state("data")
    backbone = _state("backbone")
    metric = _state("metric")
    baseline = _state("baseline")
    margin = _state("margin")

    def __init__(self, results, data=None, backbone=None, metric="top1", baseline=None, margin=0.2):
        if not len(results):
            raise ValueError("results without a trial: accepted is at least one finished trial")
        self._settings = _named_settings(results)
        data = self.data_sets[0] if data is None else data
        if backbone is None and data in self._settings:
            backbone = next(iter(self._settings[data]))
        if baseline is None and data in self._settings and backbone in self._settings[data]:
            baseline = _usual_baseline(self._settings[data][backbone])
        super().__init__(
            StudyPicture(),
            data=data,
            backbone=backbone,
            metric=metric,
            baseline=baseline,
            margin=margin,
        )
        # Below the rest: it is wider than the column of the controls.
        self.children = [*self.children, self._table]

    @property
    def data_sets(self):
        """The data that there are results on, each with its size and recipe."""
        return tuple(self._settings)

    @property
    def compared(self):
        """DataFrame of `eca_lab.stats.compare` for the present state."""
        return self._compared

    @property
    def conclusions(self):
        """The sentences of `eca_lab.stats.conclusions` for the present state."""
        return self._conclusions

    def __repr__(self):
        """The constructor call that gives an equal panel of the same results."""
        state = ", ".join(f"{name}={value!r}" for name, value in self._state.items())
        return f"StudyExplorer(results, {state})"

    def _result(self):
        verdicts = self._compared["verdict"].value_counts()
        return ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())

    def _in_words(self):
        return f"{self.data}, {self.backbone}, {self.metric}, {self.baseline}, ±{self.margin:g}"

    def _build_controls(self):
        self._choices = {
            "data": ipywidgets.Dropdown(options=self.data_sets, description="data"),
            "backbone": ipywidgets.Dropdown(description="backbone"),
            "metric": ipywidgets.Dropdown(options=self.METRICS, description="metric"),
            "baseline": ipywidgets.Dropdown(description="baseline"),
        }
        for choice in self._choices.values():
            choice.layout = ipywidgets.Layout(width="auto")
        self._margin_slider = ipywidgets.FloatLogSlider(
            min=-2, max=0.7, step=0.05, description="margin", readout=False
        )
        self._margin_slider.layout = ipywidgets.Layout(flex="1 1 auto", width="auto")
        # Resampling at every step of the way would make the slider stutter.
        self._margin_slider.continuous_update = False
        self._margin_box = _box(ipywidgets.FloatText, "margin in percentage points", 0.1)
        self._table = ipywidgets.HTML()
        self._observe([(choice, name, str) for name, choice in self._choices.items()])
        self._observe(
            [
                (self._margin_slider, "margin", lambda value: round(value, 2)),
                (self._margin_box, "margin", float),
            ]
        )
        return [
            *self._choices.values(),
            ipywidgets.HBox([self._margin_slider, self._margin_box]),
            ipywidgets.Box(self._buttons({})),
        ]

    def _set(self, **changes):
        # What other data do not have gives way to what they have.
        data = changes.get("data", self._state.get("data"))
        if self._state and data in self._settings:
            backbones = self._settings[data]
            backbone = changes.get("backbone", self.backbone)
            if "data" in changes and backbone not in backbones:
                backbone = changes["backbone"] = next(iter(backbones))
            if backbone in backbones and "baseline" not in changes:
                arms = set(backbones[backbone]["arm"])
                if self.baseline not in arms:
                    changes["baseline"] = _usual_baseline(backbones[backbone])
        super()._set(**changes)

    def _checked(self, data, backbone, metric, baseline, margin):
        if data not in self._settings:
            raise ValueError(f"data={data!r}: accepted are {'; '.join(self.data_sets)}")
        backbones = self._settings[data]
        if backbone not in backbones:
            raise ValueError(f"backbone={backbone!r}: accepted are {', '.join(backbones)}")
        if metric not in self.METRICS:
            raise ValueError(f"metric={metric!r}: accepted are {', '.join(self.METRICS)}")
        arms = backbones[backbone]["arm"].unique()
        if baseline not in arms:
            raise ValueError(f"baseline={baseline!r}: accepted are {', '.join(arms)}")
        lowest, highest = self.MARGIN_LIMITS
        if not lowest <= margin <= highest:
            raise ValueError(f"margin={margin}: accepted are {lowest} to {highest}")
        return {
            "data": data,
            "backbone": backbone,
            "metric": metric,
            "baseline": baseline,
            "margin": float(margin),
        }

    def _sync_controls(self):
        backbones = self._settings[self.data]
        self._choices["backbone"].options = tuple(backbones)
        self._choices["baseline"].options = tuple(backbones[self.backbone]["arm"].unique())
        for name, choice in self._choices.items():
            choice.value = self._state[name]
        self._margin_slider.value = self._margin_box.value = self.margin

    def _show(self):
        from eca_lab import stats

        trials = self._settings[self.data][self.backbone]
        asked = trials, self.baseline, self.metric
        self._compared = stats.compare(*asked, self.margin)
        fixed = {stats.fixed_kernel_size(arm) for arm in trials["arm"].unique()} - {None}
        slope = stats.trend(trials, metric=self.metric) if len(fixed) > 1 else None
        self._conclusions = stats.conclusions(self._compared, slope, self.baseline, self.margin)
        rows = [("arm", "n", "difference", "95% interval", "p (Holm)", "verdict")]
        for _, row in self._compared.iterrows():
            interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
            numbers = f"{row['difference']:+.2f}", interval, f"{row['p_holm']:.2f}"
            rows.append((row["arm"], f"{row['n']}", *numbers, row["verdict"]))
        self._read_out(map(html.escape, self._conclusions))
        self._table.value = (
            '<div style="color: var(--jp-ui-font-color1); overflow-x: auto; white-space: nowrap">'
            f"{_rows_as_html(rows)}</div>"
        )
        self._image.value = self._picture.png(
            trials,
            stats.means(trials, self.metric),
            self._compared,
            stats.paired_differences(*asked),
            self.metric,
            self.baseline,
            self.margin,
        )


def _usual_baseline(trials):
    arms = list(trials["arm"].unique())
    return "eca" if "eca" in arms else arms[0]


def _named_settings(results):
    """The trials of each setting by a name for its data and recipe, and by backbone."""
    from eca_lab.results import SETTING

    named = {}
    for _, trials in results.groupby(list(SETTING), sort=False):
        first = trials.iloc[0]
        name = (
            f"{first['dataset']}, {first['size']} px, {first['train']:,} images, "
            f"{first['epochs']} epochs"
        )
        if first["backbone"] in named.get(name, {}):  # it differs in something else
            name += f", {first['recipe']}, {first['fingerprint']}"
        named.setdefault(name, {})[first["backbone"]] = trials
    return named


class ChannelWeightExplorer(_Panel):
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

    network = _state("network")
    layer = _state("layer")
    first_class = _state("first_class")
    second_class = _state("second_class")
    image = _state("image")
    channel = _state("channel")
    factor = _state("factor")

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
        self._image_slider = _slider(ipywidgets.IntSlider, "image", 0, last, 1)
        self._channel_slider = _slider(ipywidgets.IntSlider, "channel", 0, 1, 1)
        self._factor_slider = _slider(
            ipywidgets.FloatSlider, "factor", *self.FACTOR_LIMITS, step=0.1
        )
        self._image_box = _box(ipywidgets.IntText, f"image, 0 to {last}", 1)
        self._channel_box = _box(ipywidgets.IntText, "channel, from 0", 1)
        self._factor_box = _box(ipywidgets.FloatText, "factor of the channel's weight", 0.1)
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
            _rows_as_html(rows),
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
