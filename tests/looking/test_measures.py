import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.api import OLS

from eca_lab.looking import measures


def test_class_share_is_the_one_of_the_analysis_of_variance():
    random = np.random.default_rng(0)
    labels = np.repeat([3, 8, 5], [20, 30, 15])
    weights = random.normal(size=(65, 4)) + np.outer(labels, [0, 0.5, 1, 3])
    share = measures.class_share(weights, labels)
    # Epsilon squared is the adjusted R squared of a regression on which class it is.
    classes = (labels[:, None] == [3, 5, 8]).astype(float)
    expected = [OLS(values, classes, hasconst=True).fit().rsquared_adj for values in weights.T]
    assert share == pytest.approx(expected, abs=1e-12)
    mixed = np.stack([np.full(65, 0.3), labels, weights[:, 1]], 1)
    assert np.isnan(measures.class_share(mixed, labels)[0])
    np.testing.assert_allclose(measures.class_share(mixed, labels)[1:], [1, share[1]])


def test_class_share_of_random_labels_is_zero_in_the_mean():
    random = np.random.default_rng(1)
    labels = random.integers(0, 10, 100)
    share = measures.class_share(random.normal(size=(100, 4000)), labels)
    # The F distribution gives a standard deviation of about 0.043 for one channel.
    assert abs(share.mean()) < 4 * 0.043 / math.sqrt(4000)
    assert 0.4 < (share < 0).mean() < 0.7


def test_class_share_needs_classes_and_images():
    with pytest.raises(ValueError, match="5 images in 1 classes: accepted are two or more"):
        measures.class_share(np.ones((5, 2)), np.zeros(5, int))
    with pytest.raises(ValueError, match="3 images in 3 classes"):
        measures.class_share(np.ones((3, 2)), np.arange(3))
    with pytest.raises(ValueError, match=r"labels of shape \(3,\): accepted is one for each of 5"):
        measures.class_share(np.ones((5, 2)), np.zeros(3, int))


@given(st.integers(1, 20), st.integers(0, 20), st.floats(0.01, 100))
def test_effective_channels_counts_those_that_vary_alike(varying, constant, size):
    wave = size * np.where(np.arange(10) % 2, 1.0, -1.0)
    weights = np.hstack([np.tile(wave[:, None], varying), np.full((10, constant), 0.3)])
    assert measures.effective_channels(weights) == pytest.approx(varying)


def test_effective_channels_of_unequal_variances():
    assert measures.effective_channels(np.full((5, 4), 0.3)) == 0
    weights = np.array([[1.0, 2.0], [-1.0, -2.0]])  # variances 1 and 4: 5^2 / 17
    assert measures.effective_channels(weights) == pytest.approx(25 / 17)
    with pytest.raises(ValueError, match=r"weights of shape \(3,\): accepted is \(N, C\)"):
        measures.effective_channels(np.ones(3))


def test_neighbours_of_a_random_walk_are_found():
    random = np.random.default_rng(0)
    chain = np.cumsum(random.normal(size=(300, 24)), axis=1)
    ordered = measures.neighbour_correlation(chain, orders=500)
    correlation = np.corrcoef(chain.T)
    assert ordered.neighbours == pytest.approx(np.diag(correlation, 1).mean())
    assert ordered.pairs == pytest.approx((correlation.sum() - 24) / (24 * 23))
    assert ordered.p == pytest.approx(1 / 501)
    assert ordered.low < ordered.pairs < ordered.high < ordered.neighbours
    two = measures.neighbour_correlation(chain, reach=2, orders=500)
    pairs = np.concatenate([np.diag(correlation, 1), np.diag(correlation, 2)])
    assert two.neighbours == pytest.approx(pairs.mean())
    # The same channels, shuffled: the same pairs, and neighbours like any.
    shuffled = measures.neighbour_correlation(chain[:, random.permutation(24)], orders=500)
    assert shuffled.pairs == pytest.approx(ordered.pairs)
    assert shuffled.low < shuffled.neighbours < shuffled.high


def test_p_of_the_neighbours_is_uniform_without_a_neighbourhood():
    random = np.random.default_rng(0)
    found = [
        measures.neighbour_correlation(random.normal(size=(20, 12)), orders=99, seed=seed).p
        for seed in range(300)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert min(found) >= 0.01


def test_channels_that_do_not_vary_correlate_with_none():
    chain = np.cumsum(np.random.default_rng(0).normal(size=(50, 6)), axis=1)
    dead = chain.copy()
    dead[:, 2] = 0.7
    correlation = np.corrcoef(np.delete(dead, 2, 1).T)
    found = measures.neighbour_correlation(dead, orders=10)
    kept = correlation[0, 1] + correlation[2, 3] + correlation[3, 4]
    assert found.neighbours == pytest.approx(kept / 5)
    with pytest.raises(ValueError, match="reach=5: accepted is an integer from 1 to 4"):
        measures.neighbour_correlation(chain, reach=5)
    with pytest.raises(ValueError, match="number of images=2"):
        measures.neighbour_correlation(chain[:2])


def test_own_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(40, 5)).round(1)  # with ties
    weights = -descriptors + rng.normal(size=(40, 5))
    found = measures.own_correlation(weights, descriptors)
    expected = [
        stats.spearmanr(w, d).statistic for w, d in zip(weights.T, descriptors.T, strict=True)
    ]
    assert found == pytest.approx(expected)
    weights[:, 2] = 0.5
    assert measures.own_correlation(weights, descriptors)[2] == 0
    with pytest.raises(ValueError, match=r"weights of shape \(40, 5\), descriptors of \(40, 4\)"):
        measures.own_correlation(weights, descriptors[:, :4])
