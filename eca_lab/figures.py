"""Figures that more than one place needs: they draw the numbers they are given and compute none.

Every function returns a new `matplotlib.figure.Figure` that pyplot knows nothing of, so a cell that
is run again leaves no figure behind. Colours are those of Okabe and Ito, which stay apart for
colour-blind readers, and what a colour tells is told by a marker's shape or a line's dashes too.
A cell that draws a figure of its own starts with `new_figure` and `dress`.
"""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

BLACK, GREY = "#000000", "#666666"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

# The same two marks in every figure: a ring for what Equation 12 says, a diamond inside the ring
# (or outside, where the two disagree) for what the authors released.
_MARK = {"linestyle": "none", "clip_on": False}
FORMULA_MARK = _MARK | {"marker": "o", "markersize": 13, "markerfacecolor": "none"}
FORMULA_MARK |= {"markeredgecolor": BLUE, "markeredgewidth": 2}
RELEASED_MARK = _MARK | {"marker": "D", "markersize": 6, "markerfacecolor": VERMILLION}
RELEASED_MARK |= {"markeredgecolor": "white", "markeredgewidth": 0.8}
# A single trial: faint beside the mean, with a rim, so that near ones are seen to be two.
ONE_SEED = {"marker": "o", "linestyle": "none", "color": SKY, "markersize": 5.5, "alpha": 0.6}
ONE_SEED |= {"markeredgecolor": BLUE, "markeredgewidth": 0.8}
# Signed numbers as shares of the largest: blue, white, red, which stay apart for the colour-blind.
SIGNED = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
# One style for each of a few lines in a figure; the first three are SE, SE-GC and ECA in a panel.
STYLES = [
    {"color": color, "marker": marker, "markersize": 5, "linestyle": line}
    for color, marker, line in zip(
        (ORANGE, GREEN, BLUE, VERMILLION, PURPLE, SKY, BLACK, GREY),
        "os^DvPX*",
        ("-", "--", "-.", ":") * 2,
        strict=True,
    )
]


class LabFigure(Figure):
    """A Figure that writes every text as it is, and that notebooks show as a PNG of 64 colours."""

    def draw(self, renderer):
        # Names of classes and arms come from outside: a dollar sign in one begins no formula.
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)

    def _repr_png_(self):
        # Chosen by how much has which, so that scales keep their steps. Lines take a third of the
        # bytes of all colours.
        canvas, file = FigureCanvasAgg(self), io.BytesIO()
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        picture = picture.quantize(64, Image.Quantize.MEDIANCUT, kmeans=1)
        picture.save(file, "png", compress_level=9)
        return file.getvalue()


def new_figure(width, height):
    """An empty white Figure of width x height inches at 100 dpi, laid out when it is drawn."""
    return LabFigure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def dress(ax, title, xlabel, ylabel):
    """Give Axes a title, axis labels (with their units) and the style that all figures share."""
    ax.set_title(title, fontsize=11.5, loc="left")
    ax.set_xlabel(xlabel, fontsize=10.5)
    ax.set_ylabel(ylabel, fontsize=10.5)
    ax.tick_params(labelsize=10)
    ax.grid(color="#dddddd", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def octaves(axis, first, last):
    """Make an axis logarithmic, base 2, with ticks at 2^first, ..., 2^last written as integers."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log", base=2)
    axis.set_major_locator(FixedLocator([2.0**n for n in range(first, last + 1)]))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def stages_figure(intervals, networks):
    """Where the stages of some networks stand among the intervals of C that share one k.

    intervals are triples (k, start, stop), half-open and ascending; networks: name -> C by stage.
    """
    figure = new_figure(7.2, 3.0)
    ax = figure.add_subplot()
    for shade, (k, start, stop) in zip(("white", "#e8f3fa") * 9, intervals, strict=False):
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


def differences_figure(comparisons):
    """Forest plot: differences to a baseline, their 95% intervals, and the margin.

    Side by side, on one scale, for one or more `eca_lab.stats.Comparison` by title, which share
    metric, margin and baseline. The differences of single seeds are faint dots.
    """
    most = max(len(each.table) for each in comparisons.values())
    width = 7.2 if len(comparisons) == 1 else 4.4 * len(comparisons)
    figure = new_figure(width, 1.9 + 0.36 * most)
    axes = figure.subplots(1, len(comparisons), sharex=True, squeeze=False)[0]
    legend = {}
    for ax, (title, comparison) in zip(axes, comparisons.items(), strict=True):
        table, margin = comparison.table, comparison.margin
        label = f"margin, ±{margin:g} points"
        ax.axvspan(-margin, margin, color=GREEN, alpha=0.15, linewidth=0, label=label)
        ax.axvline(0, color=BLACK, linewidth=1)
        rows = range(len(table))
        for row, arm in enumerate(table.index):
            seeds, label = comparison.differences[arm], "one seed" if row == 0 else None
            ax.plot(seeds, [row + 0.25] * len(seeds), **ONE_SEED, label=label)
        ax.hlines(rows, table["low"], table["high"], color=BLUE, linewidth=2)
        for verdict, (marker, fill) in _VERDICTS.items():
            chosen = [row for row, each in enumerate(table["verdict"]) if each == verdict]
            if chosen:
                style = {"color": BLUE, "markerfacecolor": fill, "markersize": 8}
                label = f"mean, 95% interval: {verdict}"
                ax.plot(table["difference"].iloc[chosen], chosen, marker, **style, label=label)
        dress(ax, title, comparison.axis_label, "")
        ax.set_yticks(rows, table.index)
        ax.set_ylim(most - 0.5, -0.5)
        handles, labels = ax.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    figure.legend(legend.values(), legend, fontsize=9.5, loc="outside lower center", ncols=2)
    return figure


# How a verdict is marked: by shape, and filled only where the arms were told apart.
_VERDICTS = {
    "better": (">", BLUE),
    "worse": ("<", BLUE),
    "equivalent": ("s", "white"),
    "undecided": ("D", "white"),
}
