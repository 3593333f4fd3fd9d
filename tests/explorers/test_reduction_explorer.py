"""The explorer of the reduction in Python; what its page draws is in test_browser.py."""

import itertools

import numpy as np
import pytest
import torch

from eca_lab.attention import jacobian
from eca_lab.attention.modules import CBAM, ECA, SE, make_attention
from eca_lab.explorers import ReductionExplorer
from eca_lab.networks import cost


class Unanswered(ReductionExplorer):
    """An explorer that computes nothing, for what concerns its state alone."""

    def _answer(self):
        return {}


def layers():
    torch.manual_seed(1)
    return {
        "layer1": {"se": SE(16, 4), "eca": ECA(16, 3), "y": torch.randn(16)},
        "layer3": {"se": SE(96, 8), "eca": ECA(96, 5, order="shuffled"), "y": torch.randn(96)},
    }


def matrices(explorer):
    """The three matrices as the page gets them, in their own units."""
    C = explorer.channels
    for module in explorer.answer["modules"]:
        steps = np.frombuffer(module["matrix"], np.int16).reshape(C, C)
        yield steps, steps / (2**15 - 1) * module["largest"]


def test_narrower_layers_lower_what_no_longer_fits():
    explorer = Unanswered(kernel_size=31, groups=32)
    for channels, *lowered in ((24, 16, 23, 24), (10, 10, 9, 10), (64, 10, 9, 8), (9, 9, 9, 3)):
        explorer.channels = channels
        assert [explorer.reduction, explorer.kernel_size, explorer.groups] == lowered
    explorer.set_state({"channels": 8, "reduction": 2, "kernel_size": 7, "groups": 2})
    assert repr(explorer) == "Unanswered(channels=8, reduction=2, kernel_size=7, groups=2)"
    with pytest.raises(ValueError, match="reduction=16: accepted is an integer from 1 to 8"):
        ReductionExplorer(channels=8)  # the constructor lowers nothing


@pytest.mark.parametrize("channels", [8, 97, 128])
def test_the_answer_is_what_the_modules_say_at_the_corners_of_the_state(channels):
    explorer = ReductionExplorer(seed=3)
    explorer.channels = channels
    for r, k, g in itertools.product(
        (1, channels), (1, channels - 1 + channels % 2), (1, channels)
    ):
        explorer.set_state({"reduction": r, "kernel_size": k, "groups": g})
        assert explorer.answer["asked"] == explorer._state()
        y = torch.randn(1, channels, generator=torch.Generator().manual_seed(3))
        specs = f"se(r={r})", f"se_gc(groups={g})", f"eca(k={k})"
        told = zip(specs, explorer.answer["modules"], matrices(explorer), strict=True)
        for spec, answer, (steps, matrix) in told:
            torch.manual_seed(3)
            module = make_attention(spec, channels)
            expected = jacobian.logit_jacobian(module, y)
            size = expected.abs().max().item()
            assert np.abs(matrix - expected[0].numpy()).max() <= 1e-4 * size
            near = expected[0].abs() > jacobian.TOLERANCE * size
            assert np.mean((steps != 0) == near.numpy()) > 0.999  # but for the last bit
            values = torch.linalg.svdvals(expected[0]).numpy()
            shares = np.frombuffer(answer["spectrum"], np.float32)
            assert np.allclose(shares, values / (values[0] or 1), atol=1e-5)
            (measures,) = jacobian.measure(expected).to_dict("records")
            for name in ("rank", "effective_rank", "diagonal_share", "bandwidth"):
                if answer["measures"][name] is None:
                    assert size == 0
                else:
                    assert answer["measures"][name] == pytest.approx(measures[name], rel=1e-3)
            assert answer["measures"]["parameters"] == cost.parameters(module)
            assert answer["measures"]["multiply_adds"] == cost.multiply_adds(
                module, 1, channels=channels
            )
    assert explorer.table["rank"].index.tolist() == ["SE", "SE-GC", "ECA"]


def test_another_seed_draws_other_weights_and_leaves_other_random_numbers_alone():
    explorer = ReductionExplorer()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = explorer.answer
    explorer.seed = 77
    assert torch.equal(torch.rand(3), expected)
    for one, other in zip(first["modules"], explorer.answer["modules"], strict=True):
        assert one["matrix"] != other["matrix"]
    explorer.seed = 0
    assert explorer.answer == first


def test_trained_layers():
    trained = layers()
    explorer = ReductionExplorer(trained=trained)
    assert explorer.weights == "random"
    explorer.weights = "layer1"
    sizes = {"channels": 16, "reduction": 4, "kernel_size": 3, "groups": 16}
    assert explorer._state() == {**sizes, "seed": 0, "weights": "layer1"}
    (_, se), _, (_, eca) = matrices(explorer)
    module, y = trained["layer1"]["se"], trained["layer1"]["y"]
    w1, w2 = module.fc1.weight.detach(), module.fc2.weight.detach()
    assert np.allclose(se, w2 @ torch.diag((w1 @ y > 0).float()) @ w1, atol=1e-4)
    assert np.allclose(eca, trained["layer1"]["eca"].interaction_matrix(), atol=1e-4)
    explorer.groups = explorer.seed = 2  # of SE-GC alone
    assert explorer.weights == "layer1"

    # Random weights of the same sizes, to compare with.
    explorer.weights = "random"
    assert explorer._state() == {**sizes, "groups": 2, "seed": 2, "weights": "random"}
    assert not np.allclose(list(matrices(explorer))[2][1], eca, atol=1e-4)
    explorer.weights = "layer3"
    assert (explorer.channels, explorer.reduction, explorer.kernel_size) == (96, 8, 5)
    explorer.kernel_size = 3  # a size that is not this layer's
    assert (explorer.channels, explorer.weights) == (96, "random")

    explorer = ReductionExplorer(weights="layer3", trained=trained)
    call = "channels=96, reduction=8, kernel_size=5, groups=16, weights='layer3'"
    assert repr(explorer) == f"ReductionExplorer(trained=trained, {call})"
    again = eval(repr(explorer), globals() | {"trained": trained})
    assert (again._state(), again.answer) == (explorer._state(), explorer.answer)


def test_a_unit_that_is_always_off_leaves_no_measures_of_se():
    off = SE(8, 8)
    torch.nn.init.zeros_(off.fc1.weight)
    trained = {"off": {"se": off, "eca": ECA(8, 3), "y": torch.ones(8)}}
    measures = ReductionExplorer(weights="off", trained=trained).answer["modules"][0]["measures"]
    assert (measures["rank"], measures["effective_rank"], measures["diagonal_share"]) == (
        *(0, None, None),
    )


def test_trained_layers_that_are_refused():
    good = layers()["layer1"]
    for wrong, message in (
        ({"se": SE(32, 4)}, r"trained\['layer'\]: widths .*: accepted are \(32, 32\)"),
        ({"y": torch.zeros(3)}, r"widths of eca and y=\(16, 3\): accepted"),
        ({"se": CBAM(16, 4)}, r"types=\('CBAM', 'ECA'\): accepted are \('SE', 'ECA'\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ReductionExplorer(trained={"layer": {**good, **wrong}})


def test_what_is_recorded_for_a_page_without_a_kernel():
    explorer = ReductionExplorer(trained=layers())
    first, recorded, arrays = explorer._state(), list(explorer._recorded()), set()
    for changes in recorded:
        explorer.set_state({**first, **changes})
        for module in explorer.answer["modules"]:
            arrays |= {module["matrix"], module["spectrum"]}
    # Most arrays are those of many states: each need be kept only once.
    assert len(recorded) > 500
    assert sum(map(len, arrays)) < 3e6
    states = [{**first, **changes} for changes in recorded]
    assert all({**first, **preset} in states for preset in explorer.PRESETS.values())
    assert {state["weights"] for state in states} == {"random", "layer1", "layer3"}
    # A trained layer stays with other seeds and groups, and can be compared with random weights.
    sizes = {"channels": 96, "reduction": 8, "kernel_size": 5, "groups": 16}
    layer = {**sizes, "seed": 0, "weights": "layer3"}
    others = ({}, {"seed": 2}, {"groups": 4}, {"weights": "random"})
    assert all({**layer, **other} in states for other in others)


def test_the_figure_draws_the_matrices():
    explorer = ReductionExplorer(channels=16, reduction=1)
    ranks = explorer.table["rank"].tolist()
    assert explorer._result() == "ranks SE {}, SE-GC {}, ECA {} of 16".format(*ranks)
    for ax, (steps, _), rank in zip(
        explorer._figure().axes, matrices(explorer), ranks, strict=True
    ):
        assert np.allclose(ax.images[0].get_array(), steps / (2**15 - 1))
        assert ax.get_title("left").endswith(f", random\nrank {rank} of 16")
