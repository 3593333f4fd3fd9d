"""The figures by the data of their artists: what they show, not how it looks."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color, to_hex
from PIL import Image

from eca_lab import figures
from eca_lab.explorers.channel_weights_picture import ChannelWeightPicture
from eca_lab.explorers.kernel_size_picture import KernelSizePicture
from eca_lab.explorers.reduction_picture import ReductionPicture

WIDTHS = [16, 128, 2048]
TIES = [([127, 128, 129], [3, 5, 5], [3, 3, 5]), ([2047, 2048, 2049], [5, 7, 7], [5, 5, 7])]
INTERVALS = [(1, 1, 8), (3, 8, 128), (5, 128, 2048)]
NETWORKS = {"A": ((64, 128), (3, 5), (3, 7)), "B": ((16, 24, 320), (3, 3, 5), (1, 1, 3))}

MATRICES = {"a": np.diag([1.0, -2.0]), "b": np.zeros((3, 3)), "c": np.arange(9.0).reshape(3, 3)}
SPECTRA = {"SE": [[2, 1, 0, 0], [3, 0.5, 0, 0]], "ECA": [[1, 1, 1, 0.5]]}
PUBLISHED = pd.DataFrame(
    {"arm": ["SE", "ECA", "SE"], "parameters": [49e6, 25e6, 28e6], "top1": [77.6, 77.5, 76.7]}
)
MEASURED = pd.DataFrame(
    {"arm": ["none", "ECA"], "parameters": [0, 12], "top1": [90, 91], "sd": [0.5, np.nan]}
)

PAIRED = pd.DataFrame({"se": [-2.0, -1.0], "eca(k=3)": [0.5, 0.5], "none": [-0.5, 1.5]})
COMPARED = pd.DataFrame(
    {
        "arm": ["se", "eca(k=3)", "none"],
        "difference": [-1.5, 0.5, 0.5],
        "low": [-2.5, np.nan, -3.0],
        "high": [-0.5, np.nan, 4.0],
        "verdict": ["worse", "undecided", "undecided"],
    }
)
TRIALS = pd.DataFrame(
    {"arm": ["eca", "eca", "eca(k=5)", "eca(k=1)", "eca(k=1)"], "top1": [60.0, 62, 61, 59, 60]}
)
MEANS = pd.DataFrame(
    {
        "mean": [61.0, 61.0, 59.5],
        "low": [60.0, np.nan, 58.0],
        "high": [62.0, np.nan, 61.0],
        "kernel_size": [np.nan, 5, 1],
    },
    index=["eca", "eca(k=5)", "eca(k=1)"],
)

FIGURES = [
    (figures.mapping_figure, (WIDTHS, [8.5, 64.5, 1024.5], [2.5, 4, 6])),
    (figures.rounding_figure, (WIDTHS, [2.5, 4, 6], [3, 5, 7], [(128, 4), (2048, 6)])),
    (figures.ties_figure, (TIES,)),
    (figures.stages_figure, (INTERVALS, {"A": (16, 64), "B": (256, 512, 1024)})),
    (figures.released_figure, (NETWORKS,)),
    (figures.interaction_figure, (MATRICES,)),
    (figures.spectra_figure, (SPECTRA,)),
    (figures.cost_figure, (PUBLISHED, MEASURED)),
    (figures.differences_figure, (COMPARED, PAIRED, "eca", 0.2)),
    (figures.kernel_sweep_figure, (TRIALS, MEANS)),
]


def lines(ax):
    """The lines and markers of Axes: label -> (x, y)."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


@pytest.mark.parametrize(("draw", "numbers"), FIGURES)
def test_every_figure_has_titles_labels_and_a_white_face(draw, numbers):
    figure = draw(*numbers)
    assert to_hex(figure.get_facecolor()) == "#ffffff"
    for ax in figure.axes:
        if ax.has_data() and ax.get_label() != "<colorbar>":
            assert ax.get_title(loc="left")
            assert ax.get_xlabel() or figure.get_supxlabel()
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(("draw", "numbers"), FIGURES)
def test_figures_are_shown_as_small_pngs_that_look_the_same(draw, numbers):
    figure = draw(*numbers)
    with Image.open(io.BytesIO(figure._repr_png_())) as shown:
        assert shown.mode == "P"
        # Versions of matplotlib differ in how they round 8.2 inches at 100 dpi.
        assert np.allclose(shown.size, figure.get_size_inches() * 100, atol=1.01)
        small = np.asarray(shown.convert("RGB")).astype(int)
    # From a new figure: drawing the same one again lays it out again, a little differently.
    canvas = FigureCanvasAgg(draw(*numbers))
    canvas.draw()
    assert len(figure._repr_png_()) < 0.9 * len(figures.palette_png(canvas))
    assert np.abs(small - np.asarray(canvas.buffer_rgba())[:, :, :3]).max() < 16


def test_mapping_figure():
    (ax,) = figures.mapping_figure(WIDTHS, [8.5, 64.5, 1024.5], [2.5, 4, 6]).axes
    linear, exponential = lines(ax).values()
    assert linear == (WIDTHS, [8.5, 64.5, 1024.5])
    assert exponential == (WIDTHS, [2.5, 4, 6])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_rounding_figure():
    ties = [(128, 4), (2048, 6)]
    (ax,) = figures.rounding_figure(WIDTHS, [2.5, 4, 6], [3, 5, 7], ties).axes
    argument, rounded, marked = lines(ax).values()
    assert argument == (WIDTHS, [2.5, 4, 6])
    assert rounded == (WIDTHS, [3, 5, 7])
    assert marked == ([128, 2048], [4, 6])
    assert [text.get_text() for text in ax.texts] == ["C = 128", "C = 2048"]


def test_ties_figure():
    axes = figures.ties_figure(TIES).axes
    for ax, (channels, up, down) in zip(axes, TIES, strict=True):
        assert lines(ax) == {"ties up (Figure 3)": (channels, up), "ties down": (channels, down)}
        assert str(channels[1]) in ax.get_title(loc="left")


def test_stages_figure():
    networks = {"A": (16, 64), "B": (256, 512, 1024)}
    (ax,) = figures.stages_figure(INTERVALS, networks).axes
    bands = [(band.get_x(), band.get_x() + band.get_width()) for band in ax.patches]
    assert bands == [(1, 8), (8, 128), (128, 2048)]
    assert [text.get_text() for text in ax.texts] == ["k = 1", "k = 3", "k = 5"]
    for (start, stop), text in zip(bands, ax.texts, strict=True):
        assert start < text.get_position()[0] < stop
    assert list(lines(ax).values()) == [([16, 64], [0, 0]), ([256, 512, 1024], [1, 1, 1])]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B"]


def test_released_figure():
    axes = figures.released_figure(NETWORKS).axes
    for ax, (name, (channels, formula, released)) in zip(axes, NETWORKS.items(), strict=True):
        assert ax.get_title(loc="left") == name
        ring, diamond = lines(ax).values()
        assert ring == (list(channels), list(formula))
        assert diamond == (list(channels), list(released))
        shapes = {line.get_marker() for line in ax.lines}
        assert len(shapes) == 2


@pytest.fixture(scope="module")
def picture():
    return KernelSizePicture(8192)


def state(channels=256, k=5, largest_k=7, side=32):
    """Numbers for `KernelSizePicture.png`, with a band that shows every weight."""
    return {
        "point": (channels, k),
        "interval": (128, 2047),
        "steps": ([1, 8, 128, 2048, 32768], [1, 3, 5, largest_k, largest_k + 2]),
        "stages": ((256, 512), (5, 5), (3, 7)),
        "band": np.arange(side * side).reshape(side, side) % (k + 1),
        "parameters": (k, 8192),
    }


def test_picture_draws_the_numbers_it_is_given(picture):
    picture.png(**state())
    assert (picture.span.get_x(), picture.span.get_x() + picture.span.get_width()) == (128, 2047)
    assert picture.curve.get_xydata().tolist() == [[1, 1], [8, 3], [128, 5], [2048, 7], [32768, 9]]
    assert picture.curve.get_drawstyle() == "steps-post"
    assert picture.dot.get_xydata().tolist() == [[256, 5]]
    assert picture.formula.get_xydata().tolist() == [[256, 5], [512, 5]]
    assert picture.released.get_xydata().tolist() == [[256, 3], [512, 7]]
    assert picture.formula.get_marker() != picture.released.get_marker()
    assert picture.steps_title.get_text() == "C = 256, k = 5"
    ends = [bar.get_x() + bar.get_width() for bar in picture.bars]
    assert ends == [5, 8192]
    assert [text.get_text() for text in picture.numbers] == ["5", "8,192"]


def test_picture_colours_every_weight_as_its_key_does(picture):
    picture.png(**state(k=7))
    band = state(k=7)["band"]
    shown, key = np.asarray(picture.matrix.get_array()), np.asarray(picture.key.get_array())
    assert np.all(shown[band == 0] == 1)
    assert len(np.unique(key, axis=0)) == 7
    for weight in range(1, 8):
        assert np.allclose(shown[band == weight], key[weight - 1])


def test_picture_shows_narrow_layers_at_their_size(picture):
    picture.png(**state(channels=8, k=3, side=8))
    assert picture.matrix.get_extent() == [0.5, 8.5, 8.5, 0.5]
    assert picture.matrix.get_array().shape == (8, 8, 3)


def test_picture_flags_a_kernel_that_is_larger_than_the_layer(picture):
    picture.png(**state(channels=4, k=7, side=4))
    assert picture.steps_title.get_text() == "C = 4, k = 7 > C: cannot be built"
    assert same_color(picture.steps_title.get_color(), figures.VERMILLION)
    picture.png(**state(channels=7, k=7, side=7))
    assert picture.steps_title.get_text() == "C = 7, k = 7"
    assert same_color(picture.steps_title.get_color(), figures.BLACK)


@pytest.mark.parametrize(("largest_k", "end"), [(5, 9), (9, 9), (11, 19), (19, 19), (37, 37)])
def test_picture_makes_room_for_the_largest_k(picture, largest_k, end):
    picture.png(**state(largest_k=largest_k))
    assert picture.steps.get_ylim() == (0, end)
    assert all(tick % 2 == 1 for tick in picture.steps.get_yticks())


def test_blitted_picture_equals_one_drawn_at_once():
    moved, new = KernelSizePicture(8192), KernelSizePicture(8192)
    for k, largest_k in ((3, 7), (9, 19), (5, 7)):
        blitted = moved.png(**state(k=k, largest_k=largest_k))
    assert blitted == new.png(**state())

    # Drawn without blitting, only what lies under axes and spines differs: a few pixels.
    pixels = np.asarray(Image.open(io.BytesIO(blitted)).convert("RGB")).astype(int)
    for artist in new.figure.findobj(lambda artist: artist.get_animated()):
        artist.set_animated(False)
    new.canvas.draw()
    difference = np.abs(pixels - np.asarray(new.canvas.buffer_rgba())[:, :, :3]).max(axis=2)
    assert np.mean(difference > 32) < 0.005


def test_interaction_figure_scales_every_panel_by_its_largest_entry():
    *panels, bar = figures.interaction_figure(MATRICES).axes
    assert [ax.get_title(loc="left") for ax in panels] == list(MATRICES)
    shown = [ax.images[0] for ax in panels]
    assert np.array_equal(shown[0].get_array(), np.diag([0.5, -1]))
    assert np.array_equal(shown[1].get_array(), np.zeros((3, 3)))
    assert np.array_equal(shown[2].get_array(), np.arange(9).reshape(3, 3) / 8)
    for image in shown:
        assert image.get_clim() == (-1, 1)
        white = image.to_rgba(np.zeros((1, 1)))[0, 0]
        assert white[:3].min() > 0.95
    assert bar.get_ylabel() == "entry / largest in its panel"


@pytest.mark.parametrize("number", [1, 4, 7])
def test_interaction_figure_takes_any_number_of_matrices(number):
    figure = figures.interaction_figure({str(n): np.eye(4) for n in range(number)})
    assert len(figure.axes) == number + 1


def test_spectra_figure_draws_a_line_for_every_jacobian():
    (ax,) = figures.spectra_figure(SPECTRA, title="At initialisation").axes
    assert ax.get_title(loc="left") == "At initialisation"
    drawn = [line for line in ax.lines if len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in drawn] == [*SPECTRA["SE"], *SPECTRA["ECA"]]
    assert all(list(line.get_xdata()) == [1, 2, 3, 4] for line in drawn)
    assert same_color(drawn[0].get_color(), drawn[1].get_color())
    assert not same_color(drawn[0].get_color(), drawn[2].get_color())
    assert drawn[0].get_marker() != drawn[2].get_marker()
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["SE", "ECA"]


def test_cost_figure_keeps_published_and_measured_apart():
    published, measured = figures.cost_figure(PUBLISHED, MEASURED).axes
    whole = {line.get_label(): line for line in published.lines}
    assert list(whole) == ["SE", "ECA"]
    joined = whole["SE"].get_xydata().tolist()
    assert joined == [[28, 76.7], [49, 77.6]]  # in order of parameters
    points = {bars.get_label(): (bars[0], bars[2]) for bars in measured.containers}
    assert list(points) == ["none", "ECA"]
    line, errors = points["none"]
    assert line.get_xydata().tolist() == [[0, 90]]
    assert errors[0].get_segments()[0].tolist() == [[0, 89.5], [0, 90.5]]
    assert measured.get_xlim()[0] < 0  # no parameters at all have a place on the axis
    one, other = whole["ECA"], points["ECA"][0]
    assert (one.get_color(), one.get_marker()) == (other.get_color(), other.get_marker())
    lines = (*whole.values(), points["none"][0])
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 3


def reduction_state(channels=8, seed=0):
    """Numbers for `ReductionPicture.png`."""
    rng = np.random.default_rng(seed)
    return {
        "matrices": [rng.normal(size=(channels, channels)) for _ in range(3)],
        "ranks": [2, channels, channels - 1],
        "spectra": [np.linspace(1, end, channels) for end in (0, 0.1, 0.5)],
        "parameters": [512, 256, 3],
    }


def test_reduction_picture_draws_the_numbers_it_is_given():
    picture, state = ReductionPicture(512), reduction_state()
    picture.png(**state)
    for image, matrix in zip(picture.matrices, state["matrices"], strict=True):
        assert np.allclose(image.get_array(), matrix / np.abs(matrix).max())
    captions = [text.get_text() for text in picture.captions]
    assert captions == ["8 × 8, rank 2", "8 × 8, rank 8", "8 × 8, rank 7"]
    for line, values in zip(picture.lines, state["spectra"], strict=True):
        assert list(line.get_xdata()) == list(range(1, 9))
        assert list(line.get_ydata()) == list(values)
    ends = [bar.get_x() + bar.get_width() for bar in picture.bars]
    assert ends == [512, 256, 3]
    assert [text.get_text() for text in picture.numbers] == ["512", "256", "3"]
    for line, bar in zip(picture.lines, picture.bars, strict=True):
        assert same_color(line.get_color(), bar.get_facecolor())


def test_reduction_picture_takes_a_matrix_of_zeros():
    picture = ReductionPicture(512)
    state = reduction_state()
    state["matrices"][0], state["spectra"][0] = np.zeros((8, 8)), np.zeros(8)
    picture.png(**state)
    assert not picture.matrices[0].get_array().any()


def test_a_moved_reduction_picture_equals_a_new_one():
    moved, new = ReductionPicture(512), ReductionPicture(512)
    for channels in (512, 8, 64):
        blitted = moved.png(**reduction_state(channels))
    assert blitted == new.png(**reduction_state(64))
    assert blitted != new.png(**reduction_state(64, seed=1))


def test_the_forest_plot_shows_means_seeds_and_margin():
    ax = figures.differences_figure(COMPARED, PAIRED, "eca", 0.2).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["se", "eca(k=3)", "none"]
    (margin,) = ax.patches
    assert margin.get_extents().transformed(ax.transData.inverted()).intervalx == pytest.approx(
        [-0.2, 0.2]
    )
    segments = ax.collections[0].get_segments()
    assert segments[0][:, 0].tolist() == [-2.5, -0.5]
    assert segments[2][:, 0].tolist() == [-3.0, 4.0]
    marks = {line.get_label(): line for line in ax.lines}
    worse, undecided = (marks[f"mean, 95% interval: {each}"] for each in ("worse", "undecided"))
    assert worse.get_xydata().tolist() == [[-1.5, 0]]
    assert undecided.get_xydata().tolist() == [[0.5, 1], [0.5, 2]]
    assert worse.get_marker() != undecided.get_marker()
    dots = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert dots == PAIRED.T.to_numpy().tolist()
    assert ax.get_ylim() == (2.5, -0.5)


def test_accuracy_over_k_shows_fixed_k_and_levels():
    ax = figures.kernel_sweep_figure(TRIALS, MEANS).axes[0]
    (bars,) = ax.containers
    assert bars.lines[0].get_xydata().tolist() == [[1, 59.5], [5, 61]]
    assert bars.lines[2][0].get_segments()[0][:, 1].tolist() == [58, 61]
    level = next(line for line in ax.lines if line.get_label() == "eca, adaptive k")
    assert set(level.get_ydata()) == {61}
    dots = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[59, 60], [61]]
    assert ax.get_xticks().tolist() == [1, 5]


def test_class_weights_over_the_channels():
    means = {
        "eca": {"early": {"ring": [0.1, 0.2], "star": [0.3, 0.4]}, "late": {"ring": [0.5] * 3}},
        "se": {"early": {"ring": [0.6, 0.7]}, "late": {"ring": [0.8, 0.9]}},
    }
    axes = figures.class_weights_figure(means).axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        "eca: early",
        "eca: late",
        "se: early",
        "se: late",
    ]
    assert [line.get_ydata().tolist() for line in axes[0].lines] == [[0.1, 0.2], [0.3, 0.4]]
    assert axes[1].lines[0].get_xdata().tolist() == [0, 1, 2]
    assert axes[0].lines[0].get_linestyle() != axes[0].lines[1].get_linestyle()


def test_points_by_layer_stand_side_by_side_with_their_intervals():
    table = pd.DataFrame(
        {
            "layer": ["1", "1", "2"],
            "group": ["off", "fixed", "off"],
            "value": [-3.0, 1.0, 0.0],
            "low": [-4.0, 0.5, -1.0],
            "high": [-2.0, 2.0, 3.0],
        }
    )
    other = table[table["group"] == "fixed"]
    left, right = figures.by_layer_figure({"eca": table, "se": other}, "points").axes
    off, fixed = left.containers
    assert off.lines[0].get_ydata().tolist() == [-3, 0]
    segments = off.lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [[-4, -2], [-1, 3]]
    assert off.lines[0].get_xdata()[0] < 0 < fixed.lines[0].get_xdata()[0]
    assert off.lines[0].get_marker() != fixed.lines[0].get_marker()
    same = right.containers[1]
    assert same.get_label() == "fixed"
    assert same.lines[0].get_marker() == fixed.lines[0].get_marker()


def test_feature_maps_before_and_after_share_a_scale():
    before = np.array([[-4.0, 2.0], [0.0, 1.0]])
    rows = {
        "raised": {"channel 1": (before, before / 2)},
        "lowered": {"channel 2": (0 * before,) * 2},
    }
    figure = figures.feature_maps_figure(np.zeros((2, 2, 3), np.uint8), rows)
    maps = [ax.images[0].get_array() for ax in figure.findobj(lambda a: getattr(a, "images", 0))]
    assert [maps[1].min(), maps[2].min()] == [-1, -0.5]
    assert not maps[3].any()


def weights_state(channels=16, seed=0):
    """The arguments of ChannelWeightPicture.png: 3 + 2 images of two classes."""
    rng = np.random.default_rng(seed)
    weights = rng.random((5, channels))
    return {
        "weights": weights,
        "means": [weights[:3].mean(0), weights[3:].mean(0)],
        "classes": [(0, "ring"), (1, "star")],
        "image": 4,
        "channel": 2,
        "histograms": [np.array([0.25, 0.75]), np.array([0.5, 0.5])],
        "picture": rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        "maps": (np.array([[2.0, -4.0]]), np.array([[1.0, -2.0]])),
        "chances": (np.array([0.1, 0.9]), np.array([0.6, 0.4])),
    }


def test_channel_weight_picture_shows_its_state():
    picture = ChannelWeightPicture(["ring", "star"], [3, 2])
    state = weights_state()
    assert Image.open(io.BytesIO(picture.png(**state))).size == (720, 740)
    lines = [line.get_ydata().tolist() for line in picture.lines]
    assert lines == [*(mean.tolist() for mean in state["means"]), state["weights"][4].tolist()]
    assert picture.dot.get_xydata().tolist() == [[2, state["weights"][4, 2]]]
    assert picture.heat.get_array().tolist() == state["weights"].tolist()
    assert [each.get_ydata().tolist() for each in picture.brackets] == [[-0.5, 2.5], [2.5, 4.5]]
    assert picture.row.get_ydata() == [4]
    assert [each.get_array().tolist() for each in picture.maps] == [[[0.5, -1]], [[0.25, -0.5]]]
    assert [[bar.get_width() for bar in bars] for bars in picture.bars] == [[0.1, 0.9], [0.6, 0.4]]
    shares, _, _ = picture.histograms[0].get_data()
    assert shares.tolist() == [1 / 3, 1]


def test_a_moved_channel_weight_picture_equals_a_new_one():
    moved, new = (ChannelWeightPicture(["ring", "star"], [3, 2]) for _ in range(2))
    for channels in (256, 16, 64):
        blitted = moved.png(**weights_state(channels))
    assert blitted == new.png(**weights_state(64))
    assert blitted != new.png(**weights_state(64, seed=1))
