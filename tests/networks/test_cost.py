from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from eca_lab.attention.modules import make_attention
from eca_lab.networks import cost
from eca_lab.networks.backbones import build_model
from eca_lab.networks.cost import multiply_adds, parameters

TABLE_3 = Path(__file__).parents[2] / "data" / "paper" / "table3_backbones.csv"


@pytest.fixture(scope="module")
def table_3():
    return cost.table_3(pd.read_csv(TABLE_3))


def meta(backbone, spec="none", **kwargs):
    with torch.device("meta"):
        return build_model(backbone, spec, **kwargs)


def test_table_3_has_fourteen_rows_that_can_be_built(table_3):
    assert len(table_3) == 14
    assert table_3["arm"].value_counts().to_dict() == {
        "none": 4,
        "eca": 4,
        "se": 3,
        "cbam": 2,
        "se(r=8)": 1,
    }


def test_parameters_of_table_3_to_the_printed_digit(table_3):
    counted = [f"{each:.2f}M" for each in table_3["counted_parameters"]]
    assert counted == table_3["parameters"].tolist()


def test_flops_of_table_3(table_3):
    twelve = table_3[table_3["arm"] != "cbam"]
    assert len(twelve) == 12
    for row in twelve.itertuples():
        within = {"G": 0.011, "M": 0.1}[row.flops[-1]]
        counted, printed = round(row.counted_flops, 3), float(row.flops[:-1])
        assert counted == pytest.approx(printed, rel=0, abs=within + 1e-9), row


# The same counts, made by hooks on the layers instead of by torch's counter.
@pytest.mark.parametrize(
    ("arm", "counts"),
    [
        ("none", [3.861, 7.342, 10.829]),
        ("eca", [3.866, 7.350, 10.841]),
        ("se", [3.871, 7.359, 10.853]),
    ],
)
def test_flops_of_table_3_agree_with_another_counter(table_3, arm, counts):
    resnets = table_3.loc[["ResNet-50", "ResNet-101", "ResNet-152"]]
    found = resnets.loc[resnets["arm"] == arm, "counted_flops"]
    assert found.round(3).tolist() == counts


@pytest.mark.parametrize(("spec", "added"), [("eca(k=3-5-5-7)", 80), ("eca", 86), ("eca(k=3)", 48)])
def test_the_80_parameters_are_the_released_kernels(spec, added):
    assert parameters(meta("resnet50", spec)) - parameters(meta("resnet50")) == added


def test_multiply_adds_of_resnet50():
    # 4.09 in units of 10^9, as torchvision's documentation has it; exactly, from its layers.
    assert multiply_adds(meta("resnet50"), 224) == 4_089_184_256


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("se(r=8)", 2 * 64 * 8),
        ("se(r=5)", 2 * 64 * 12),
        ("se_var3", 64 * 64),
        ("se_gc(groups=16)", 64 * 64 // 16),
        ("eca(k=5)", 5 * 64),
        ("se_var1", 0),
    ],
)
def test_multiply_adds_of_a_module(spec, expected):
    assert multiply_adds(make_attention(spec, 64), 7, channels=64) == expected


def test_operators_are_found_by_their_overloads_too():
    """Torch 2.11 looks for the overload that was called, later versions for the operator."""
    assert torch.ops.aten.native_batch_norm.default in cost._PAPER
    overloads = [key for key in cost._PAPER if isinstance(key, torch._ops.OpOverload)]
    for overload in overloads:
        assert cost._PAPER[overload] is cost._PAPER[overload._overloadpacket]
    assert len({each._overloadpacket for each in overloads}) == len(cost._PAPER) - len(overloads)


# Layer by layer, for 6 x 6 images.
LAYERS = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1, bias=False),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    nn.ReLU6(inplace=True),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(8, 10),
)


@pytest.mark.parametrize("training", [True, False])
def test_both_conventions_layer_by_layer(training):
    model = LAYERS.train(training)
    convolutions = 8 * 27 * 36 + 8 * 9 * 9
    assert multiply_adds(model, 6) == convolutions + 80
    rest = 4 * 8 * 36 + 8 * 36 + 8 * 9 + 8 * 9 + 8 * 9
    assert multiply_adds(model, 6, convention="paper") == convolutions + 2 * 80 + rest


def test_counting_leaves_the_model_as_it_is():
    model = build_model("tiny", "eca(order=shuffled)", num_classes=10).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert multiply_adds(model, 32) == multiply_adds(model.eval(), 32) > 10**5
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "size=0: accepted is a positive integer"),
        ({"size": 32.0}, TypeError, r"size=32\.0"),
        ({"channels": -1}, ValueError, "channels=-1"),
        ({"convention": "fvcore"}, ValueError, "convention='fvcore': accepted are torch, paper"),
    ],
)
def test_what_cannot_be_counted(arguments, error, message):
    with pytest.raises(error, match=message):
        multiply_adds(LAYERS, **{"size": 6, **arguments})
