"""The explorer of the module: what ECA and SE make of the averages of 24 channels. No torch."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eca_lab import figures
from eca_lab.attention.kernel_size import adaptive_kernel_size
from eca_lab.checks import check_choice, check_integer, check_number, shown
from eca_lab.explorers.explorer import Explorer, plain

CHANNELS = 24
REDUCTION = 8  # of SE: 3 hidden units
STEP = 0.05  # by which keys and the mouse move an average
NEAR = 1e-9  # sums that differ by less are the same

_CHANNELS = np.arange(1, CHANNELS + 1)
# The matrices of SE, made by hand: full, of either sign, and such that its hidden units are
# seldom all switched off.
FC1 = (0.05 + 0.3 * np.cos(np.outer([2, 5, 11], _CHANNELS))).round(3)  # (3, C)
FC2 = (0.7 * np.cos(np.outer(_CHANNELS, [3, 7, 13]))).round(3)  # (C, 3)

_IN_ORDER = tuple(range(1, CHANNELS + 1))
# fmt: off
_AVERAGES = (
    0.3, 0.55, 1.4, 0.9, 0.35, 0.2, 1.2, 0.85, 0.45, 1.7, 1.5, 0.6,
    0.25, 0.75, 1.1, 0.4, 0.1, 0.95, 1.85, 1.3, 0.5, 0.65, 1.05, 0.8,
)
_SHUFFLED = (
    10, 3, 22, 17, 6, 14, 1, 19, 12, 8, 24, 5, 20, 15, 2, 11, 23, 7, 18, 13, 4, 21, 9, 16,
)
# fmt: on
_KERNEL = (-0.5, 1.5, -0.5)


class ModuleExplorer(Explorer):
    """Drag the averages of 24 channels and the kernel; see the weights of ECA, and of SE beside it.

    Args:
        averages: one number a channel, within `AVERAGE_LIMITS`.
        kernel: the weights of ECA's convolution, as many as one of `KERNEL_SIZES`, each within
            `WEIGHT_LIMITS`.
        order: the numbers of the channels, from 1, in the order that ECA's convolution meets them.
        channel: the one that is pointed at, from 1.

    Raises:
        StateError: naming what is not accepted.

    SE has r = `REDUCTION` and the matrices `FC1` and `FC2`. What belongs to a channel in them stays
    with it, in whatever order.
    """

    MODULE = "module.js"
    STATE = ("averages", "kernel", "order", "channel")
    USUAL: ClassVar = {"averages": _AVERAGES, "order": _IN_ORDER, "channel": 7}
    AVERAGE_LIMITS = (0, 2)
    WEIGHT_LIMITS = (-2, 2)
    KERNEL_SIZES = (1, 3, 5, 7, 9)
    PRESETS: ClassVar = {
        "k = 1 hears nobody": {"kernel": (1.5,), "order": _IN_ORDER},
        "The ends hear zeros": {
            "averages": CHANNELS * (1,),
            "kernel": 5 * (0.4,),
            "order": _IN_ORDER,
            "channel": 1,
        },
        "Shuffle the channels": {"order": _SHUFFLED},
    }

    def __init__(
        self,
        averages: Sequence[float] = _AVERAGES,
        kernel: Sequence[float] = _KERNEL,
        *,
        order: Sequence[int] = _IN_ORDER,
        channel: int = 7,
    ) -> None:
        super().__init__(
            (averages, kernel, order, channel),
            step=STEP,
            limits={"average": self.AVERAGE_LIMITS, "weight": self.WEIGHT_LIMITS},
            sizes=self.KERNEL_SIZES,
            adaptive=adaptive_kernel_size(CHANNELS),
            se={"fc1": FC1.tolist(), "fc2": FC2.tolist()},
        )

    @property
    def table(self) -> pd.DataFrame:
        """DataFrame indexed by channel, from 1: its average, and its weights by ECA and by SE."""
        averages = np.array(self.averages, dtype=float)
        weights = {arm: 1 / (1 + np.exp(-sums)) for arm, sums in self._sums(averages).items()}
        index = pd.Index(_IN_ORDER, name="channel")
        return pd.DataFrame({"average": averages, **weights}, index=index)

    @property
    def reach(self) -> dict[str, int]:
        """Arm -> how many of its weights move when the average of the channel pointed at does."""
        averages = np.array(self.averages, dtype=float)
        moved = averages.copy()
        within = moved[self.channel - 1] + STEP <= self.AVERAGE_LIMITS[1]
        moved[self.channel - 1] += STEP if within else -STEP
        before, after = self._sums(averages), self._sums(moved)
        return {arm: int((abs(after[arm] - before[arm]) > NEAR).sum()) for arm in before}

    def _sums(self, averages: np.ndarray) -> dict[str, np.ndarray]:
        """Arm -> what its sigmoid gets, by channel, at these averages."""
        places = np.array(self.order) - 1
        eca = np.empty(CHANNELS)
        eca[places] = np.correlate(averages[places], np.array(self.kernel, dtype=float), "same")
        return {"eca": eca, "se": FC2 @ np.maximum(FC1 @ averages, 0)}

    def _result(self) -> str:
        weights = self.table.loc[self.channel]
        return f"channel {self.channel}: ECA {weights['eca']:.2f}, SE {weights['se']:.2f}"

    def _figure(self) -> Figure:
        table = self.table.loc[list(self.order)]
        place, half = self.order.index(self.channel), len(self.kernel) // 2
        figure = figures.new_figure(7.2, 5.2)
        rows = {
            f"Weights of ECA: each hears k = {len(self.kernel)} averages": ("eca", 1),
            "Averages of the channels": ("average", self.AVERAGE_LIMITS[1]),
            "Weights of SE: each hears all averages": ("se", 1),
        }
        colors = {arm: figures.HUES[arm] for arm in ("eca", "se")}
        for ax, (title, (name, top)) in zip(figure.subplots(len(rows)), rows.items(), strict=True):
            ax.bar(range(CHANNELS), table[name], color=colors.get(name, figures.GREY))
            if name != "se":  # what the channel hears, and what it gets
                reach = 0.5 + (half if name == "average" else 0)
                window = {"color": figures.SKY, "alpha": 0.35, "linewidth": 0, "zorder": 0}
                ax.axvspan(place - reach, place + reach, **window)
            figures.dress(ax, title, "", "")
            ax.set_xticks(range(CHANNELS), self.order)
            ax.set(xlim=(-0.6, CHANNELS - 0.4), ylim=(0, top))
            ax.grid(visible=False, axis="x")
        return figure

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        averages = _checked_numbers(
            "averages", state["averages"], sizes=(CHANNELS,), limits=self.AVERAGE_LIMITS
        )
        kernel = _checked_numbers(
            "kernel", state["kernel"], sizes=self.KERNEL_SIZES, limits=self.WEIGHT_LIMITS
        )
        order = _items(state["order"])
        for each in order:
            check_integer("order", each, most=CHANNELS)
        if sorted(order) != list(_IN_ORDER):
            accepted = f"each of 1 to {CHANNELS} once"
            raise ValueError(f"order={shown(state['order'])}: accepted is {accepted}")
        check_integer("channel", state["channel"], most=CHANNELS)
        return {
            "averages": averages,
            "kernel": kernel,
            "order": tuple(plain(each) for each in order),
            "channel": plain(state["channel"]),
        }


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()


def _checked_numbers(
    name: str, value: Any, *, sizes: tuple[int, ...], limits: tuple[float, float]
) -> tuple[float, ...]:
    """A sequence of numbers as a tuple of plain ones, or an error that names what is accepted."""
    numbers, (least, most) = _items(value), limits
    try:
        check_choice("len", len(numbers), sizes)
        for number in numbers:
            check_number(name, number, least=least, most=most)
    except (TypeError, ValueError):
        accepted = f"{' or '.join(map(str, sizes))} finite numbers from {least} to {most}"
        raise ValueError(f"{name}={shown(value)}: accepted are {accepted}") from None
    return tuple(plain(number) for number in numbers)
