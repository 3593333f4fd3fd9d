import warnings

import pytest
import torch
import torchvision.models as vision
from torch import nn

from eca_lab.networks.attach import attach
from eca_lab.networks.places import Places

timm = pytest.importorskip("timm")
EXAMPLE = torch.zeros(2, 3, 64, 64)


def blocks(model, *kinds, where=lambda block: True):
    """How many blocks of these classes a network has."""
    return sum(type(each).__name__ in kinds and bool(where(each)) for each in model.modules())


def adds_all(*kinds):
    return lambda model: blocks(model, *kinds)


def adds_if(attribute, *kinds):
    return lambda model: blocks(model, *kinds, where=lambda block: getattr(block, attribute))


# Network -> how many residual branches its own classes say that it has, and what ends the last.
NETWORKS = {
    "resnet18": (adds_all("BasicBlock"), "layer4.1.bn2"),
    "resnet50": (adds_all("Bottleneck"), "layer4.2.bn3"),
    "wide_resnet50_2": (adds_all("Bottleneck"), "layer4.2.bn3"),
    "resnext50_32x4d": (adds_all("Bottleneck"), "layer4.2.bn3"),
    "mobilenet_v2": (adds_if("use_res_connect", "InvertedResidual"), "features.16.conv.3"),
    "mnasnet0_5": (adds_if("apply_residual", "_InvertedResidual"), "layers.12.3.layers.7"),
    "convnext_tiny": (adds_all("CNBlock"), "features.7.2.stochastic_depth"),
    "regnet_x_400mf": (adds_all("ResBottleneckBlock"), "trunk_output.block4.block4-11.f.c.1"),
    "timm/resnet10t": (adds_all("BasicBlock"), "layer4.0.bn2"),
    "timm/resnetv2_18": (adds_all("PreActBasic"), "stages.3.blocks.1.conv2"),
    "timm/efficientnet_lite0": (
        adds_if("has_skip", "InvertedResidual", "DepthwiseSeparableConv"),
        "blocks.5.3.bn3",
    ),
    "timm/convnext_atto": (adds_all("ConvNeXtBlock"), "stages.3.blocks.1.drop_path"),
    "timm/darknet53": (adds_all("DarkBlock"), "stages.4.blocks.3.conv2.bn.act"),
}


def network(name):
    """Of torchvision, without numbers where shapes are enough; or of timm."""
    if name.startswith("timm/"):
        return timm.create_model(name.removeprefix("timm/"))
    with torch.device("cpu" if "regnet" in name else "meta"):  # it copies numbers
        return getattr(vision, name)()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_ends_of_residual_branches(name):
    model = network(name)
    count, last = NETWORKS[name]
    places = Places(model, EXAMPLE)
    found = places.find()
    assert len(found) == count(model) > 0
    assert list(found)[-1] == last
    assert places.left_out == {}
    widths = {}
    for place in found:  # what the module really gives
        model.get_submodule(place).register_forward_hook(
            lambda _, __, out, place=place: widths.update({place: out.shape[1]})
        )
    model.eval()(EXAMPLE.to(next(model.parameters()).device))
    assert widths == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("densenet121", "DenseNet adds no map to a shortcut: .*denselayer16.conv2, features.norm5"),
        ("vgg11", "VGG adds no map to a shortcut: accepted is a pattern of names of modules"),
        (
            "vit_b_16",
            r"layer_0.*: it gives \(N, 197, 768\), its channels in dimension 2.* more\)",
        ),
        ("swin_t", r"attn: it gives \(N, 16, 16, 96\), its channels in dimension 3: accepted are"),
        ("timm/mixer_s32_224", "MlpMixer has no place before an addition: blocks.0.drop_path"),
        ("timm/seresnet18", r"layer1\.0\.se: .* channel attention has weighed already \(and 7 mor"),
        ("timm/nf_resnet26", "an addition in stages.0.0: the branch ends in an operation of its"),
    ],
)
def test_networks_without_such_a_place(name, message):
    size = 224 if name in ("vit_b_16", "timm/mixer_s32_224") else 64
    with pytest.raises(ValueError, match=message):
        Places(network(name), torch.zeros(1, 3, size, size)).find()


class Residual(nn.Module):
    """x plus a branch, by whichever operations the function `add` makes of the two."""

    def __init__(self, branch, add=torch.add, shortcut=None):
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut or nn.Identity()
        self.add = add

    def forward(self, x):
        return self.add(self.branch(x), self.shortcut(x))


def conv(inputs=8, outputs=8, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def two():
    return nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU(inplace=True), conv())


def projected():
    return nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))


@pytest.mark.parametrize(
    ("block", "place"),
    [
        (Residual(two()), "1.branch.3"),
        (Residual(two(), lambda branch, x: x + branch), "1.branch.3"),
        (Residual(two(), lambda branch, x: branch.add_(x).relu_()), "1.branch.3"),
        (Residual(two(), lambda branch, x: torch.add(x, branch, alpha=0.5)), "1.branch.3"),
        (Residual(nn.Sequential(two(), nn.ReLU(inplace=True))), "1.branch.1"),
        (Residual(nn.Sequential(two(), nn.Dropout(0.5))), "1.branch.0.3"),  # gives on what it gets
        (Residual(two(), shortcut=projected()), "1.branch.3"),
        (Residual(two(), lambda branch, x: x + branch, shortcut=projected()), "1.branch.3"),
        (Residual(nn.Sequential(projected(), conv())), "1.branch.1"),
    ],
)
def test_which_operand_is_the_branch(block, place):
    model = nn.Sequential(conv(3), block)
    assert Places(model, EXAMPLE).find() == {place: 8}


@pytest.mark.parametrize(
    "block",
    [
        Residual(conv(), shortcut=conv()),  # neither is the shortcut
        Residual(two(), shortcut=two()),
        Residual(nn.ReLU()),  # no branch of its own
        Residual(nn.BatchNorm2d(8), lambda branch, x: branch + 1),
        Residual(two(), lambda branch, x: torch.cat([branch, x], 1)),
        Residual(two(), lambda branch, x: branch.mean((2, 3)) + x.mean((2, 3))),
    ],
)
def test_what_is_no_residual_addition(block):
    with pytest.raises(ValueError, match="adds no map to a shortcut"):
        Places(nn.Sequential(conv(3), block), EXAMPLE).find()


def test_what_is_left_out_is_told():
    shared = two()
    model = nn.Sequential(
        conv(3),
        Residual(two()),
        Residual(two(), lambda branch, x: branch.relu() * 2 + x),
        Residual(shared),
        Residual(shared),
    )
    places = Places(model, EXAMPLE)
    assert places.find() == {"1.branch.3": 8}
    assert places.left_out == {
        "an addition in 2": "the branch ends in an operation of its own, not in a module",
        "3.branch.3": "it is one module with the names 3.branch.3, 4.branch.3",
    }
    with pytest.warns(UserWarning, match=r"left without attention: an addition in 2.*\(and 1 mor"):
        assert attach(model, "eca", example=EXAMPLE).keys() == {"1.branch.3"}


class TwiceTheSame(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(3, 3)
        self.same = self.conv
        self.unused = conv()
        self.pair = Pair()
        self.drawn = Drawn()

    def forward(self, x):
        return self.pair(self.conv(self.conv(x)))[0] + self.drawn()


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Drawn(nn.Module):
    def forward(self):
        return torch.zeros(1)


@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        (
            "resnet18",
            "nothing",
            "no module of ResNet has such a name; its first are conv1, bn1, re",
        ),
        ("resnet18", "layer*", "fits layer1, and layer1.0 in it: accepted is a pattern of which"),
        ("resnet18", "layer1.0.??*1", "fits layer1.0.conv1, and layer1.0.bn1, which takes its map"),
        ("resnet18", "layer*.relu", "fits layer1.0.relu: it runs more than once in a pass"),
        ("resnet18", "fc", r"fits fc: it gives \(N, 1000\): accepted are maps"),
        ("convnext_tiny", "*.block.5", r"it gives \(N, 16, 16, 96\), its channels in dimension 3"),
        ("densenet121", "features.denseblock1", "it is a container, which may run what is put"),
        ("twice", "conv", "fits conv: it is one module with the names conv, same"),
        ("twice", "same", "fits same: it is one module with the names conv, same"),
        ("twice", "unused", "fits unused: it does not run in a pass of the example"),
        ("twice", "pair", "fits pair: it gives a tuple: accepted is one map"),
        ("twice", "drawn", "fits drawn: it gives what no image moves: accepted is one map"),
        ("resnet18", 3, "where=3: accepted is a pattern of names, or None"),
    ],
)
def test_patterns_that_fit_no_place(name, where, message):
    model = TwiceTheSame() if name == "twice" else network(name)
    with pytest.raises((TypeError, ValueError), match=message):
        Places(model, EXAMPLE).find(where)


def test_a_sequential_stands_for_its_last_module():
    found = Places(network("mobilenet_v2"), EXAMPLE).find("features.*.conv")
    assert len(found) == 17
    assert next(iter(found)) == "features.1.conv.2"
    assert list(found)[-1] == "features.17.conv.3"


def test_blocks_one_after_the_other_are_no_chain():
    found = Places(network("resnet18"), EXAMPLE).find("layer?.?")
    assert len(found) == 8
    assert found["layer4.1"] == 512


def test_maps_of_one_dimension_and_tokens_are_told_apart():
    maps = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
    assert Places(maps, torch.zeros(2, 3, 20)).find("2") == {"2": 8}
    tokens = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    with pytest.raises(ValueError, match=r"\(N, 20, 8\), its channels in dimension 2"):
        Places(tokens, torch.zeros(2, 20, 3)).find("1")
    unknown = nn.Sequential(nn.ReLU())
    with pytest.raises(ValueError, match=r"\(N, 20, 3\), of which 20 may be channels or tokens"):
        Places(unknown, torch.zeros(2, 20, 3)).find("0")
    volumes = nn.Sequential(nn.Conv3d(1, 4, 3))
    assert Places(volumes, torch.zeros(2, 1, 5, 5, 5)).find("0") == {"0": 4}


def test_a_pass_leaves_the_model_as_it_was():
    model = nn.Sequential(conv(3), nn.BatchNorm2d(8), nn.Dropout(0.5), Residual(two())).train()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    modes = [each.training for each in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Places(model, torch.ones(2, 3, 8, 8)).find()
    assert [each.training for each in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model[0].weight.grad.sum() == model[0].weight.numel()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
