"""What recorded channel weights tell: how much they vary, with the class, and with neighbours.

Shapes: N images, C channels of a layer. Needs no torch.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from eca_lab.checks import check_integer

CONFIDENCE = 0.95

# The largest variance of a weight that counts as none: rounding leaves some 1e-33.
_CONSTANT = 1e-20


def class_share(weights, labels):
    """Share of the variance of each channel's weight that lies between the classes.

    Epsilon squared of the one-way analysis of variance of N images in G classes. With SSW, the sum
    of squares about the means of the classes, and SST, that about the mean of all:

        epsilon^2 = 1 - (SSW / (N - G)) / (SST / (N - 1)) = (F - 1) / (F + (N - G) / (G - 1))

    It is 0 in the mean, and so below 0 about as often as above, for weights that do not depend on
    the class, while eta^2 = 1 - SSW / SST is (G - 1) / (N - 1) in the mean.

    Arguments are weights (N, C) and the classes (N,). Gives (C,) at most 1; NaN for a channel whose
    weight does not vary. ValueError for other shapes, fewer than two classes, or no more images
    than classes.
    """
    weights, labels = _matrix("weights", weights), np.asarray(labels)
    images = len(weights)
    if labels.shape != (images,):
        raise ValueError(f"labels of shape {labels.shape}: accepted is one for each of {images}")
    groups = [weights[labels == label] for label in np.unique(labels)]
    if not 2 <= len(groups) < images:
        raise ValueError(
            f"{images} images in {len(groups)} classes: accepted are two or more classes, and more "
            "images than classes"
        )
    share = np.full(weights.shape[1], np.nan)
    varies = weights.var(0) > _CONSTANT
    if varies.any():
        with np.errstate(all="ignore"):
            f = stats.f_oneway(*(group[:, varies] for group in groups)).statistic
            share[varies] = (f - 1) / (f + (images - len(groups)) / (len(groups) - 1))
        share[varies] = np.where(np.isinf(f), 1, share[varies])
    return share


def effective_channels(weights):
    """Effective number of channels whose weight varies from image to image.

    The participation ratio of the variances v_c of the channels' weights over the images:

        (sum_c v_c)^2 / sum_c v_c^2

    C if all vary alike, 1 if one alone varies, 0 if none does. weights are (N, C).
    """
    variances = _matrix("weights", weights).var(0)
    variances = variances[variances > _CONSTANT]
    return float(variances.sum() ** 2 / (variances**2).sum()) if len(variances) else 0.0


class NeighbourCorrelation(NamedTuple):
    """Of `neighbour_correlation`.

    neighbours is the mean correlation of the pairs of neighbours, pairs that of all pairs, which a
    random order has in the mean. 95% of random orders are between low and high; p is the share of
    those that are as far from pairs as the order at hand, or farther.
    """

    neighbours: float
    pairs: float
    low: float
    high: float
    p: float


def neighbour_correlation(descriptors, reach=1, orders=2000, seed=0):
    """Are the descriptors of neighbouring channels more alike than those of any two channels?

    With r_ij, Pearson's correlation over the images of the descriptors of channels i and j, the
    measure is the mean of r_ij over all pairs 0 < j - i <= reach. It is compared with the same
    mean after the channels were put into random orders, so that the whole set of r_ij is kept:
    a permutation test, two-sided, p = (1 + as extreme) / (1 + orders).

    Args:
        descriptors: (N, C), `WeightRecord.descriptors[layer]`; for an ECA of shuffled order
            [:, module.permutation] of it. A channel that does not vary has r = 0 with all others.
        reach: how far apart neighbours may be, 1 to C - 2; k // 2 for what a kernel of size k
            joins with its centre.
        orders: how many random orders, drawn from the seed.

    Raises:
        TypeError, ValueError: descriptors that are not (N, C) with N > 2; reach or orders not a
            positive integer, or reach above C - 2.
    """
    descriptors = _matrix("descriptors", descriptors)
    images, channels = descriptors.shape
    check_integer("reach", reach)
    check_integer("orders", orders)
    if images < 3 or reach > channels - 2:
        raise ValueError(
            f"{images} images, {channels} channels, reach={reach}: accepted are three or more "
            "images, and a reach of at most the number of channels less two"
        )
    centred = descriptors - descriptors.mean(0)
    length = np.sqrt((centred**2).sum(0))
    varies = length > 1e-7 * np.abs(descriptors).max(0)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=varies)
    correlation = unit.T @ unit

    def mean_of_neighbours(order):
        steps = range(1, reach + 1)
        return np.concatenate([correlation[order[:-d], order[d:]] for d in steps]).mean()

    random = np.random.default_rng(seed)
    expected = correlation[np.triu_indices(channels, 1)].mean()
    observed = mean_of_neighbours(np.arange(channels))
    drawn = np.array([mean_of_neighbours(random.permutation(channels)) for _ in range(orders)])
    extreme = np.abs(drawn - expected) >= np.abs(observed - expected)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    p = (1 + extreme.sum()) / (1 + orders)
    return NeighbourCorrelation(*map(float, (observed, expected, low, high, p)))


def _matrix(name, values):
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} of shape {values.shape}: accepted is (N, C), neither of them 0")
    return values
