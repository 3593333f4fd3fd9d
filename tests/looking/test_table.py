import re

import pasted
import pytest
import timm
import torch
from torch import nn

import eca_lab
from eca_lab.attention.kernel_size import adaptive_kernel_size
from eca_lab.networks.backbones import build_model
from eca_lab.networks.cost import parameters


@pytest.mark.parametrize(
    "name",
    ["ecaresnet26t", "seresnet18", "mobilenetv3_small_050", "legacy_seresnet18", "eca_resnet33ts"],
)
def test_parameters_and_kernels_are_those_of_the_modules(name):
    model = timm.create_model(name)
    found = eca_lab.attention_table(model, torch.randn(2, 3, 64, 64)).table
    for site, row in found.iterrows():
        module = model.get_submodule(site)
        assert row["module"] == type(module).__name__
        assert row["parameters"] == parameters(module)
        assert row["ties_up"] == adaptive_kernel_size(row["channels"])
        assert row["ties_down"] == adaptive_kernel_size(row["channels"], ties="down")
        if name.startswith("eca"):
            assert row["kernel_size"] == module.conv.kernel_size[0]
        else:
            assert row.isna()["kernel_size"]


@pytest.mark.parametrize(
    ("spec", "k", "note"),
    [
        ("eca", [3, 3, 5, 5], "The kernel sizes are those of Equation 12 with ties up."),
        ("eca(k=3)", [3] * 4, "Adaptive in name only, .* size 3, where Equation 12 gives 3 to 5"),
        ("eca(k=3-5-5)", [3, 5, 5, 5], r"are not those of Equation 12: layer2\.attention\."),
        ("eca_ns(k=5)", [5] * 4, "Adaptive in name only"),
        ("se", None, None),
        ("cbam", None, None),
    ],
)
def test_our_own(spec, k, note):
    model = build_model("tiny", spec, num_classes=2, stem="cifar").train()
    model.conv1.weight.requires_grad_(False)
    found = eca_lab.attention_table(model, torch.randn(2, 3, 32, 32))
    assert model.training
    assert not model.conv1.weight.requires_grad
    assert model.fc.weight.requires_grad
    assert model.fc.weight.grad is None
    table = found.table
    assert [*table["channels"]] == [16, 64, 256, 256]
    assert [*table["map"]] == ["32 x 32", "16 x 16", "8 x 8", "8 x 8"]
    if k is None:
        assert table["kernel_size"].isna().all()
        assert found.notes == ()
    else:
        assert [*table["kernel_size"]] == k
        [line] = found.notes
        assert re.search(note, line)
    if spec != "cbam":  # whose spatial map has parameters of its own
        assert [*table["parameters"]] == [
            parameters(model.get_submodule(site)) for site in table.index
        ]


def test_attention_written_into_a_block():
    model = nn.Sequential(
        nn.Conv2d(12, 12, 1),
        pasted.AuthorsECA(),
        pasted.Written(pasted.twice_written),
        pasted.Written(pasted.token_gate),
    )
    found = eca_lab.attention_table(model, torch.randn(2, 12, 8, 8))
    assert [*found.table.index] == ["1", "2", "2#1"]
    assert [*found.table["parameters"]] == [3, 12 * 13, 12 * 13]  # the same layer behind both
    assert found.notes[0].startswith("The kernel sizes are those of Equation 12")
    assert "no site tells it from a fixed k" in found.notes[0]
    assert found.notes[1] == "3 is left out: whether its 64 weights are of channels cannot be told"
    assert "2#1" in str(found)
    assert "<td>Written</td>" in found._repr_html_()


def test_a_tie_and_the_release():
    model = nn.Sequential(nn.Conv2d(3, 128, 1), eca_lab.ECA(128, kernel_size=3))
    found = eca_lab.attention_table(model, torch.randn(2, 3, 4, 4))
    row = found.table.loc["1"]
    assert (row["ties_up"], row["ties_down"], row["released"]) == (5, 3, "3, 5")
    assert found.notes[0].startswith("The kernel sizes are those of Equation 12 with ties down.")


def test_networks_without_attention_are_refused():
    model = timm.create_model("resnet18")
    with pytest.raises(ValueError, match="no channel attention that could be found: looked for"):
        eca_lab.attention_table(model, torch.randn(2, 3, 64, 64))
    assert all(weight.requires_grad for weight in model.parameters())
