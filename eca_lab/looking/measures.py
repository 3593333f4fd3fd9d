"""What recorded channel weights tell: how much they vary, with the class, and with neighbours.

Shapes: N images, C channels of a layer. Needs no torch.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from eca_lab.checks import check_integer

# The largest variance of a weight that counts as none: rounding leaves some 1e-33.
_CONSTANT = 1e-20


def class_share(weights: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Share of the variance of each channel's weight that lies between the classes.

    Of weights (N, C) and classes (N,), the epsilon squared of the one-way analysis of variance of N
    images in G classes, 1 - (SSW / (N - G)) / (SST / (N - 1)), with SSW and SST the sums of squares
    about the classes' means and about the mean. (C,), at most 1, and 0 in the mean for weights that
    do not depend on the class; NaN for a channel whose weight does not vary. ValueError for other
    shapes, fewer than two classes, or no more images than classes.
    """
    weights = _matrix("weights", weights)
    labels = np.asarray(labels)
    images = len(weights)
    if labels.shape != (images,):
        raise ValueError(f"labels of shape {labels.shape}: accepted is one for each of {images}")
    groups = [weights[labels == label] for label in np.unique(labels)]
    if not 2 <= len(groups) < images:
        accepted = "accepted are two or more classes, and more images"
        raise ValueError(f"{images} images in {len(groups)} classes: {accepted}")
    within = sum(len(group) * group.var(0) for group in groups) / (images - len(groups))
    total = images * weights.var(0) / (images - 1)
    return 1 - np.divide(within, total, out=np.full_like(total, np.nan), where=total > _CONSTANT)


def effective_channels(weights: ArrayLike) -> float:
    """Effective number of channels whose weight, of weights (N, C), varies from image to image.

    The participation ratio (sum_c v_c)^2 / sum_c v_c^2 of the variances v_c over the images: C if
    all vary alike, 1 if one alone varies, 0 if none does.
    """
    variances = _matrix("weights", weights).var(0)
    variances = variances[variances > _CONSTANT]
    if not len(variances):
        return 0.0
    return float(variances.sum() ** 2 / (variances**2).sum())


def own_correlation(weights: ArrayLike, descriptors: ArrayLike) -> np.ndarray:
    """Spearman's rank correlation, over the images, of each channel's weight with its own mean.

    Of weights and descriptors (N, C), as `eca_lab.looking.probe.WeightRecord` has them, gives (C,);
    0 where either does not vary. ValueError for other shapes.
    """
    weights = _matrix("weights", weights)
    means = _matrix("descriptors", descriptors)
    if weights.shape != means.shape:
        shapes = f"weights of shape {weights.shape}, descriptors of {means.shape}"
        raise ValueError(f"{shapes}: accepted are equal ones")
    ranks = pd.DataFrame(weights).rank()
    return ranks.corrwith(pd.DataFrame(means).rank()).fillna(0).to_numpy()


class NeighbourCorrelation(NamedTuple):
    """Mean correlation of neighbours, and of all pairs, which a random order has in the mean.

    95% of random orders are between low and high; p is the share of those as far from pairs.
    """

    neighbours: float
    pairs: float
    low: float
    high: float
    p: float


def neighbour_correlation(
    descriptors: ArrayLike, reach: int = 1, *, orders: int = 2000, seed: int = 0
) -> NeighbourCorrelation:
    """Are the descriptors of neighbouring channels more alike than those of any two channels?

    The measure is the mean of r_ij, Pearson's correlation over the images of the descriptors of
    channels i and j, over all pairs 0 < j - i <= reach. A two-sided permutation test compares it
    with that of random orders of the channels: p = (1 + as extreme) / (1 + orders).

    Args:
        descriptors: (N, C), N > 2, as `WeightRecord` has them; of an ECA of shuffled order, [:,
            module.permutation] of it. A channel that does not vary has r = 0 with all others.
        reach: 1 to C - 2, k // 2 for what a kernel of size k joins with its centre.
        orders: how many are drawn.
        seed: of their draw.

    Raises:
        TypeError, ValueError: naming what is not accepted.
    """
    descriptors = _matrix("descriptors", descriptors)
    images, channels = descriptors.shape
    check_integer("number of images", images, least=3)
    check_integer("reach", reach, most=channels - 2)
    check_integer("orders", orders)
    centred = descriptors - descriptors.mean(0)
    length = np.sqrt((centred**2).sum(0))
    varies = length > 1e-7 * np.abs(descriptors).max(0)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=varies)
    correlation = unit.T @ unit

    def mean_of_neighbours(order: np.ndarray) -> float:
        steps = range(1, reach + 1)
        return np.concatenate([correlation[order[:-d], order[d:]] for d in steps]).mean()

    random = np.random.default_rng(seed)
    expected = correlation[np.triu_indices(channels, 1)].mean()
    observed = mean_of_neighbours(np.arange(channels))
    drawn = np.array([mean_of_neighbours(random.permutation(channels)) for _ in range(orders)])
    extreme = np.abs(drawn - expected) >= np.abs(observed - expected)
    low, high = np.quantile(drawn, [0.025, 0.975])
    p = (1 + extreme.sum()) / (1 + orders)
    return NeighbourCorrelation(
        neighbours=float(observed),
        pairs=float(expected),
        low=float(low),
        high=float(high),
        p=float(p),
    )


def _matrix(name: str, values: ArrayLike) -> np.ndarray:
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} of shape {matrix.shape}: accepted is (N, C), neither of them 0")
    return matrix
