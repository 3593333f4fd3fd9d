import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eca_lab.attention.kernel_size import (
    NETWORKS,
    adaptive_kernel_size,
    channel_interval,
    channels_for_kernel_size,
    check_kernel_size,
    released_kernel_sizes,
    rounding_argument,
    stage_channels,
)

PAPER = Path(__file__).parents[2] / "data" / "paper"
gammas = st.one_of(st.integers(1, 8), st.floats(0.25, 8, allow_nan=False))
offsets = st.one_of(st.integers(0, 8), st.floats(0, 8, allow_nan=False))


def figure_3(channels, gamma=2, b=1):
    """The code of the paper's Figure 3."""
    t = int(abs((math.log2(channels) + b) / gamma))
    return t if t % 2 else t + 1


def test_figure_3_is_nearest_odd_with_ties_up_for_every_c():
    borders = (2**n + near for n in range(17, 41) for near in (-1, 0, 1))
    for channels in itertools.chain(range(1, 2**16 + 1), borders):
        t = (math.log2(channels) + 1) / 2
        k = adaptive_kernel_size(channels)
        if k != 2 * math.floor(t / 2) + 1 or k != figure_3(channels):
            pytest.fail(f"C = {channels}: {k}")


@given(st.integers(1, 2**20), gammas, offsets)
def test_no_odd_integer_is_nearer(channels, gamma, b):
    t = float(rounding_argument(channels, gamma=gamma, b=b))
    k = adaptive_kernel_size(channels, gamma=gamma, b=b)
    assert k % 2 == 1
    assert k > 0
    assert abs(t - k) <= min(abs(t - k - 2), abs(t - k + 2) if k > 1 else math.inf) + 1e-9


@given(st.integers(1, 2**20), gammas, st.floats(-8, 8))
def test_tie_rules_differ_only_at_even_integers(channels, gamma, b):
    up = adaptive_kernel_size(channels, gamma=gamma, b=b)
    down = adaptive_kernel_size(channels, gamma=gamma, b=b, ties="down")
    t = abs(rounding_argument(channels, gamma=gamma, b=b))
    tie = t == int(t) and int(t) % 2 == 0 and t > 0
    assert up - down == (2 if tie else 0)


def test_ties_at_128_and_2048_alone():
    ties = [
        channels
        for channels in range(1, 2**14)
        if adaptive_kernel_size(channels) != adaptive_kernel_size(channels, ties="down")
    ]
    assert ties == [8, 128, 2048]
    assert [adaptive_kernel_size(128), adaptive_kernel_size(128, ties="down")] == [5, 3]
    assert [adaptive_kernel_size(2048), adaptive_kernel_size(2048, ties="down")] == [7, 5]


def test_decimals_are_read_as_written():
    # log2(2^2) + 0.2 = 2.2 = 2 * 1.1: a tie in decimals, and no tie in binary floats.
    assert adaptive_kernel_size(4, gamma=1.1, b=0.2) == 3
    assert adaptive_kernel_size(4, gamma=1.1, b=0.2, ties="down") == 1


def test_intervals_of_the_paper_defaults():
    assert [channel_interval(k) for k in (1, 3, 5, 7)] == [
        (1, 8),
        (8, 128),
        (128, 2048),
        (2048, 32768),
    ]


@given(st.integers(0, 6).map(lambda i: 2 * i + 1), gammas, offsets)
def test_interval_holds_exactly_the_channels_that_map_to_k(k, gamma, b):
    assume(gamma * (k + 1) - b < 60)
    start, stop = channel_interval(k, gamma=gamma, b=b)
    for channels in {start - 1, start, start + 1, (start + stop) // 2, stop - 1, stop}:
        if 1 <= channels < 2**40:  # beyond, log2 of neighbours is the same float
            maps_to_k = adaptive_kernel_size(channels, gamma=gamma, b=b) == k
            assert maps_to_k == (start <= channels < stop), channels


@given(st.floats(-1e-9, 1e-9), st.integers(1, 20))
def test_interval_next_to_a_power_of_two(excess, exponent):
    # Offsets so small that 2^(exponent + excess) is a power of two as a float.
    start, _ = channel_interval(3, gamma=1, b=2 - exponent - excess)
    if start > 1:
        assert adaptive_kernel_size(start, gamma=1, b=2 - exponent - excess) == 3


@given(st.integers(0, 15).map(lambda i: 2 * i + 1))
def test_phi_is_the_inverse_of_psi(k):
    assert channels_for_kernel_size(k) == 2.0 ** (2 * k - 1)
    assert adaptive_kernel_size(int(channels_for_kernel_size(k))) == k


def test_numpy_integers_are_integers():
    assert adaptive_kernel_size(np.int64(256)) == 5
    assert type(adaptive_kernel_size(np.int64(256))) is int


@pytest.mark.parametrize("channels", [True, 64.0])
def test_channels_of_a_wrong_type(channels):
    with pytest.raises(TypeError, match=r"channels=.*positive integer"):
        adaptive_kernel_size(channels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels=0: accepted is a positive integer"),
        ({"gamma": 0}, "gamma=0: accepted is a finite number from 0.001 to 1000"),
        ({"gamma": math.nan}, "gamma=nan: accepted is a finite number"),
        ({"gamma": 1e-310}, "gamma=1e-310"),
        ({"gamma": 10**400}, "gamma=1000.*000: accepted is"),
        ({"b": math.inf}, "b=inf: accepted is a finite number"),
        ({"ties": "even"}, "ties='even': accepted are up, down"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        adaptive_kernel_size(**{"channels": 64, **arguments})


@pytest.mark.parametrize(("name", "value"), [("gamma", "2"), ("b", True)])
def test_gamma_and_b_of_a_wrong_type(name, value):
    with pytest.raises(TypeError, match=rf"{name}=.*: accepted is a finite number"):
        adaptive_kernel_size(64, **{name: value})


@pytest.mark.parametrize("function", [channels_for_kernel_size, channel_interval])
@pytest.mark.parametrize(("k", "error"), [(4, ValueError), (-3, ValueError), (3.0, TypeError)])
def test_kernel_sizes_that_are_not_accepted(function, k, error):
    with pytest.raises(error, match=f"kernel_size={k}"):
        function(k)


@pytest.mark.parametrize(
    ("function", "most"), [(channels_for_kernel_size, "2\\^1024"), (channel_interval, "2\\^60")]
)
def test_more_channels_than_there_are(function, most):
    with pytest.raises(ValueError, match=f"kernel_size=100001: accepted are .* fewer than {most}"):
        function(100_001)


def test_kernel_larger_than_the_channels():
    check_kernel_size(5, channels=5)
    with pytest.raises(ValueError, match="kernel_size=5: accepted are at most channels=4"):
        check_kernel_size(5, channels=4)


def test_released_kernels_are_the_published_ones():
    names = {"MobileNetV2": "mobilenet_v2"}
    with open(PAPER / "released_kernels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(NETWORKS)
    for row in rows:
        label = row["network"].removeprefix("ECA-")
        network = names.get(label, label.lower().replace("-", ""))
        assert stage_channels(network) == _integers(row["block_output_channels"])
        assert released_kernel_sizes(network) == _integers(row["released_kernel_sizes"])


def test_released_kernels_do_not_follow_equation_12():
    assert _psi(stage_channels("resnet50")) == (5, 5, 5, 7)
    assert _psi((64, 128, 256, 512)) == (3, 5, 5, 5)  # resnet18's outputs, resnet50's bottlenecks
    assert released_kernel_sizes("resnet50") == (3, 5, 5, 7)
    assert released_kernel_sizes("resnet18") == (3, 5, 7, 7)
    assert _psi((16, 32, 64)) == (3, 3, 3)  # a CIFAR ResNet: adaptive k is fixed k


@pytest.mark.parametrize("function", [stage_channels, released_kernel_sizes])
def test_an_unknown_network_is_named(function):
    with pytest.raises(ValueError, match="network='vgg16': accepted are resnet18, "):
        function("vgg16")


def _psi(channels):
    return tuple(adaptive_kernel_size(each) for each in channels)


def _integers(text):
    return tuple(int(part) for part in text.split("-"))
