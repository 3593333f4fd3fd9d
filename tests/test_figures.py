"""The figures by the data of their artists: what they show, not how it looks."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy.stats import t

from eca_lab import figures
from eca_lab.attention.spec import NAMES, parse_spec
from eca_lab.evidence.stats import compare

HOSTILE = "$x^{$"
INTERVALS = [(1, 1, 8), (3, 8, 128), (5, 128, 2048)]
NETWORKS = {"A": (16, 64), "B": (256, 512, 1024)}

DIFFERENCES = {
    "se": [-2, -1, -1.5, -1.5], "eca(k=5)": [0.5, 0.5, 0, None], "eca(k=1)": [-0.5, 1.5, 0, 1],
    "none": [None, 1, None, None],
}  # fmt: skip


def comparison():
    """Of four arms with eca, of which two have four seeds."""
    rows = [
        {"arm": arm, "seed": seed, "top1": 60 + seed + difference}
        for arm, differences in {"eca": [0] * 4, **DIFFERENCES}.items()
        for seed, difference in enumerate(differences)
        if difference is not None
    ]
    return compare(pd.DataFrame(rows), "eca")


FIGURES = [
    (figures.stages_figure, (INTERVALS, NETWORKS)),
    (figures.differences_figure, ({"one": comparison(), "two": comparison()},)),
]


def lines(ax):
    """The lines and markers of Axes: label -> (x, y)."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def test_every_figure_has_titles_labels_and_a_white_face():
    for draw, numbers in FIGURES:
        figure = draw(*numbers)
        assert to_hex(figure.get_facecolor()) == "#ffffff"
        for ax in figure.axes:
            if ax.has_data() and ax.get_label() != "<colorbar>":
                assert ax.get_title(loc="left")
                assert ax.get_xlabel() or figure.get_supxlabel()
    assert pyplot.get_fignums() == []


def test_figures_are_shown_as_small_sharp_pngs_that_look_the_same():
    figure = figures.stages_figure(INTERVALS, NETWORKS)
    png, size = figure._repr_png_()
    with Image.open(io.BytesIO(png)) as shown:
        assert shown.mode == "P"
        # Two pixels for each one in the page. Versions of matplotlib differ in how they round.
        assert np.allclose(shown.size, figure.get_size_inches() * 200, atol=1.01)
        assert np.allclose(list(size.values()), figure.get_size_inches() * 100, atol=1.01)
        assert list(size) == ["width", "height"]
        opaque = np.asarray(shown.convert("RGBA"))[:, :, 3]
        small = np.asarray(shown.convert("RGB")).astype(int)
    # The corners are round, and seen through; all else is as it is drawn.
    assert (opaque[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
    assert (opaque == 0).sum() < 4 * 16**2
    assert (opaque[16:-16] == 255).all()
    # From a new figure: drawing the same one again lays it out again, a little differently.
    canvas = FigureCanvasAgg(figures.stages_figure(INTERVALS, NETWORKS))
    canvas.draw()
    file = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).save(file, "png")
    assert len(png) < 0.9 * len(file.getvalue())
    apart = np.abs(small - np.asarray(canvas.buffer_rgba())[:, :, :3])[opaque == 255]
    assert apart.mean() < 0.2
    assert (apart > 16).mean() < 0.001  # at the edges of letters and lines
    assert apart.max() < 64


def contrast(color):
    """The contrast of a colour with white, as WCAG 2 counts it."""
    parts = np.array(to_rgb(color))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_an_arm_has_one_color_and_its_variants_are_shades_of_it():
    assert set(figures.HUES) == set(NAMES)
    plain = ("none", "static", "se", "cbam", "se_gc(groups=16)", "eca")
    assert len({figures.arm_color(arm) for arm in plain}) == len(plain)
    for arms in (
        ("se", "se(r=8)", "se(r=4)", "se(r=2)", "se(r=1)"),
        ("eca", "eca(k=1)", "eca(k=3)", "eca(k=5)", "eca(k=7)"),
        ("se", "se(decay=0)"),
        ("static", "static(decay=0)"),
        ("eca", "eca(order=shuffled)"),
        ("eca", "eca(k=3-5-5-7)"),
    ):
        shades = [rgb_to_hsv(to_rgb(figures.arm_color(arm))) for arm in arms]
        assert np.ptp([hue for hue, _, _ in shades]) < 0.02
        values = [value for _, _, value in shades]
        assert (np.diff(values) < -0.04).all()
        assert values[-1] > 0.2  # not black
    assert figures.arm_color("se") == figures.arm_color(parse_spec(" se "))
    for color in figures.HUES.values():
        assert contrast(color) > 3
    with pytest.raises(ValueError, match="accepted are"):
        figures.arm_color("sa")


def test_near_shades_of_a_scale_stay_apart():
    figure, shades = figures.new_figure(4, 3), np.arange(120, 132)
    figures.dress(ax := figure.add_subplot(), "title", "x", "y")
    ax.imshow(shades[:, None] / 255, "gray", vmin=0, vmax=1, aspect="auto")
    with Image.open(io.BytesIO(figure._repr_png_()[0])) as picture:
        shown = np.asarray(picture.convert("RGB"))
    wide = {shade for shade in range(256) if (shown == shade).all(-1).sum() > 1000}
    assert len(wide & set(shades)) >= 10
    assert 255 in wide


def test_names_are_drawn_as_they_are_written():
    figure = figures.differences_figure({HOSTILE: comparison()})
    figure.axes[0].set_yticks([0, 1], [HOSTILE, "a$b$c"])
    FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible()]
    names = [text for text in texts if text.get_text() in (HOSTILE, "a$b$c")]
    assert len(names) > 1
    for name in names:
        # As wide as matplotlib draws the very letters.
        plain = Figure(dpi=figure.dpi).text(0, 0, name.get_text(), parse_math=False)
        plain.set_fontproperties(name.get_fontproperties())
        plain.figure.canvas = FigureCanvasAgg(plain.figure)
        expected = plain.get_window_extent(plain.figure.canvas.get_renderer()).width
        renderer = figure.canvas.get_renderer()
        assert name.get_window_extent(renderer).width == pytest.approx(expected, abs=1)


def test_stages_figure():
    (ax,) = figures.stages_figure(INTERVALS, NETWORKS).axes
    bands = [(band.get_x(), band.get_x() + band.get_width()) for band in ax.patches]
    assert bands == [(1, 8), (8, 128), (128, 2048)]
    assert [text.get_text() for text in ax.texts] == ["k = 1", "k = 3", "k = 5"]
    for (start, stop), text in zip(bands, ax.texts, strict=True):
        assert start < text.get_position()[0] < stop
    assert list(lines(ax).values()) == [([16, 64], [0, 0]), ([256, 512, 1024], [1, 1, 1])]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B"]


def test_the_forest_plot_shows_means_seeds_and_margin():
    made = comparison()
    other = compare(made.trials, "eca", ["se"])
    figure = figures.differences_figure({"all": made, "one": other})
    ax, beside = figure.axes
    assert (ax.get_title(loc="left"), beside.get_title(loc="left")) == ("all", "one")
    assert ax.get_xlim() == beside.get_xlim()
    assert ax.get_xlabel() == "top-1 minus that of eca, points"
    assert [label.get_text() for label in beside.get_yticklabels()] == ["se"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(DIFFERENCES)
    (margin,) = ax.patches
    assert margin.get_extents().transformed(ax.transData.inverted()).intervalx == pytest.approx(
        [-0.2, 0.2]
    )
    drawn = [each for each in ax.collections if isinstance(each, LineCollection)]
    for row, (thin, thick) in enumerate(zip(drawn[::2], drawn[1::2], strict=True)):
        found = made.table.iloc[row]
        assert thick.get_linewidth() > thin.get_linewidth()
        values = made.differences.iloc[:, row].dropna()
        spread = len(values) - 1, values.mean(), values.sem()
        for level, interval in ((0.95, thin), (0.9, thick)):
            ends = [segment[:, 0] for segment in interval.get_segments() if len(segment)]
            expected = [t.interval(level, *spread)] if found["n"] > 1 else []
            np.testing.assert_allclose(ends, expected)
        color = figures.arm_color(made.table.index[row])
        assert {to_hex(each.get_color()[0]) for each in (thin, thick)} == {color}
    means = [line for line in ax.lines if line.get_marker() == "D"]
    assert [line.get_xydata().tolist() for line in means] == [
        [[difference, row]] for row, difference in enumerate(made.table["difference"])
    ]
    dots = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
    assert np.array_equal(dots, made.differences.T.to_numpy(), equal_nan=True)
    assert ax.get_ylim() == (3.5, -0.5)
    (legend,) = figure.legends
    assert "mean: undecided" in [text.get_text() for text in legend.get_texts()]


def test_frozen_costs_are_drawn_with_their_intervals():
    costs = {"chosen": [0.1, 2.0], "told": [0.3, 1.5], "low": [-0.2, 0.5], "high": [0.8, 2.5]}
    layers = pd.DataFrame(costs, pd.Index(["b", "a"], name="layer"))
    sets = pd.DataFrame({"layer": ["b", "a"], **costs}, pd.RangeIndex(1, 3, name="frozen"))
    sets.loc[2, "told"] = 1.9
    figure = figures.frozen_figure(layers, sets)
    for ax, found in zip(figure.axes, (layers, sets), strict=True):
        [intervals] = [each for each in ax.collections if isinstance(each, LineCollection)]
        ends = np.array(intervals.get_segments())[:, :, 0]
        np.testing.assert_array_equal(ends, found[["low", "high"]])
        drawn = [line.get_xdata().tolist() for line in ax.lines[1:]]
        assert drawn == [found["told"].tolist(), found["chosen"].tolist()]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a"]
    assert figure.axes[0].yaxis_inverted()
