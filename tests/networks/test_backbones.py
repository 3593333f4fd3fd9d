import pytest
import torch
import torchvision

from eca_lab.attention.architectures import ARCHITECTURES
from eca_lab.attention.modules import ECA, SE
from eca_lab.attention.spec import parse_spec
from eca_lab.networks.backbones import (
    BACKBONES,
    add_attention,
    attention_specs,
    blocks,
    build_model,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
def test_plain_backbones_are_torchvisions(backbone):
    ours = build_model(backbone).eval()
    theirs = getattr(torchvision.models, backbone)(weights=None).eval()
    theirs.load_state_dict(ours.state_dict())  # the same names and shapes
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("network", ARCHITECTURES)
def test_stage_widths_are_those_of_the_table(network):
    with torch.device("meta"):
        model = build_model(network)
    widths = {stage: channels for *_, channels, stage in blocks(model)}
    assert tuple(widths.values()) == ARCHITECTURES[network].channels


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("spec", "stem"), [("cbam(r=4)", "cifar"), ("eca(k=3, order=shuffled)", "imagenet")]
)
def test_every_backbone_takes_attention_and_both_stems(backbone, spec, stem):
    with torch.device("meta"):
        model = build_model(backbone, spec, num_classes=7, stem=stem)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 7)
    names = attention_specs(model)
    assert all(each.startswith(spec.split("(")[0]) for each in names)
    assert len(names) == len(list(blocks(model)))


def test_the_cifar_stem_keeps_the_resolution():
    sizes = []
    for backbone, last in (
        ("resnet18", "layer1"),
        ("tiny", "layer1"),
        ("mobilenet_v2", "features.1"),
    ):
        model = build_model(backbone, num_classes=10, stem="cifar").eval()
        model.get_submodule(last).register_forward_hook(
            lambda _, __, out: sizes.append(out.shape[2])
        )
        model(torch.randn(1, 3, 32, 32))
    assert sizes == [32, 32, 32]


# The module stands on the residual branch, after the last BatchNorm and before the addition:
# a gate of zeros leaves the shortcut alone.
@pytest.mark.parametrize("backbone", ["tiny", "resnet50", "mobilenet_v2"])
def test_the_attention_stands_before_the_shortcut(backbone):
    class Closed(torch.nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    model = build_model(backbone, num_classes=10, stem="cifar").eval()
    identity_blocks = 0
    for name, block, channels, _ in blocks(model):
        x = torch.rand(1, channels, 4, 4)
        block.attention = Closed()
        takes = next(block.parameters()).shape[1]
        if takes == channels and getattr(block, "downsample", None) is None:
            if backbone == "mobilenet_v2" and not block.use_res_connect:
                continue
            torch.testing.assert_close(block(x), x, msg=name)
            identity_blocks += 1
    assert identity_blocks > 0


@pytest.mark.parametrize(
    ("backbone", "spec", "sizes"),
    [
        ("tiny", "eca", [3, 3, 5, 5]),
        ("tiny", "eca(k=5-3-3)", [5, 3, 3, 3]),
        ("tiny", "eca_ns(k=3)", [3, 3, 3, 3]),
        ("tiny", "se", []),
        ("resnet10", "eca", [3, 5, 5, 5]),
        ("resnet18", "eca(k=3-5-7-7)", [3, 3, 5, 5, 7, 7, 7, 7]),
        ("resnet50", "eca", [5] * 3 + [5] * 4 + [5] * 6 + [7] * 3),
        ("resnet50", "eca(gamma=1, b=1)", [9] * 3 + [11] * 4 + [11] * 6 + [13] * 3),
        ("mobilenet_v2", "eca", [3] * 13 + [5] * 4),
    ],
)
def test_resolved_kernel_sizes(backbone, spec, sizes):
    with torch.device("meta"):
        model = build_model(backbone, spec)
    resolved = (parse_spec(each).kernel_sizes for each in attention_specs(model))
    assert [k for k in resolved if k] == sizes
    modules = [place.block.attention for place in blocks(model)]
    assert [each.kernel_size for each in modules if hasattr(each, "kernel_size")] == sizes


def test_adaptive_k_on_tiny_is_no_fixed_k():
    adaptive = attention_specs(build_model("tiny", "eca"))
    assert adaptive == ["eca(k=3)", "eca(k=3)", "eca(k=5)", "eca(k=5)"]
    assert attention_specs(build_model("tiny", "eca(k=3-3-5)")) == adaptive
    for k in (1, 3, 5, 7, 9):
        assert attention_specs(build_model("tiny", f"eca(k={k})")) != adaptive


def test_the_backbone_is_drawn_before_the_attention():
    states = []
    for spec in ("none", "se", "eca(order=shuffled)"):
        torch.manual_seed(1)
        model = build_model("tiny", spec, num_classes=10)
        state = {
            name: value for name, value in model.state_dict().items() if "attention" not in name
        }
        states.append(state)
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_add_attention_replaces_every_module():
    model = build_model("tiny", "se")
    add_attention(model, "eca(k=3)")
    assert attention_specs(model) == ["eca(k=3)"] * 4
    before = [block.attention for _, block, *_ in blocks(model)]
    with pytest.raises(ValueError, match="kernel_size=17: accepted are at most channels=16"):
        add_attention(model, "eca(k=17)")
    assert [block.attention for _, block, *_ in blocks(model)] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vgg16"}, "backbone='vgg16': accepted are tiny, resnet10"),
        ({"stem": "patch"}, "stem='patch': accepted are imagenet, cifar"),
        ({"attention": "senet"}, "attention 'senet': accepted are none, static, se"),
        ({"attention": "eca(k=3-5)"}, "2 kernel sizes: accepted is one, or one for each of 3"),
        ({"attention": "eca(k=17)"}, "kernel_size=17: accepted are at most channels=16"),
    ],
)
def test_what_cannot_be_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"backbone": "tiny", **arguments})


def test_a_module_without_a_spec_is_not_called_none():
    class Own(ECA):
        pass

    with pytest.raises(TypeError, match="Own has no spec: accepted are Static, SE, CBAM"):
        _ = Own(64).spec
    model = build_model("tiny", "eca", num_classes=10)
    model.layer2.attention = Own(64)
    with pytest.raises(TypeError, match="Own has no spec"):
        attention_specs(model)
    model.layer2.attention = torch.nn.Sequential(ECA(64))
    with pytest.raises(TypeError, match=r"layer2\.attention is a Sequential: accepted are nn"):
        attention_specs(model)
    model.layer2.attention = torch.nn.Identity()
    assert attention_specs(model)[1] == "none"


def test_modules_are_of_the_named_classes():
    assert isinstance(build_model("tiny", "eca").layer1.attention, ECA)
    assert isinstance(build_model("tiny", "se").layer1.attention, SE)
