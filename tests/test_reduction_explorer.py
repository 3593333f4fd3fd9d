"""The numbers of the reduction's panel; what all panels promise is in test_explorers.py."""

import itertools
import re

import numpy as np
import pytest
import torch
from markupsafe import Markup

from eca_lab.attention import CBAM, ECA, SE, SEGroup
from eca_lab.explorers import ReductionExplorer
from eca_lab.explorers.reduction import ReductionPicture

DEFAULTS = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16}
DEFAULTS |= {"seed": 0, "weights": "random"}


def layers():
    torch.manual_seed(1)
    return {
        "layer1": {"se": SE(16, 4), "eca": ECA(16, 3), "y": torch.randn(16)},
        "layer3": {
            "se": SE(96, 8),
            "eca": ECA(96, 5, order="shuffled"),
            "se_gc": SEGroup(96, 12),
        },
    }


@pytest.fixture
def drawings(monkeypatch):
    """What panels would draw, instead of drawing it."""
    numbers = []
    monkeypatch.setattr(ReductionPicture, "png", lambda self, **drawn: numbers.append(drawn) or b"")
    return numbers


@pytest.fixture
def panel(drawings):
    """A panel that does not draw."""
    return ReductionExplorer()


def check(panel):
    """The numbers of a panel against what they must be for random weights."""
    C, r, k, g = panel.channels, panel.reduction, panel.kernel_size, panel.groups
    table = panel.measures
    assert table["spec"].tolist() == [f"se(r={r})", f"se_gc(groups={g})", f"eca(k={k})"]
    assert table["parameters"].tolist() == [2 * C * (C // r), C * C // g, k]
    assert table["multiply_adds"].tolist() == [2 * C * (C // r), C * C // g, k * C]
    assert table.loc["SE", "rank"] <= C // r
    assert table.loc["SE-GC", "bandwidth"] <= C // g - 1
    assert table.loc["ECA", "bandwidth"] == k // 2
    words = re.sub(r"\s+", " ", Markup(panel._readout.value.replace("<", " <")).striptags())
    for shown in (f"= {C // r} hidden", f"= {2 * C * (C // r):,} parameters", f"k // 2 = {k // 2}"):
        assert shown in words
    assert f" rank {' '.join(map(str, table['rank']))} " in words


@pytest.mark.parametrize("channels", [8, 9, 97, 500, 512])
def test_the_corners_of_the_state(panel, channels):
    panel.channels = channels
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    for r, k, g in itertools.product(
        (1, channels), (1, channels - 1 + channels % 2), (divisors[0], divisors[-1])
    ):
        panel.reduction, panel.kernel_size, panel.groups = r, k, g
        check(panel)


def test_narrower_layers_lower_what_no_longer_fits(panel):
    panel.kernel_size, panel.groups = 31, 32
    panel.channels = 24
    assert (panel.reduction, panel.kernel_size, panel.groups) == (16, 23, 24)
    assert "Lowered to fit C = 24: kernel_size to 23, groups to 24" in panel._status.value
    panel.channels = 10
    assert (panel.reduction, panel.kernel_size, panel.groups) == (10, 9, 10)
    panel.channels = 64
    assert (panel.reduction, panel.kernel_size, panel.groups) == (10, 9, 8)
    assert "Lowered to fit C = 64: groups to 8<" in panel._status.value
    panel.kernel_size = 5
    assert panel._status.value == ""
    with pytest.raises(ValueError, match="reduction=16: accepted is an integer from 1 to 8"):
        ReductionExplorer(channels=8, reduction=16)  # the constructor lowers nothing


def test_another_seed_draws_other_weights_and_leaves_other_random_numbers_alone(panel, drawings):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    panel.seed = 77
    assert torch.equal(torch.rand(3), expected)
    panel.seed = 0
    first, other, again = (drawn["matrices"] for drawn in drawings)
    for matrices in zip(first, other, again, strict=True):
        assert not np.array_equal(matrices[0], matrices[1])
        assert np.array_equal(matrices[0], matrices[2])


def test_the_picture_is_drawn_from_the_state(panel, drawings):
    panel.channels = 32
    numbers = drawings[-1]
    for matrix, rank, spectrum in zip(
        numbers["matrices"], numbers["ranks"], numbers["spectra"], strict=True
    ):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert np.allclose(spectrum, values / values[0], atol=1e-5)
        assert rank == np.sum(values > 1e-5 * values[0])
    assert numbers["ranks"] == panel.measures["rank"].tolist()
    assert all(isinstance(rank, int) for rank in numbers["ranks"])
    assert numbers["parameters"] == panel.measures["parameters"].tolist()


def test_the_picture_shows_the_numbers_it_is_given():
    picture, rng = ReductionPicture(512), np.random.default_rng(0)
    matrices = [rng.normal(size=(8, 8)), np.zeros((8, 8)), np.eye(8)]
    spectra = [np.linspace(1, end, 8) for end in (0, 0.1, 0.5)]
    picture.png(matrices=matrices, ranks=[2, 0, 8], spectra=spectra, parameters=[512, 256, 3])
    for image, matrix in zip(picture.matrices, matrices, strict=True):
        assert np.allclose(image.get_array(), matrix / (np.abs(matrix).max() or 1))
    captions = [text.get_text() for text in picture.captions]
    assert captions == ["8 × 8, rank 2", "8 × 8, rank 0", "8 × 8, rank 8"]
    for line, values in zip(picture.lines, spectra, strict=True):
        assert line.get_xydata().tolist() == [[n + 1, value] for n, value in enumerate(values)]
    assert [bar.get_x() + bar.get_width() for bar in picture.bars] == [512, 256, 3]
    assert [text.get_text() for text in picture.numbers] == ["512", "256", "3"]


def test_trained_layers(drawings):
    trained = layers()
    panel = ReductionExplorer(trained=trained)
    assert panel._state == DEFAULTS
    panel.weights = "layer1"
    sizes = {"channels": 16, "reduction": 4, "kernel_size": 3, "groups": 16}
    assert panel._state == {**sizes, "seed": 0, "weights": "layer1"}
    se, _, eca = drawings[-1]["matrices"]
    module, y = trained["layer1"]["se"], trained["layer1"]["y"]
    w1, w2 = module.fc1.weight.detach(), module.fc2.weight.detach()
    expected = w2 @ torch.diag((w1 @ y > 0).float()) @ w1
    assert np.allclose(se, expected, atol=1e-6)
    assert np.allclose(eca, trained["layer1"]["eca"].interaction_matrix())

    # Random weights of the same sizes, to compare with.
    panel.weights = "random"
    assert panel._state == {**DEFAULTS, **sizes}
    assert not np.allclose(drawings[-1]["matrices"][2], eca)
    check(panel)

    panel.weights = "layer3"
    assert (panel.channels, panel.reduction, panel.kernel_size, panel.groups) == (96, 8, 5, 12)
    gc = trained["layer3"]["se_gc"].interaction_matrix()
    assert np.allclose(drawings[-1]["matrices"][1], gc)
    assert panel.measures.loc["ECA", "spec"] == "eca(k=5, order=shuffled)"

    panel.kernel_size = 3  # a size that is that of no trained layer
    assert panel.weights == "random"
    check(panel)


def test_starting_with_a_trained_layer(drawings):
    panel = ReductionExplorer(weights="layer1", trained=layers())
    assert (panel.channels, panel.reduction, panel.kernel_size) == (16, 4, 3)
    assert repr(panel) == "ReductionExplorer(groups=16, weights='layer1', trained=trained)"
    panel.weights = "layer3"
    assert repr(panel) == "ReductionExplorer(weights='layer3', trained=trained)"
    assert eval(repr(panel), globals() | {"trained": layers()})._state == panel._state
    panel.channels = 64
    assert panel.weights == "random"
    with pytest.raises(ValueError, match="reduction=2 with weights='layer1': accepted is 4"):
        ReductionExplorer(reduction=2, weights="layer1", trained=layers())


def test_trained_layers_that_are_refused(drawings):
    good = {"se": SE(16, 4), "eca": ECA(16, 3)}
    refused = [
        ({**good, "se": SE(32, 4)}, ValueError, r"trained\['layer'\] has widths .*: accepted is"),
        ({**good, "y": torch.zeros(3)}, ValueError, "accepted is one number of channels"),
        ({**good, "se": CBAM(16, 4)}, TypeError, "is a CBAM: accepted is SE"),
        ({**good, "eca": SE(16, 4)}, TypeError, r"\['eca'\] is a SE: accepted is ECA"),
        ({**good, "cbam": CBAM(16, 4)}, ValueError, "holds se, eca, cbam: accepted are se and eca"),
        ({"se": SE(4, 4), "eca": ECA(4, 3)}, ValueError, "channels=4: accepted is an integer from"),
        ({"se": SE(16, 4)}, ValueError, "holds se: accepted are se and eca"),
    ]
    for modules, error, message in refused:
        with pytest.raises(error, match=message):
            ReductionExplorer(trained={"layer": modules})
    with pytest.raises(ValueError, match=r"trained\['random'\]: accepted is any other name"):
        ReductionExplorer(trained={"random": good})
