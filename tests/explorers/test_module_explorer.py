"""The explorer of the module in Python; what its page draws is in test_browser.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eca_lab.attention.kernel_size import adaptive_kernel_size
from eca_lab.attention.modules import ECA, SE
from eca_lab.explorers import ModuleExplorer
from eca_lab.explorers.module import CHANNELS, FC1, FC2, REDUCTION
from eca_lab.networks.cost import parameters

IN_ORDER = tuple(range(1, CHANNELS + 1))


def torch_weights(explorer):
    """The weights of the modules of torch with the explorer's parameters: of ECA, of SE."""
    eca = ECA(CHANNELS, len(explorer.kernel), order="shuffled").double()
    eca.conv.weight.data[:] = torch.tensor(explorer.kernel)
    eca.permutation = torch.tensor(explorer.order) - 1
    eca.inverse = eca.permutation.argsort()
    se = SE(CHANNELS, REDUCTION).double()
    se.fc1.weight.data, se.fc2.weight.data = torch.tensor(FC1), torch.tensor(FC2)
    averages = torch.tensor([explorer.averages], dtype=torch.double)
    with torch.no_grad():
        return [module.gate(module.score(averages))[0].numpy() for module in (eca, se)]


averages = st.lists(st.floats(0, 2), min_size=CHANNELS, max_size=CHANNELS)
kernels = st.sampled_from(ModuleExplorer.KERNEL_SIZES).flatmap(
    lambda k: st.lists(st.floats(-2, 2), min_size=k, max_size=k)
)


@given(averages, kernels, st.permutations(IN_ORDER))
def test_the_weights_are_those_of_the_modules(averages, kernel, order):
    explorer = ModuleExplorer(averages, kernel, order=order)
    eca, se = torch_weights(explorer)
    np.testing.assert_allclose(explorer.table["eca"], eca, rtol=1e-6)  # conv.weight was a float32
    np.testing.assert_allclose(explorer.table["se"], se, rtol=1e-12)
    assert explorer.table["average"].tolist() == averages


def test_state_and_what_it_says():
    explorer = ModuleExplorer()
    assert repr(explorer) == "ModuleExplorer(kernel=(-0.5, 1.5, -0.5))"
    assert explorer.table.index.tolist() == list(IN_ORDER)
    # sigmoid(-0.5 x 0.2 + 1.5 x 1.2 - 0.5 x 0.85)
    assert explorer.table.loc[7, "eca"] == pytest.approx(1 / (1 + np.exp(-1.275)))
    assert explorer._result() == "channel 7: ECA 0.78, SE 0.34"
    explorer.averages = np.full(CHANNELS, 0.5)
    explorer.kernel = [2]
    assert (explorer.averages, explorer.kernel) == (CHANNELS * (0.5,), (2,))
    assert repr(explorer) == f"ModuleExplorer(averages={CHANNELS * (0.5,)}, kernel=(2,))"
    assert explorer.table["eca"].tolist() == pytest.approx(CHANNELS * [1 / (1 + np.exp(-1))])


def test_its_parameters_are_as_many_as_those_of_the_modules():
    explorer = ModuleExplorer()
    assert len(explorer.kernel) == adaptive_kernel_size(CHANNELS) == explorer.given["adaptive"]
    assert parameters(ECA(CHANNELS)) == len(explorer.kernel)
    assert parameters(SE(CHANNELS, REDUCTION)) == FC1.size + FC2.size == 144


@pytest.mark.parametrize("k", ModuleExplorer.KERNEL_SIZES)
def test_an_average_reaches_its_neighbours_in_eca_and_all_channels_in_se(k):
    explorer = ModuleExplorer(kernel=k * (0.4,))
    for channel in IN_ORDER:
        explorer.channel = channel
        near = [c for c in IN_ORDER if abs(c - channel) <= k // 2]
        assert explorer.reach == {"eca": len(near), "se": CHANNELS}
    explorer.averages = CHANNELS * (2,)  # which can only go down
    assert explorer.reach == {"eca": k // 2 + 1, "se": CHANNELS}
    explorer.kernel = k * (0,)
    assert explorer.reach["eca"] == 0


def test_presets_show_what_they_say():
    explorer = ModuleExplorer()
    first = explorer.table
    one, ends, shuffled = explorer.PRESETS.values()

    explorer.set_state(one)
    sums = explorer.kernel[0] * explorer.table["average"]
    np.testing.assert_allclose(explorer.table["eca"], 1 / (1 + np.exp(-sums)))

    explorer.set_state(ends)
    weights = explorer.table["eca"].round(9).tolist()
    assert weights == weights[::-1]
    assert weights[0] < weights[1] < weights[2]
    assert set(weights[2:-2]) == {weights[2]}

    explorer.set_state(explorer.given["initial"])
    explorer.set_state(shuffled)
    assert (explorer.table["eca"] != first["eca"]).all()
    assert explorer.table["se"].tolist() == first["se"].tolist()
    explorer.kernel = (1.5,)  # without neighbours an order is nothing
    alone = explorer.table
    explorer.order = IN_ORDER
    assert explorer.table.equals(alone)


def test_wrong_lists_are_named_with_what_is_accepted():
    explorer = ModuleExplorer()
    numbers = "24 finite numbers from 0 to 2"
    weights = "1 or 3 or 5 or 7 or 9 finite numbers from -2 to 2"
    for name, value, shown, accepted in (
        ("averages", [1, 2], r"\[1, 2\]", f"accepted are {numbers}"),
        ("averages", {"a": 1}, "{'a': 1}", f"accepted are {numbers}"),
        ("kernel", (1, 1), r"\(1, 1\)", f"accepted are {weights}"),
        ("kernel", "1", "'1'", f"accepted are {weights}"),
        ("kernel", [10**400], ".*", f"accepted are {weights}"),
        ("kernel", [[1]], r"\[\[1\]\]", f"accepted are {weights}"),
        ("order", IN_ORDER[1:], ".*", "accepted is each of 1 to 24 once"),
    ):
        with pytest.raises(ValueError, match=f"^{name}={shown}: {accepted}$"):
            setattr(explorer, name, value)
    assert explorer._state() == explorer.given["initial"]


def test_the_figure_draws_the_state():
    explorer = ModuleExplorer(order=IN_ORDER[::-1], channel=3)
    for ax, name in zip(explorer._figure().axes, ("eca", "average", "se"), strict=True):
        assert [bar.get_height() for bar in ax.containers[0]] == pytest.approx(
            explorer.table[name].tolist()[::-1]
        )
        assert [tick.get_text() for tick in ax.get_xticklabels()] == [*map(str, IN_ORDER[::-1])]
