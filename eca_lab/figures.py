"""Figures that more than one place needs: they draw the numbers they are given and compute none.

Every function returns a new `matplotlib.figure.Figure` that pyplot knows nothing of, so a cell that
is run again leaves no figure behind. Colours are those of Okabe and Ito, which stay apart for
colour-blind readers, and what a colour tells is told by a marker's shape or a line's dashes too.
A cell that draws a figure of its own starts with `new_figure` and `dress`. The explorers take the
colours of arms, weights and signed numbers from here.
"""

import io
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image, ImageDraw

from eca_lab.attention.spec import Spec, parse_spec

if TYPE_CHECKING:  # figures draw comparisons, and make none
    from eca_lab.evidence.stats import Comparison

BLACK, GREY = "#000000", "#666666"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

# The hue of each attention, at least 3:1 on white: orange for SE, olive where it has no reduction,
# blue for ECA, grey and pink for what looks at no image.
_OLIVE = "#827717"
HUES = {
    "none": GREY,
    "static": PURPLE,
    "cbam": "#9C2E00",
    "se_gc": "#00795A",
    "se": "#B87400",
    "eca": BLUE,
    "eca_ns": BLUE,
    "se_var1": _OLIVE,
    "se_var2": _OLIVE,
    "se_var3": _OLIVE,
}

# Weights of channels from 0, dark, to 1, bright: viridis without its darkest end. Signed numbers as
# shares of the largest, from -1, blue, over white to 1, red: RdBu of ColorBrewer.
WEIGHT_COLORS = ("#472F7D", "#3B528B", "#21918C", "#5EC962", "#FDE725")
SIGNED_COLORS = ("#053061", "#4393C3", "#F7F7F7", "#D6604D", "#67001F")
WEIGHTS: dict[str, Any] = {
    "cmap": LinearSegmentedColormap.from_list("weights", WEIGHT_COLORS, 1024),
    "vmin": 0,
    "vmax": 1,
}
SIGNED: dict[str, Any] = {
    "cmap": LinearSegmentedColormap.from_list("signed", SIGNED_COLORS, 1024),
    "vmin": -1,
    "vmax": 1,
}

# The same two marks in every figure: a ring for what Equation 12 says, a diamond inside the ring
# (or outside, where the two disagree) for what the authors released.
FORMULA_MARK: dict[str, Any] = {
    "linestyle": "none",
    "clip_on": False,
    "marker": "o",
    "markersize": 13,
    "markerfacecolor": "none",
    "markeredgecolor": BLUE,
    "markeredgewidth": 2,
}
RELEASED_MARK: dict[str, Any] = {
    "linestyle": "none",
    "clip_on": False,
    "marker": "D",
    "markersize": 6,
    "markerfacecolor": VERMILLION,
    "markeredgecolor": "white",
    "markeredgewidth": 0.8,
}
# A single trial: faint beside the mean, with a rim, so that near ones are seen to be two.
ONE_SEED: dict[str, Any] = {
    "marker": "o",
    "linestyle": "none",
    "color": SKY,
    "markersize": 5.5,
    "alpha": 0.6,
    "markeredgecolor": BLUE,
    "markeredgewidth": 0.8,
}
# One style for each of a few lines in a figure; the first three are SE, SE-GC and ECA in a panel.
STYLES: list[dict[str, Any]] = [
    {"color": color, "marker": marker, "markersize": 5, "linestyle": line}
    for color, marker, line in zip(
        (HUES["se"], HUES["se_gc"], HUES["eca"], VERMILLION, PURPLE, SKY, BLACK, GREY),
        "os^DvPX*",
        ("-", "--", "-.", ":") * 2,
        strict=True,
    )
]


def arm_color(arm: str | Spec) -> str:
    """The colour of an arm, the same in every figure and explorer, as "#rrggbb".

    An attention has one hue (`HUES`), and its variants are darker shades of it: the darker, the
    smaller r or the larger a fixed k, and darker for each other argument. ValueError: no such arm.
    """
    spec = parse_spec(arm)
    steps = sum(_steps(key, value) for key, value in spec.arguments.items())
    steps += {"se_var2": 1, "se_var3": 2, "eca_ns": 1}.get(spec.name, 0)
    light = 0.85 ** min(steps, _DARKEST)
    red, green, blue = to_rgb(HUES[spec.name])
    return to_hex((light * red, light * green, light * blue))


def one_seed(color: str) -> dict[str, Any]:
    """`ONE_SEED` in another colour, such as that of its arm."""
    return ONE_SEED | {"color": color, "markeredgecolor": color, "alpha": 0.5}


_DARKEST = 5  # steps, after which a shade would be black


def _steps(key: str, value: Any) -> float:
    if key == "r":
        return abs(math.log2(value) - 4)  # from the usual 16
    if key == "k" and isinstance(value, int):
        return (value + 1) / 2
    return 1.5


class LabFigure(Figure):
    """A Figure that writes every text as it is, and that notebooks show as a small PNG.

    It has two pixels for each one of its size in the page, which its metadata gives; few colours;
    and round corners, through which the page is seen: where that is dark, a card lies on it.
    """

    def draw(self, renderer: RendererBase) -> None:
        # Names of classes and arms come from outside: a dollar sign in one begins no formula.
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        # Colours are chosen by how much has which, so that scales keep their steps. With so few,
        # lines take a third of the bytes that they take with all colours.
        colors = 64 if any(ax.images for ax in self.axes) else 32
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        picture = drawn.quantize(colors, Image.Quantize.MEDIANCUT, kmeans=1)
        palette = picture.getpalette() or []
        seen_through = len(palette) // 3  # a colour of its own, after the others
        picture.putpalette([*palette, 255, 255, 255])
        picture.paste(seen_through, mask=_outside(picture.size))
        file = io.BytesIO()
        picture.save(file, "png", compress_level=9, transparency=seen_through)
        width, height = picture.size
        size = {"width": round(width / SHARP), "height": round(height / SHARP)}
        return file.getvalue(), size


SHARP = 2  # pixels of a picture for each one of its size in the page


def _outside(size: tuple[int, int]) -> Image.Image:
    """A mask of what lies outside the round corners of a picture of this size."""
    outside = Image.new("1", size, 1)
    right, bottom = size[0] - 1, size[1] - 1
    ImageDraw.Draw(outside).rounded_rectangle((0, 0, right, bottom), radius=8 * SHARP, fill=0)
    return outside


def new_figure(width: float, height: float) -> LabFigure:
    """An empty white Figure, laid out when it is drawn, whose size is in units of 100 pixels."""
    figure = LabFigure(figsize=(width, height), dpi=100 * SHARP, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def dress(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Give Axes the style that all figures share.

    Args:
        ax: to be dressed.
        title: above it, on the left.
        xlabel: of the axis below, with its unit.
        ylabel: of the axis on the left, with its unit.
    """
    ax.set_title(title, fontsize=11.5, loc="left")
    ax.set_xlabel(xlabel, fontsize=10.5)
    ax.set_ylabel(ylabel, fontsize=10.5)
    ax.tick_params(labelsize=10)
    ax.grid(color="#dddddd", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def octaves(axis: XAxis | YAxis, first: int, last: int) -> None:
    """Make an axis logarithmic, base 2, with ticks at 2^first, ..., 2^last written as integers.

    Args:
        axis: `ax.xaxis` or `ax.yaxis`.
        first: exponent of the first tick.
        last: exponent of the last tick.
    """
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log", base=2)
    axis.set_major_locator(FixedLocator([2.0**n for n in range(first, last + 1)]))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def stages_figure(
    intervals: Sequence[tuple[int, int, int]], networks: Mapping[str, Sequence[int]]
) -> LabFigure:
    """Where the stages of some networks stand among the intervals of C that share one k.

    intervals are triples (k, start, stop), half-open and ascending; networks: name -> C by stage.
    """
    figure = new_figure(7.2, 3.0)
    ax = figure.add_subplot()
    for number, (k, start, stop) in enumerate(intervals):
        shade = "#e8f3fa" if number % 2 else "white"
        ax.axvspan(start, stop, color=shade, linewidth=0)
        middle = (start * stop) ** 0.5  # on a logarithmic axis
        ax.text(middle, -0.75, f"k = {k}", fontsize=11, color=BLUE, horizontalalignment="center")
    for row, widths in enumerate(networks.values()):
        ax.plot(widths, [row] * len(widths), "o-", color=VERMILLION, markersize=8, linewidth=1)
    dress(ax, "Where real networks stand on the staircase", "channels C of a stage", "")
    octaves(ax.xaxis, 0, 13)
    ax.set_xlim(intervals[0][1], intervals[-1][2])
    ax.set_yticks(range(len(networks)), networks)
    ax.set_ylim(len(networks) - 0.5, -1.2)
    ax.grid(visible=False, axis="x")
    return figure


def differences_figure(comparisons: "Mapping[str, Comparison]") -> LabFigure:
    """Forest plot: differences to a baseline, their intervals of 90% and 95%, and the margin.

    Side by side, on one scale, for one or more `eca_lab.evidence.stats.Comparison` by title, which
    share metric, margin and baseline. The differences of single seeds are faint dots. The interval
    of 90%, which is thick, is the one that the test of equivalence asks about. Every arm has its
    colour, see `arm_color`.
    """
    most = max(len(comparison.table) for comparison in comparisons.values())
    width = 7.2 if len(comparisons) == 1 else 4.4 * len(comparisons)
    figure = new_figure(width, 2.4 + 0.36 * most)
    axes = figure.subplots(1, len(comparisons), sharex=True, squeeze=False)[0]
    for ax, (title, comparison) in zip(axes, comparisons.items(), strict=True):
        margin = comparison.margin
        ax.axvspan(-margin, margin, color=GREEN, alpha=0.15, linewidth=0)
        ax.axvline(0, color=BLACK, linewidth=1)
        for row, arm in enumerate(comparison.table.index):
            _draw_difference(ax, row, comparison.table.loc[arm], comparison.differences[arm])
        dress(ax, title, comparison.axis_label, "")
        ax.set_yticks(range(len(comparison.table)), comparison.table.index)
        ax.set_ylim(most - 0.5, -0.5)
    verdicts: set[str] = set()
    for comparison in comparisons.values():
        verdicts.update(comparison.table["verdict"])
    figure.legend(
        handles=_difference_legend(f"margin, ±{margin:g} points", verdicts),
        title="Better, worse: adjusted by Holm; intervals: not",
        fontsize=9.5,
        title_fontsize=9.5,
        loc="outside lower center",
        ncols=2,
    )
    return figure


# How a verdict is marked: by shape, and filled only where the arms were told apart.
_VERDICTS = {
    "better": (">", True),
    "worse": ("<", True),
    "equivalent": ("s", False),
    "undecided": ("D", False),
}


def _draw_difference(ax: Axes, row: int, found: pd.Series, seeds: pd.Series) -> None:
    """An arm of the forest plot: its two intervals, its mean and, below them, its seeds."""
    color = arm_color(str(found.name))
    ax.plot(seeds, [row + 0.27] * len(seeds), **one_seed(color))
    ax.hlines(row, found["low"], found["high"], color=color, linewidth=1.5)
    half = found["equivalent_within"] - abs(found["difference"])  # it ends where TOST just rejects
    ax.hlines(row, found["difference"] - half, found["difference"] + half, color=color, linewidth=5)
    if found["verdict"] in _VERDICTS:
        ax.plot(found["difference"], row, **_mark(found["verdict"], color))


def _mark(verdict: str, color: str) -> dict[str, Any]:
    marker, filled = _VERDICTS[verdict]
    return {
        "linestyle": "none",
        "marker": marker,
        "markersize": 9,
        "color": color,
        "markerfacecolor": color if filled else "white",
        "markeredgewidth": 1.6,
    }


def _difference_legend(margin: str, verdicts: Collection[str]) -> list[Patch | Line2D]:
    """The handles of the legend of a forest plot, its marks without the colour of an arm."""
    handles: list[Patch | Line2D] = [
        Patch(color=GREEN, alpha=0.15, label=margin),
        Line2D([], [], label="one seed", **one_seed(GREY)),
        Line2D([], [], color=GREY, linewidth=1.5, label="95% interval"),
        Line2D([], [], color=GREY, linewidth=5, label="90% interval, of the test of equivalence"),
    ]
    for verdict in _VERDICTS:
        if verdict in verdicts:
            handles.append(Line2D([], [], label=f"mean: {verdict}", **_mark(verdict, GREY)))
    return handles


def frozen_figure(layers: pd.DataFrame, sets: pd.DataFrame) -> LabFigure:
    """What freezing channel attention costs: each layer alone, and the cheapest together.

    layers and sets are those of an `eca_lab.looking.ranking.Ranking`, in points of top-1. Dots are
    the costs on the images that tell, with 95% intervals; crosses those where the order was chosen.
    """
    figure = new_figure(8.6, 1.6 + 0.26 * len(layers))
    axes = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(layers))
    titles = ("Each frozen alone", "Each frozen with all above it")
    for ax, costs, title in zip(axes, (layers, sets), titles, strict=True):
        ax.axvline(0, color=BLACK, linewidth=1, zorder=0)
        ax.hlines(rows, costs["low"], costs["high"], color=BLUE, linewidth=2)
        ax.plot(costs["told"], rows, "o", color=BLUE, label="half that tells, 95% interval")
        ax.plot(costs["chosen"], rows, "x", color=VERMILLION, label="half that chose the order")
        dress(ax, title, "cost, points of top-1", "")
        ax.set_ylim(len(rows) - 0.5, -0.5)
    axes[0].set_yticks(rows, [*layers.index])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
