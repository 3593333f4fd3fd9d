"""Kernel size of an ECA module from its number of channels: psi and phi of the paper.

Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
CVPR 2020, arXiv:1910.03151, Section 3.2.3: C is the number of channels, k the kernel size of the
1-D convolution over them, t = (log2(C) + b) / gamma what psi rounds. Needs no torch.
"""

import math
from bisect import bisect_left, bisect_right
from fractions import Fraction
from functools import partial

from eca_lab.attention.architectures import ARCHITECTURES
from eca_lab.checks import check_choice, check_integer, check_number, shown

TIES = ("up", "down")
GAMMA, B = 2, 1  # the paper's


def adaptive_kernel_size(
    channels: int, *, gamma: float = GAMMA, b: float = B, ties: str = "up"
) -> int:
    """Kernel size for a number of channels: k = psi(C) = |log2(C)/gamma + b/gamma|_odd.

    |t|_odd is the odd integer nearest to t. Equation 12 leaves open what happens where t is an
    even integer, midway between two, as at C = 128 and C = 2048 with gamma = 2 and b = 1. Ties can
    only fall on powers of two, where t is exact.

    >>> [adaptive_kernel_size(channels) for channels in (64, 128, 256, 2048)]
    [3, 5, 5, 7]
    >>> adaptive_kernel_size(128, ties="down")
    3

    Args:
        channels: C, at least 1.
        gamma: 0.001 to 1000, as the decimal that it is written as.
        b: -1000 to 1000, likewise.
        ties: "up", as in the code of Figure 3, or "down".

    Raises:
        TypeError, ValueError: naming the argument that is not accepted.
    """
    check_integer("channels", channels)
    check_mapping(gamma, b)
    check_choice("ties", ties, TIES)
    t = abs(rounding_argument(channels, gamma=gamma, b=b))
    k = 2 * math.floor(t / 2) + 1  # of a tie, t = k - 1, the upper one
    # At t = 0 the candidates are 1 and -1, and a kernel size is positive.
    return k - 2 if ties == "down" and t == k - 1 > 0 else k


def rounding_argument(channels: int, *, gamma: float = GAMMA, b: float = B) -> Fraction | float:
    """t = (log2(C) + b) / gamma, which psi rounds to the nearest odd integer.

    A Fraction, exact, where C is a power of two; a float elsewhere, where t is irrational and so
    no tie. The arguments are not checked.

    >>> rounding_argument(128)
    Fraction(4, 1)
    """
    channels = int(channels)
    exponent = channels.bit_length() - 1
    if channels == 1 << exponent:
        return (exponent + _decimal(b)) / _decimal(gamma)
    return (math.log2(channels) + float(b)) / float(gamma)


def channels_for_kernel_size(k: int, *, gamma: float = GAMMA, b: float = B) -> float:
    """Number of channels that belongs to a kernel size: C = phi(k) = 2^(gamma * k - b).

    Equation 11, the inverse of t. Errors as for `adaptive_kernel_size`, and from 2^1024 channels.

    >>> channels_for_kernel_size(5)
    512.0
    """
    check_kernel_size(k)
    check_mapping(gamma, b)
    exponent = _decimal(gamma) * int(k) - _decimal(b)
    if exponent >= 1024:
        raise ValueError(f"kernel_size={k}: accepted are those of fewer than 2^1024 channels")
    return 2.0 ** float(exponent)


def channel_interval(k: int, *, gamma: float = GAMMA, b: float = B) -> tuple[int, int]:
    """Half-open interval (start, stop) of the integers C that psi, ties up, maps to k; maybe empty.

    Those with 2^(gamma (k - 1) - b) <= C < 2^(gamma (k + 1) - b), from Equation 12. With a negative
    b, its absolute value also maps some C < 2^(-b) to k, where log2(C) + b < 0: they are no part of
    the interval. Errors as for `adaptive_kernel_size`, and beyond 2^60 channels.

    >>> channel_interval(5)
    (128, 2048)
    """
    check_kernel_size(k)
    check_mapping(gamma, b)
    psi = partial(adaptive_kernel_size, gamma=gamma, b=b)
    # From 2^(-b) channels on, psi never falls.
    if b < -60 or psi(2**60) <= k:
        raise ValueError(f"kernel_size={k}: accepted are those of fewer than 2^60 channels")
    channels = range(2**60)
    first = max(1, math.ceil(2.0**-b))
    start = bisect_left(channels, k, lo=first, key=psi)
    return start, bisect_right(channels, k, lo=first, key=psi)


# The networks whose kernel sizes were released -> their names in the paper.
NETWORKS = {name: found.label for name, found in ARCHITECTURES.items() if found.label is not None}


def stage_channels(network: str) -> tuple[int, ...]:
    """Output channels of each stage of one of `NETWORKS`.

    >>> stage_channels("resnet50")
    (256, 512, 1024, 2048)
    """
    check_choice("network", network, NETWORKS)
    return ARCHITECTURES[network].channels


def released_kernel_sizes(network: str) -> tuple[int, ...]:
    """Kernel size per stage as the authors released it, which is not by Equation 12.

    >>> released_kernel_sizes("resnet50")
    (3, 5, 5, 7)
    """
    check_choice("network", network, NETWORKS)
    return ARCHITECTURES[network].released


def check_kernel_size(k: int, channels: int | None = None) -> None:
    """Raise unless k is a positive odd integer, at most channels: else a tap sees padding alone."""
    check_integer("kernel_size", k)
    if k % 2 == 0:
        raise ValueError(f"kernel_size={shown(k)}: accepted are odd integers, 1, 3, 5, ...")
    if channels is not None and k > channels:
        raise ValueError(f"kernel_size={shown(k)}: accepted are at most channels={channels}")


def check_mapping(gamma: float, b: float) -> None:
    """Raise unless gamma and b are within what gives kernel sizes that can be written down."""
    check_number("gamma", gamma, least=1e-3, most=1e3)
    check_number("b", b, least=-1e3, most=1e3)


def _decimal(number: float) -> Fraction:
    """The rational number that a float is written as: 0.1 is one tenth."""
    return Fraction(str(number))
