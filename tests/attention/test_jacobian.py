import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats
from torch.autograd.functional import jacobian

from eca_lab.attention.jacobian import (
    bandwidth,
    diagonal_share,
    effective_rank,
    logit_jacobian,
    measure,
    rank,
    weight_jacobian,
)
from eca_lab.attention.modules import ECA, ECANS, SE, SEGroup, make_attention

SPECS = [
    "static",
    "se_var1",
    "se_var2",
    "se_var3",
    "se_gc(groups=4)",
    "eca_ns(k=3)",
    "eca(k=5)",
    "eca(k=5, padding=circular)",
    "eca(k=5, order=shuffled)",
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def seeded(seed, make, *args, **kwargs):
    torch.manual_seed(seed)
    return make(*args, **kwargs).double()


def descriptors(channels, n=3):
    return torch.randn(n, channels, dtype=torch.float64)


def spectra(matrices):
    return torch.linalg.svdvals(matrices)


widths = st.integers(1, 40)
seeds = st.integers(0, 2**31)
quick = settings(deadline=None, max_examples=60)


@quick
@given(widths, st.data(), seeds)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_of_se_never_exceeds_its_hidden_units(dtype, channels, data, seed):
    reduction = data.draw(st.integers(1, channels))
    module = seeded(seed, SE, channels, reduction).to(dtype)
    y = descriptors(channels).to(dtype)
    on = (module.fc1(y) > 0).sum(1)
    for matrices in (logit_jacobian(module, y), weight_jacobian(module, y)):
        ranks = rank(spectra(matrices))
        assert (ranks <= on).all()
        assert (ranks <= channels // reduction).all()


def test_rank_of_se_reaches_its_hidden_units_where_all_are_on():
    module = SE(64, 8).double()
    torch.nn.init.uniform_(module.fc1.weight, 0, 1)
    assert rank(spectra(weight_jacobian(module, descriptors(64).abs()))).tolist() == [8] * 3


@quick
@given(widths, st.integers(0, 12), st.booleans(), seeds)
def test_eca_is_zero_outside_its_band(channels, half, shuffled, seed):
    half = min(half, (channels - 1) // 2)
    order = "shuffled" if shuffled else "identity"
    module = seeded(seed, ECA, channels, 2 * half + 1, order=order)
    matrices = weight_jacobian(module, descriptors(channels))
    if shuffled:
        matrices = matrices[:, module.permutation][:, :, module.permutation]
    index = torch.arange(channels)
    outside = (index[:, None] - index).abs() > half
    assert (matrices[:, outside] == 0).all()
    assert (bandwidth(matrices) <= half).all()


@quick
@given(widths, st.integers(0, 12), seeds)
def test_eca_ns_is_zero_outside_its_band(channels, half, seed):
    half = min(half, (channels - 1) // 2)
    module = seeded(seed, ECANS, channels, 2 * half + 1)
    assert (bandwidth(weight_jacobian(module, descriptors(channels))) <= half).all()


@quick
@given(st.integers(1, 8), st.integers(1, 6), seeds)
def test_se_gc_is_zero_outside_its_blocks(groups, width, seed):
    module = seeded(seed, SEGroup, groups * width, groups)
    matrices = weight_jacobian(module, descriptors(groups * width))
    group = torch.arange(groups * width) // width
    outside = group[:, None] != group
    assert (matrices[:, outside] == 0).all()
    drawn = module.interaction_matrix() != 0  # once in 16 million draws a weight is 0
    assert ((matrices != 0) == drawn).all()


# A kernel whose middle weight is larger than the others together makes the band diagonally
# dominant, and so invertible, by Gershgorin's theorem.
@quick
@given(st.integers(3, 40), seeds)
def test_a_dominant_band_has_full_rank(channels, seed):
    module = seeded(seed, ECA, channels, 3)
    left, _, right = module.conv.weight.detach().flatten()
    module.conv.weight.data[0, 0, 1] = left.abs() + right.abs() + 0.1
    assert (rank(spectra(logit_jacobian(module, descriptors(channels)))) == channels).all()


@pytest.mark.parametrize("spec", SPECS)
def test_linear_modules_have_their_closed_form(spec):
    module = make_attention(spec, 24).double()
    y = descriptors(24, 5)
    matrix = module.interaction_matrix().to(y)
    torch.testing.assert_close(logit_jacobian(module, y), matrix.expand(5, 24, 24))
    s = torch.sigmoid(y @ matrix.T)
    expected = (s * (1 - s))[:, :, None] * matrix
    torch.testing.assert_close(weight_jacobian(module, y), expected)


@pytest.mark.parametrize("spec", ["se(r=4)", "cbam(r=4)"])
def test_se_is_w2_d_w1(spec):
    module = make_attention(spec, 24).double()
    y = descriptors(24, 5)
    w1, w2 = module.fc1.weight.detach(), module.fc2.weight.detach()
    for each, logits, weights in zip(
        y, logit_jacobian(module, y), weight_jacobian(module, y), strict=True
    ):
        expected = w2 @ torch.diag((w1 @ each > 0).double()) @ w1
        torch.testing.assert_close(logits, expected)
        s = torch.sigmoid(module.score(each[None])[0]).detach()
        torch.testing.assert_close(weights, torch.diag(s * (1 - s)) @ expected)


@pytest.mark.parametrize("spec", [*SPECS, "se(r=4)", "cbam(r=4)"])
def test_jacobians_are_those_of_torch(spec):
    module = make_attention(spec, 24).double()
    y = descriptors(24)
    logits = torch.stack([jacobian(lambda v: module.score(v[None])[0], each) for each in y])
    torch.testing.assert_close(logit_jacobian(module, y), logits)
    weights = torch.stack(
        [jacobian(lambda v: module.score(v[None])[0].sigmoid(), each) for each in y]
    )
    torch.testing.assert_close(weight_jacobian(module, y), weights)


@pytest.mark.parametrize("spec", [*SPECS, "se(r=4)"])
def test_jacobians_predict_small_changes(spec):
    module = make_attention(spec, 24).double()
    y, step = descriptors(24), 1e-6 * descriptors(24)
    change = torch.sigmoid(module.score(y + step)) - torch.sigmoid(module.score(y - step))
    matrices = weight_jacobian(module, y)
    assert not matrices.requires_grad
    predicted = 2 * (matrices @ step[:, :, None])[:, :, 0]
    torch.testing.assert_close(change.detach(), predicted, rtol=1e-6, atol=1e-12)


def test_descriptors_that_do_not_fit():
    module = make_attention("eca", 24)
    for shape in ((24,), (2, 23), (2, 24, 1)):
        with pytest.raises(ValueError, match=r"y of shape \(.*\): accepted is \(N, 24\)"):
            logit_jacobian(module, torch.zeros(shape))


def test_rank_counts_up_to_the_tolerance():
    given_rank = rank(torch.tensor([[3.0, 1.0, 1e-4, 1e-6], [1e-9, 1e-10, 0, 0], [0, 0, 0, 0]]))
    assert given_rank.tolist() == [3, 2, 0]


def test_rank_of_products_is_that_of_numpy():
    matrices = torch.stack(
        [torch.randn(20, r).double() @ torch.randn(r, 20).double() for r in (1, 5, 19)]
    )
    expected = [np.linalg.matrix_rank(each) for each in matrices.numpy()]
    assert rank(spectra(matrices)).tolist() == expected == [1, 5, 19]


# The smallest singular value of a kernel (1, 0.3, 0.1) falls with the width, though the determinant
# of its matrix is never zero.
def test_a_band_of_full_rank_can_be_numerically_singular():
    smallest = []
    for channels in (8, 16, 32):
        module = ECA(channels, 3).double()
        module.conv.weight.data[:] = torch.tensor([1.0, 0.3, 0.1])
        smallest.append(torch.linalg.svdvals(module.interaction_matrix())[-1].item())
    assert smallest[1] / smallest[0] < 0.1
    assert smallest[2] / smallest[1] < 0.01
    assert rank(spectra(module.interaction_matrix())) == 31


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 1, 1], 4),
        ([5, 0, 0, 0], 1),
        ([2, 2, 0, 0], 2),
        ([0.5, 0.25, 0.25, 0], 2**1.5),  # the entropy is one and a half bits
    ],
)
def test_effective_rank(values, expected):
    found = effective_rank(torch.tensor(values, dtype=torch.float64)).item()
    assert found == pytest.approx(expected)
    assert found == pytest.approx(np.exp(stats.entropy(values)))


@quick
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12))
def test_effective_rank_lies_between_one_and_all(values):
    values = torch.tensor(values, dtype=torch.float64)
    found = effective_rank(values).item()
    assert 1 - 1e-9 <= found <= len(values) * (1 + 1e-9)
    assert found == pytest.approx(np.exp(stats.entropy(values)))
    assert effective_rank(7 * values).item() == pytest.approx(found)


def test_measures_of_matrices_that_can_be_checked_by_hand():
    matrices = torch.zeros(4, 3, 3)
    matrices[0] = torch.eye(3)
    matrices[1] = 1  # everything alike
    matrices[2, 2, 0] = 2  # one entry, two off the diagonal
    matrices[3] = torch.tensor([[3.0, 4, 0], [0, 0, 0], [0, 0, 0]])
    assert diagonal_share(matrices).tolist() == pytest.approx([1, 1 / 3, 0, 9 / 25])
    assert bandwidth(matrices).tolist() == [0, 2, 2, 1]
    table = measure(matrices)
    assert table["rank"].tolist() == [3, 1, 1, 1]
    assert table["effective_rank"].tolist() == pytest.approx([3, 1, 1, 1], rel=1e-4)
    assert table["diagonal_share"].tolist() == pytest.approx([1, 1 / 3, 0, 9 / 25])
    assert table["bandwidth"].tolist() == [0, 2, 2, 1]
    assert table["sensitivity"].tolist() == pytest.approx([1, math.sqrt(3), 2 / 3, 7 / 3])


@quick
@given(st.integers(2, 12), st.integers(0, 11), st.integers(0, 11), seeds)
def test_bandwidth_is_the_larger_of_those_of_scipy(channels, below, above, seed):
    torch.manual_seed(seed)
    matrix = torch.rand(channels, channels).add(0.1).triu(-below).tril(above)
    assert bandwidth(matrix) == max(linalg.bandwidth(matrix.numpy()))


def test_measures_of_zeros():
    row = measure(torch.zeros(1, 3, 3)).iloc[0]
    assert (row["rank"], row["bandwidth"], row["sensitivity"]) == (0, 0, 0)
    assert math.isnan(row["effective_rank"])
    assert math.isnan(row["diagonal_share"])
