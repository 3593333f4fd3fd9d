"""The numbers of the kernel size's panel; what all panels promise is in test_explorers.py."""

import io
import itertools
import re

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.colors import same_color
from PIL import Image

from eca_lab import figures
from eca_lab.explorers import KernelSizeExplorer
from eca_lab.explorers.kernel_size import KernelSizePicture, _band
from eca_lab.kernel_size import (
    NETWORKS,
    adaptive_kernel_size,
    released_kernel_sizes,
    stage_channels,
)


@pytest.fixture
def drawings(monkeypatch):
    """What panels would draw, instead of drawing it."""
    numbers = []
    monkeypatch.setattr(
        KernelSizePicture, "png", lambda self, **drawn: numbers.append(drawn) or b""
    )
    return numbers


def readout(panel):
    text = Markup(panel._readout.value.replace("<sub>", "").replace("<", " <")).striptags()
    return re.sub(r"\s+", " ", text)


def test_the_sliders_stops():
    stops = KernelSizeExplorer.CHANNEL_STOPS
    assert (stops[0], stops[-1]) == (1, KernelSizeExplorer.MAX_CHANNELS)
    assert {2**n for n in range(14)} <= set(stops)
    assert all(b == a + 1 or b / a < 2 ** (2 / 16) for a, b in itertools.pairwise(stops))
    assert [round(10 * gamma) / 10 for gamma in KernelSizeExplorer.GAMMA_STOPS] == [
        *KernelSizeExplorer.GAMMA_STOPS
    ]  # 2.3, and no 2.3000000000000003, which is no tie where 2.3 would be one


def test_readout(drawings):
    panel = KernelSizeExplorer()
    for settings, *shown in [
        ({"channels": 256}, "(log2 256 + 1) / 2 = (8 + 1) / 2 = 4.5", "integer to 4.5: k = 5 "),
        ({"channels": 127}, "(log2 127 + 1) / 2 ≈ (6.989 + 1) / 2 ≈ 3.994", "k = 3 "),
        ({"channels": 128}, "tie : 4 is midway between 3 and 5; ties go up: k = 5 "),
        ({"channels": 128, "ties": "down"}, "midway between 3 and 5; ties go down: k = 3 "),
        ({"channels": 2, "b": -4}, "(log2 2 − 4) / 2 = (1 − 4) / 2 = -1.5", "to 1.5: k = 1 "),
        ({"channels": 1, "b": -4}, "= -2 ", "tie : 2 is midway between 1 and 3"),
        ({"channels": 4, "b": -2}, "tie : 0 is midway between -1 and 1; and a kernel size is"),
        ({"channels": 512, "gamma": 3}, "= (9 + 1) / 3 ≈ 3.333"),
        ({"channels": 4, "gamma": 0.5}, "Cannot be built : k = 7 is larger than C = 4"),
        ({"channels": 256}, "Every C from 128 to 2,047 shares k = 5."),
        ({"channels": 256, "ties": "down"}, "Every C from 129 to 2,048 shares k = 5."),
        ({"channels": 8192}, "Every C from 2,048 to 32,767 shares k = 7."),
        ({"channels": 256}, "ECA 5; SE with r = 16, 2C²/r = 8,192."),
        ({"channels": 127}, "2C²/r ≈ 2,016.125."),
    ]:
        panel._set(**{**panel._initial, **settings})
        for words in shown:
            assert words in readout(panel)
        assert ("Cannot be built" in readout(panel)) == (panel.kernel_size > panel.channels)
    with pytest.raises(AttributeError):
        panel.kernel_size = 3


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_drawn_and_told_from_the_state(drawings, network):
    panel = KernelSizeExplorer(128, 2, 1, "down", network)
    (numbers,) = drawings
    assert numbers["point"] == (128, 3)
    assert numbers["parameters"] == (3, 128**2 / 8)
    assert numbers["band"].shape == (32, 32)
    widths, formula, released = numbers["stages"]
    assert widths == stage_channels(network)
    assert formula == [adaptive_kernel_size(width, ties="down") for width in widths]
    assert released == released_kernel_sizes(network)
    for row in (widths, formula, released):
        assert " ".join(map(str, row)) in readout(panel).replace("≠ ", "")
    assert readout(panel).count("≠") == sum(map(int.__ne__, formula, released))
    assert "network" in repr(panel) or network == "resnet50"


@pytest.mark.parametrize("ties", ["up", "down"])
@pytest.mark.parametrize(("gamma", "b"), [(2, 1), (0.5, -4), (1.1, -2.5), (4, 4)])
def test_steps_are_those_of_adaptive_kernel_size(drawings, gamma, b, ties):
    panel = KernelSizeExplorer(1, gamma, b, ties)
    expected = [adaptive_kernel_size(C, gamma, b, ties) for C in range(1, 8193)]
    starts, sizes = drawings[-1]["steps"]
    assert starts[-1] > 8192
    stepwise = [sizes[i] for i in np.searchsorted(starts, range(1, 8193), side="right") - 1]
    assert stepwise == expected
    for channels in (1, 2, 9, 31, 64, 128, 1000, 8192):
        panel.channels = channels
        first, last = drawings[-1]["interval"]
        assert first <= channels <= last
        k = adaptive_kernel_size(channels, gamma, b, ties)
        assert all(adaptive_kernel_size(C, gamma, b, ties) == k for C in (first, last))
        assert adaptive_kernel_size(last + 1, gamma, b, ties) != k
        assert first == 1 or adaptive_kernel_size(first - 1, gamma, b, ties) != k


def test_the_band_is_the_matrix_of_the_convolution():
    for channels, k in ((1, 1), (3, 1), (4, 7), (31, 3), (32, 5), (8192, 7)):
        side = min(channels, 32)
        weights = np.random.default_rng(0).normal(size=k)
        y = np.random.default_rng(1).normal(size=side)
        matrix = np.concatenate([[0], weights])[_band(side, k)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(y, k // 2), k)
        assert np.allclose(matrix @ y, windows @ weights)


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


def test_the_picture_draws_the_numbers_it_is_given():
    picture = KernelSizePicture(8192)
    picture.png(**state())
    assert (picture.span.get_x(), picture.span.get_x() + picture.span.get_width()) == (128, 2047)
    assert picture.curve.get_xydata().tolist() == [[1, 1], [8, 3], [128, 5], [2048, 7], [32768, 9]]
    assert picture.dot.get_xydata().tolist() == [[256, 5]]
    assert picture.formula.get_xydata().tolist() == [[256, 5], [512, 5]]
    assert picture.released.get_xydata().tolist() == [[256, 3], [512, 7]]
    assert [bar.get_x() + bar.get_width() for bar in picture.bars] == [5, 8192]
    assert [text.get_text() for text in picture.numbers] == ["5", "8,192"]
    # Every weight has the colour that the key gives it.
    shown, key = np.asarray(picture.matrix.get_array()), np.asarray(picture.key.get_array())
    assert len(np.unique(key, axis=0)) == 5
    for weight in range(6):
        color = key[weight - 1] if weight else 1
        assert np.allclose(shown[state()["band"] == weight], color)

    picture.png(**state(channels=4, k=7, side=4))
    assert picture.steps_title.get_text() == "C = 4, k = 7 > C: cannot be built"
    assert same_color(picture.steps_title.get_color(), figures.VERMILLION)
    picture.png(**state(channels=7, k=7, side=7))
    assert picture.steps_title.get_text() == "C = 7, k = 7"
    assert picture.matrix.get_extent() == [0.5, 7.5, 7.5, 0.5]
    for largest_k, end in ((5, 9), (9, 9), (11, 19), (19, 19), (37, 37)):
        picture.png(**state(largest_k=largest_k))
        assert picture.steps.get_ylim() == (0, end)
        assert all(tick % 2 == 1 for tick in picture.steps.get_yticks())


def test_a_blitted_picture_equals_one_drawn_at_once():
    picture = KernelSizePicture(8192)
    for k, largest_k in ((3, 7), (9, 19), (5, 7)):
        blitted = picture.png(**state(k=k, largest_k=largest_k))
    # Without blitting, only what lies under axes and spines differs: a few pixels.
    pixels = np.asarray(Image.open(io.BytesIO(blitted)).convert("RGB")).astype(int)
    for artist in picture.figure.findobj(lambda artist: artist.get_animated()):
        artist.set_animated(False)
    picture.canvas.draw()
    difference = np.abs(pixels - np.asarray(picture.canvas.buffer_rgba())[:, :, :3]).max(axis=2)
    assert np.mean(difference > 32) < 0.005
