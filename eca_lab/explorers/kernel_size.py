"""The panel of the kernel size: from C, gamma and b to k. Needs no torch."""

import bisect
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

import numpy as np
from markupsafe import Markup

from eca_lab import kernel_size as ks
from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.explorers.kernel_size_picture import KernelSizePicture
from eca_lab.explorers.panel import Panel, table, wrapped

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

    STATE = ("channels", "gamma", "b", "ties", "network")
    MAX_CHANNELS = 8192
    GAMMA_LIMITS = (0.5, 4)
    B_LIMITS = (-4, 4)
    REDUCTION = 16  # r of the SE module that ECA is compared with

    # Where the slider of C halts: sixteenths of an octave, as far as they are different integers.
    CHANNEL_STOPS = tuple(sorted({round(2 ** (step / 16)) for step in range(16 * 13 + 1)}))
    GAMMA_STOPS = tuple(tenths / 10 for tenths in range(5, 41))
    B_STOPS = tuple(halves / 2 for halves in range(-8, 9))

    PRESETS: ClassVar = {
        "C = 128, a tie": {"channels": 128, "gamma": 2, "b": 1},
        "C = 2048, a tie": {"channels": 2048, "gamma": 2, "b": 1},
        "ResNet-50": {"channels": 256, "gamma": 2, "b": 1, "network": "resnet50"},
        "k > C": {"channels": 4, "gamma": 0.5, "b": 1},
    }

    def __init__(self, channels=256, gamma=2, b=1, ties="up", network="resnet50"):
        state = {"channels": channels, "gamma": gamma, "b": b, "ties": ties, "network": network}
        super().__init__(KernelSizePicture(self.MAX_CHANNELS), **state)

    @property
    def kernel_size(self):
        """k of the present state, a positive odd integer."""
        return ks.adaptive_kernel_size(self.channels, self.gamma, self.b, self.ties)

    def _arguments(self):
        usual = {"ties": "up", "network": "resnet50"}
        return {name: v for name, v in self._state.items() if usual.get(name) != v}

    def _result(self):
        return f"k = {self.kernel_size}"

    def _build_controls(self):
        ties = [("up, as in Figure 3", "up"), ("down", "down")]
        networks = [(NETWORK_NAMES[name], name) for name in ks.NETWORKS]
        hint = "channels C, any whole number"
        return [
            self._row("channels", "channels C", lambda: self.CHANNEL_STOPS, hint),
            self._row("gamma", "slope γ", lambda: self.GAMMA_STOPS, "slope γ", 0.1),
            self._row("b", "offset b", lambda: self.B_STOPS, "offset b", 0.5),
            wrapped(
                self._choice("ties", "ties go", lambda: ties),
                self._choice("network", "network", lambda: networks),
            ),
        ]

    def _checked(self, state):
        check_integer("channels", state["channels"], 1, self.MAX_CHANNELS)
        check_number("gamma", state["gamma"], *self.GAMMA_LIMITS)
        check_number("b", state["b"], *self.B_LIMITS)
        check_choice("ties", state["ties"], ks.TIES)
        check_choice("network", state["network"], ks.NETWORKS)
        numbers = {name: float(state[name]) for name in ("gamma", "b")}
        numbers = {name: int(x) if x.is_integer() else x for name, x in numbers.items()}
        return {**state, "channels": int(state["channels"]), **numbers}

    def _shown(self):
        channels, k = self.channels, self.kernel_size
        mapping = (self.gamma, self.b, self.ties)
        starts, sizes = _steps(self.MAX_CHANNELS, *mapping)
        run = bisect.bisect_right(starts, channels) - 1
        interval = starts[run], starts[run + 1] - 1
        stages = ks.stage_channels(self.network)
        formula = [ks.adaptive_kernel_size(width, *mapping) for width in stages]
        released = ks.released_kernel_sizes(self.network)
        se = 2 * channels**2 / self.REDUCTION
        marked = [
            there if here == there else Markup("<b>≠ {}</b>").format(there)
            for here, there in zip(formula, released, strict=True)
        ]
        lines = [
            *self._rounding_lines(),
            f"Every C from {interval[0]:,} to {interval[1]:,} shares k = {k}.",
            f"Parameters of a module: ECA {k}; SE with r = {self.REDUCTION}, 2C²/r {_equals(se)}.",
            table(
                [
                    (f"{NETWORK_NAMES[self.network]}: C", *stages),
                    ("k by Eq. 12", *formula),
                    ("k released", *marked),
                ]
            ),
        ]
        return lines, {
            "point": (channels, k),
            "interval": interval,
            "steps": (starts, sizes),
            "stages": (stages, formula, released),
            "band": _band(min(channels, self._picture.SIDE), k),
            "parameters": (k, se),
        }

    def _rounding_lines(self):
        channels, gamma, b, k = self.channels, self.gamma, self.b, self.kernel_size
        t = ks.rounding_argument(channels, gamma, b)
        offset = f"+ {b}" if b >= 0 else f"− {-b}"
        sign, octaves = _equals(ks.rounding_argument(channels, gamma=1, b=0)).split()
        yield Markup("k = |t|<sub>odd</sub> with t = (log<sub>2</sub> C + b) / γ")
        yield Markup("t = (log<sub>2</sub> {} {}) / {} {}").format(
            channels, offset, gamma, f"{sign} ({octaves} {offset}) / {gamma} {_equals(t)}"
        )
        if t == int(t) and t % 2 == 0:
            even = int(abs(t))
            below, above = sorted((even - 1, even + 1))
            rule = f"ties go {self.ties}" if t else "and a kernel size is positive"
            yield Markup("A <b>tie</b>: {} is midway between {} and {}; {}: <b>k = {}</b>").format(
                even, below, above, rule, k
            )
        else:
            nearest = _equals(abs(t)).split()[1]
            yield Markup("Nearest odd integer to {}: <b>k = {}</b>").format(nearest, k)
        if k > channels:
            yield Markup(
                '<span style="color: var(--jp-error-color0)"><b>Cannot be built</b>: k = {} is '
                "larger than C = {}, so some weights would only ever meet padding.</span>"
            ).format(k, channels)


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


def _equals(number):
    """A number behind its sign of equality, e.g. "= 4.5" or "≈ 4.494"."""
    for digits in (",.0f", ".1f", ".2f"):
        text = f"{float(number):{digits}}"
        if Fraction(text.replace(",", "")) == number:
            return f"= {text}"
    return f"≈ {float(number):,.3f}"
