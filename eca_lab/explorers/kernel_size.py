"""The panel of the kernel size: from C, gamma and b to k."""

import bisect
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

import ipywidgets
import numpy as np

from eca_lab import kernel_size as ks
from eca_lab.explorers.kernel_size_picture import KernelSizePicture
from eca_lab.explorers.panel import Panel, nearest, new_box, new_slider, rows_as_html, state

NETWORK_NAMES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet152": "ResNet-152",
    "mobilenet_v2": "MobileNetV2",
}


class KernelSizeExplorer(Panel):
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

    channels = state("channels")
    gamma = state("gamma")
    b = state("b")
    ties = state("ties")
    network = state("network")

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
        self._channels_slider = new_slider(ipywidgets.IntSlider, "channels C", 0, last_stop, 1)
        self._gamma_slider = new_slider(ipywidgets.FloatSlider, "slope γ", *self.GAMMA_LIMITS, 0.1)
        self._b_slider = new_slider(ipywidgets.FloatSlider, "offset b", *self.B_LIMITS, 0.5)
        self._channels_box = new_box(ipywidgets.IntText, "channels C, any whole number", 1)
        self._gamma_box = new_box(ipywidgets.FloatText, "slope γ", 0.1)
        self._b_box = new_box(ipywidgets.FloatText, "offset b", 0.5)
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
        self._channels_slider.value = nearest(self.CHANNEL_STOPS, self.channels)
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
    return rows_as_html(
        [(f"{name}: C", *stages), ("k by Eq. 12", *formula), ("k released", *marked)]
    )


def _equals(number):
    """A number behind its sign of equality, e.g. "= 4.5" or "≈ 4.494"."""
    for digits in (",.0f", ".1f", ".2f"):
        text = f"{float(number):{digits}}"
        if Fraction(text.replace(",", "")) == number:
            return f"= {text}"
    return f"≈ {float(number):,.3f}"
