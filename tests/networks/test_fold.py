"""Folded networks, against ones whose attention modules were made constant by hooks."""

import copy
from collections import Counter
from types import MethodType

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import ScaledStdConv2d
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

import eca_lab
from eca_lab.looking.probe import freeze, intervene, record_weights
from eca_lab.networks import fold as folder
from eca_lab.networks.backbones import build_model
from eca_lab.networks.fold import Gate, Scale, fold, folding


class EcaLayer(nn.Module):
    """As the authors of ECA wrote it, and as it is pasted into networks."""

    def __init__(self, k_size=3):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel_size=k_size, padding=(k_size - 1) // 2, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        y = self.avg_pool(x)
        y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * self.sigmoid(y).expand_as(x)


class EcaNetwork(nn.Module):
    """A stem and two residual blocks with an EcaLayer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(self._block() for _ in range(2))
        self.fc = nn.Linear(16, 5)

    def _block(self):
        convolution = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(16), EcaLayer())

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu_(block(x) + x)
        return self.fc(x.mean((2, 3)))


def ours(backbone, arm):
    return lambda: build_model(backbone, arm, num_classes=10, stem="cifar")


def of_timm(name, **arguments):
    return lambda: timm.create_model(name, num_classes=10, **arguments)


def of_torchvision(name):
    return lambda: torchvision.models.get_model(name, num_classes=10)


NARROW = {"depths": (1, 1, 1, 1), "channels": (32, 32, 64, 64), "group_size": 8}
# What makes a network, and into what its sites are folded.
NETWORKS = {
    "tiny eca": (ours("tiny", "eca"), {"front": 4}),
    "tiny se": (ours("tiny", "se"), {"front": 4}),
    "resnet18 eca": (ours("resnet18", "eca"), {"front": 8}),
    "mobilenet_v2 se": (ours("mobilenet_v2", "se"), {"front": 17}),
    "authors": (EcaNetwork, {"front": 2}),
    "seresnet18": (of_timm("seresnet18", layers=(1, 1, 1, 1)), {"front": 4}),
    "seresnet50": (of_timm("seresnet50", layers=(1, 1, 1, 1)), {"front": 4}),
    "ecaresnet26t": (of_timm("ecaresnet26t", layers=(1, 1, 1, 1)), {"front": 4}),
    "legacy_seresnet18": (of_timm("legacy_seresnet18", layers=(1, 1, 1, 1)), {"factor": 4}),
    "efficientnet_b0": (of_timm("efficientnet_b0"), {"behind": 16}),
    "tf_mobilenetv3": (of_timm("tf_mobilenetv3_small_075"), {"behind": 9}),
    "mobilenetv3": (of_timm("mobilenetv3_small_100"), {"behind": 9}),
    "regnety_002": (of_timm("regnety_002"), {"behind": 13}),
    "ghostnet": (of_timm("ghostnet_100"), {"behind": 5, "front": 2}),
    "nfnet_f0": (of_timm("nfnet_f0", **NARROW), {"factor": 4}),
    "eca_nfnet_l0": (of_timm("eca_nfnet_l0", **NARROW), {"factor": 4}),
    "torchvision mobilenet_v3": (of_torchvision("mobilenet_v3_small"), {"behind": 9}),
    "torchvision efficientnet": (of_torchvision("efficientnet_b0"), {"behind": 16}),
}


def filled(model):
    """The model in evaluation mode, its BatchNorms as if trained, and none of its gains 0."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.uniform_(parameter, 0.2, 0.8)
    return model.eval()


class Constants(nn.Module):
    """Weights in place of attention: multiplied, written into the map, or given as a gate."""

    def __init__(self, values, how="product", dimension=1):
        super().__init__()
        self.values = torch.as_tensor(values)
        self.how = how
        self.dimension = dimension

    def forward(self, x):
        shape = [1] * x.dim()
        shape[self.dimension] = len(self.values)
        weights = self.values.reshape(shape)
        if self.how == "gate":
            return weights.expand(len(x), *shape[1:])
        return x.mul_(weights) if self.how == "in place" else x * weights


@torch.no_grad()
def frozen(model, constants, images, **how):
    """What the model gives if its attention modules are replaced by constants."""
    reference = copy.deepcopy(model).eval()
    for name, values in constants.items():
        reference.set_submodule(name, Constants(values, **how))
    return reference(images.clone())


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def others_than(record):
    """Weights for every site that are far from those it gives."""
    widths = {site: weights.shape[1] for site, weights in record.weights.items()}
    return {site: torch.rand(width) + 0.5 for site, width in widths.items()}


def state(model):
    """All that a model holds: its modules, modes, hooks and values."""
    modules = [
        (name, id(module), module.training, len(module._forward_hooks))
        for name, module in model.named_modules()
    ]
    return modules, {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, before):
    modules, values = state(model)
    assert modules == before[0]
    assert values.keys() == before[1].keys()
    assert all(torch.equal(value, before[1][name]) for name, value in values.items())


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_network_is_folded_into_itself(name):
    torch.manual_seed(0)
    make, kinds = NETWORKS[name]
    model = filled(make())
    images = torch.randn(2, 3, 32, 32)
    constants = others_than(record_weights(model, images))
    before = state(model)
    folded, how, error = folding(model, constants, images)
    assert_untouched(model, before)
    assert Counter(each.split()[-1] for each in how.values()) == kinds
    assert [*how] == [*constants]
    assert error <= 2e-6
    others = torch.randn(2, 3, 40, 40)
    expected = frozen(model, constants, others)
    assert distance(folded(others), expected) <= 1e-5
    assert distance(model(others), expected) > 1e-3
    # Of the attention nothing is left, and of the rest all.
    attention = sum(count(model.get_submodule(site)) for site in constants)
    assert attention > 0
    assert count(folded) == count(model) - attention
    sites = {site: type(folded.get_submodule(site)) for site in constants}
    by = Scale if "factor" in kinds else nn.Identity
    assert {*sites.values()} == {by}
    buffers = {f"{site}.constants" for site in constants} if by is Scale else set()
    assert {*folded.state_dict()} == buffers | {
        key for key in model.state_dict() if not key.startswith(tuple(f"{s}." for s in constants))
    }


class Squeeze(nn.Module):
    """SE of a dimension of maps (N, C, ...): their product, in place, or the gate alone."""

    def __init__(self, channels, how="product", dimension=1):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels))
        self.how = how
        self.dimension = dimension

    def forward(self, x):
        over = [each for each in range(1, x.dim()) if each != self.dimension]
        weights = self.fc(x.mean(over)).sigmoid()
        shape = [1] * x.dim()
        shape[0], shape[self.dimension] = weights.shape
        weights = weights.reshape(shape)
        if self.how == "gate":
            return weights
        return x.mul_(weights) if self.how == "in place" else x * weights


class Small(nn.Module):
    """A network of 8 channels that runs as a function of its modules says, then pools."""

    def __init__(self, run, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def conv(inputs=8, outputs=8, groups=1, kind=nn.Conv2d, **arguments):
    return kind(inputs, outputs, 3, padding=1, groups=groups, **arguments)


class ConvAct(nn.Conv2d):
    """A convolution with an activation inside."""

    def forward(self, x):
        return super().forward(x).tanh()


class Cube(nn.Module):
    def forward(self, weight):
        return weight**3


def cubed():
    """A convolution with the cube of its parameter."""
    module = conv()
    register_parametrization(module, "weight", Cube())
    return module


def hooked():
    """A convolution of which a hook changes the output."""
    module = conv()
    module.register_forward_hook(lambda _, __, output: output.tanh())
    return module


def with_another_forward():
    """A convolution whose own forward was replaced."""
    module = conv()
    module.forward = MethodType(lambda self, x: self._conv_forward(x, self.weight**3, None), module)
    return module


def tied(**modules):
    modules["c"].weight = modules["a"].weight
    return modules


def se(**arguments):
    return Squeeze(8, **arguments)


def chain(*names):
    def run(net, x):
        for name in names:
            x = getattr(net, name)(x)
        return x

    return run


def with_shortcut(net, x):
    x = net.bn(net.a(x))
    return net.c(net.se(x)) + x


def gelu_around(net, x):
    return net.c(F.gelu(net.se(F.gelu(net.a(x)))))


def read_by_two(net, x):
    x = net.se(net.a(x).tanh())
    return net.b(x) + net.c(x)


def given_as_well(net, x):
    x = net.se(net.a(x).tanh())
    return net.c(x), x


def weight_read_elsewhere(net, x):
    return net.se(net.a(x)) + F.conv2d(x, net.a.weight, padding=1)


def written_over(net, x):
    x = net.a(x).tanh()
    y = net.se(x)
    x.relu_()
    return net.c(y) + x


def twice(net, x):
    return net.c(net.se(net.c(net.a(x)).tanh()))


def channels_last(net, x):
    x = net.a(x).permute(0, 2, 3, 1)
    return net.se(x)


def halves(net, x):
    x, y = net.a(x).chunk(2, 1)
    return torch.cat([net.se(x), y], 1)


def as_other_channels(net, x):
    x = net.se(net.a(x).tanh())
    return net.c(x.transpose(1, 2).reshape(len(x), 8, 8, 8))


def as_other_channels_by_a_view(net, x):
    x = net.se(net.a(x).tanh())
    return net.c(x.transpose(1, 2))


# What a network does, its modules, and how it is folded.
SMALL = {
    "BatchNorm in front": (
        chain("a", "bn", "se", "c"),
        {"bn": nn.BatchNorm2d(8)},
        "into bn in front",
    ),
    "convolution in front": (chain("a", "se", "c"), {}, "into a in front"),
    "without a bias": (chain("a", "se"), {"a": conv(bias=False)}, "into a in front"),
    "groups in front": (chain("a", "se"), {"a": conv(groups=4)}, "into a in front"),
    "BatchNorm without affine": (
        chain("a", "bn", "se"),
        {"bn": nn.BatchNorm2d(8, affine=False)},
        "a factor",
    ),
    "BatchNorm with affine, in place behind": (
        chain("bn", "se", "act", "c"),
        {"bn": nn.BatchNorm2d(8), "act": nn.ReLU(inplace=True)},
        "into bn in front",
    ),
    "in place between": (
        chain("bn", "act", "se"),
        {"bn": nn.BatchNorm2d(8), "act": nn.ReLU(inplace=True)},
        "a factor",
    ),
    "in place between, convolution behind": (
        chain("bn", "act", "se", "c"),
        {"bn": nn.BatchNorm2d(8), "act": nn.ReLU(inplace=True)},
        "into c behind",
    ),
    "in place behind": (
        chain("act", "se", "other", "c"),
        {"act": nn.SiLU(inplace=True), "other": nn.Hardswish(inplace=True)},
        "a factor",
    ),
    "product in place": (
        chain("a", "act", "se", "c"),
        {"act": nn.SiLU(), "se": se(how="in place")},
        "into c behind",
    ),
    "product in place, BatchNorm": (
        chain("bn", "se", "c"),
        {"bn": nn.BatchNorm2d(8), "se": se(how="in place")},
        "into bn in front",
    ),
    "shortcut": (with_shortcut, {"bn": nn.BatchNorm2d(8)}, "into c behind"),
    "shortcut, groups behind": (
        with_shortcut,
        {"bn": nn.BatchNorm2d(8), "c": conv(groups=2)},
        "a factor",
    ),
    "depthwise behind": (
        chain("act", "se", "c"),
        {"act": nn.SiLU(), "c": conv(groups=8)},
        "a factor",
    ),
    "reflected edges behind": (
        chain("act", "se", "c"),
        {"act": nn.SiLU(), "c": conv(padding_mode="reflect")},
        "into c behind",
    ),
    "functions around": (gelu_around, {}, "a factor"),
    "standardised in front": (chain("a", "se"), {"a": conv(kind=ScaledStdConv2d)}, "a factor"),
    "standardised behind": (
        chain("act", "se", "c"),
        {"act": nn.SiLU(), "c": conv(kind=ScaledStdConv2d)},
        "a factor",
    ),
    "activation inside": (chain("a", "se"), {"a": conv(kind=ConvAct)}, "a factor"),
    "tied": (chain("a", "act", "c", "se"), tied(a=conv(), c=conv(), act=nn.SiLU()), "a factor"),
    "tied to what does not run": (chain("a", "se"), tied(a=conv(), c=conv()), "a factor"),
    "used twice": (twice, {}, "a factor"),
    "hooked": (chain("a", "se"), {"a": hooked()}, "a factor"),
    "parametrised": (chain("a", "se"), {"a": cubed()}, "a factor"),
    "spectral norm": (chain("a", "se"), {"a": parametrizations.spectral_norm(conv())}, "a factor"),
    "weight read elsewhere": (weight_read_elsewhere, {}, "a factor"),
    "read by two": (read_by_two, {"b": conv()}, "a factor"),
    "given as well": (given_as_well, {}, "a factor"),
    "written over": (written_over, {}, "a factor"),
    "channels last": (channels_last, {"se": se(dimension=3)}, "a factor"),
    "another forward": (chain("a", "se"), {"a": with_another_forward()}, "a factor"),
    "half of the channels": (halves, {"se": Squeeze(4)}, "a factor"),
    "as other channels": (as_other_channels, {}, "a factor"),
    "as other channels by a view": (as_other_channels_by_a_view, {}, "a factor"),
    "1-D": (
        chain("a", "bn", "se"),
        {"a": conv(kind=nn.Conv1d), "bn": nn.BatchNorm1d(8)},
        "into bn in front",
    ),
    "3-D": (
        chain("act", "se", "c"),
        {"act": nn.SiLU(), "c": conv(kind=nn.Conv3d)},
        "into c behind",
    ),
}


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_what_is_multiplied_where(name):
    torch.manual_seed(0)
    run, modules, expected_how = SMALL[name]
    model = filled(Small(run, **{"a": conv(), "se": se(), "c": conv(), **modules}))
    sizes = {"1-D": (8,), "3-D": (8, 8, 8)}.get(name, (8, 8))
    images, others = torch.randn(2, 2, 8, *sizes)
    channels = 4 if name.startswith("half") else 8
    constants = {"se": torch.linspace(-1, 2, channels)}
    before = state(model)
    folded, how, error = folding(model, constants, images)
    assert_untouched(model, before)
    assert how == {"se": expected_how}
    assert error <= 1e-6
    expected = frozen(model, constants, others, how=model.se.how, dimension=model.se.dimension)
    found = folded(others.clone())
    for a, b in zip(
        *((each if isinstance(each, tuple) else (each,)) for each in (found, expected)), strict=True
    ):
        assert distance(a, b) <= 1e-6
    assert count(folded) == count(model) - count(model.se)


class Gated(nn.Module):
    """Attention whose product is written in the block, as CBAM's often is."""

    def __init__(self, run, gate=None, channels=8):
        super().__init__()
        self.conv = conv(outputs=channels)
        self.gate = gate or se(how="gate")
        self.run = run

    def forward(self, x):
        return self.run(self.gate, self.conv(x))


def by_its_gate(gate, x):
    return gate(x) * x


def by_its_gate_reshaped(gate, x):
    return x * gate(x).view(x.size(0), x.size(1), 1, 1).expand_as(x)


def with_the_map(gate, x):
    return x + x * gate(x)


def of_something_else(gate, x):
    return x * gate(x.tanh())


def of_the_means(gate, x):
    return x * gate(x.mean((2, 3))).view(x.size(0), -1, 1, 1)


FLAT = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.Sigmoid())
EXCITATION = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Sigmoid())


@pytest.mark.parametrize(
    ("run", "gate"),
    [
        (by_its_gate, None),
        (by_its_gate_reshaped, FLAT),
        (with_the_map, None),
        (of_something_else, None),
        (of_the_means, EXCITATION),
    ],
)
@torch.no_grad()
def test_a_module_that_gives_the_weights_alone_gives_constants(run, gate):
    torch.manual_seed(0)
    model = nn.Sequential(Gated(run, copy.deepcopy(gate)), conv())
    images, others = torch.randn(2, 2, 8, 8, 7)
    constants = {"0": torch.linspace(-1, 2, 8)}
    folded, how, error = folding(model, constants, images)
    assert how == {"0": "a factor, in place of 0.gate"}
    assert error <= 1e-6
    expected = frozen(model, {"0.gate": constants["0"]}, others[:1], how="gate")
    assert distance(folded(others[:1]), expected) <= 1e-6
    assert isinstance(folded[0].gate, Gate)
    assert count(folded) == count(model) - count(model[0].gate)


def gate_read_twice(gate, x):
    weights = gate(x)
    return x * weights + weights


def in_functions(gate, x):
    return x * torch.sigmoid(gate.fc(x.mean((2, 3))))[:, :, None, None]


class ChannelThenSpace(nn.Module):
    """CBAM in one module."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        x = x * self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return x * x.mean(1, keepdim=True).sigmoid()


class Residual(Squeeze):
    def forward(self, x):
        return x + super().forward(x)


class WithTwoInputs(Squeeze):
    def forward(self, x, mask):
        return super().forward(x)


INLINE = {
    "gate read twice": (Gated(gate_read_twice), "Gated"),
    "in functions": (Gated(in_functions), "Gated"),
    "spatial attention as well": (ChannelThenSpace(), "ChannelThenSpace"),
    "ours with spatial attention": (eca_lab.make_attention("cbam(r=2)", 8), "CBAM"),
    "its input added": (Residual(8), "Residual"),
    "two inputs": (Small(lambda net, x: net.se(x, None), se=WithTwoInputs(8)), "WithTwoInputs"),
}


@pytest.mark.parametrize("name", INLINE)
def test_attention_that_is_written_inline_is_refused_by_name(name):
    attention, kind = INLINE[name]
    model = nn.Sequential(conv(), attention)
    site = "1.se" if name == "two inputs" else "1"
    before = state(model)
    with pytest.raises(ValueError, match=f"name '{site}': {site}, a {kind}, computes .* inline"):
        fold(model, {site: 0.5}, torch.randn(2, 8, 8, 7))
    assert_untouched(model, before)


IMAGES = torch.randn(2, 8, 8, 7, generator=torch.Generator().manual_seed(0))


def small(*names, **modules):
    return Small(chain(*names), **{"a": conv(), "se": se(), "c": conv(), **modules})


class Uncopied(nn.Module):
    def __deepcopy__(self, memo):
        raise NotImplementedError("one of a kind")

    def forward(self, x):
        return x


class Outer(Squeeze):
    """SE that looks at what another one gives."""

    def __init__(self):
        super().__init__(8)
        self.inner = se()

    def forward(self, x):
        return x * self.fc(self.inner(x).mean((2, 3))).sigmoid()[:, :, None, None]


class WithKeyword(Squeeze):
    def forward(self, x, *, mask=None):
        return super().forward(x)


def remembered(net, x):
    return net.se(net.a(x)) + net.se.fc[0].weight.sum()


REFUSED = {
    "no model": (lambda: "resnet18", {}, TypeError, "model='resnet18': accepted is a torch.nn"),
    "no mapping": (
        lambda: small("se"),
        ["se"],
        TypeError,
        r"constants=\['se'\]: accepted is a map",
    ),
    "no site": (
        lambda: small("a", "se", "c"),
        {"se": 1, "c": 1},
        ValueError,
        "constants name 'c': no channel attention there; accepted are se",
    ),
    "no attention": (lambda: small("a"), {"a": 1}, ValueError, "accepted are none: no channel"),
    "constant attention": (
        lambda: nn.Sequential(conv(), eca_lab.make_attention("static", 8)),
        {"1": 1},
        ValueError,
        "name '1': its weights are constants, which no image moves",
    ),
    "runs twice": (
        lambda: small("a", "se", "c", "se"),
        {"se": 1},
        ValueError,
        "name 'se': it runs more than once in a pass",
    ),
    "too few": (
        lambda: small("se"),
        {"se": [1, 2, 3]},
        ValueError,
        r"constants\['se'\] of length 3: accepted is a number, or 8 of them",
    ),
    "of every image": (
        lambda: small("se"),
        {"se": np.ones((2, 8))},
        ValueError,
        r"constants\['se'\]=array.*: accepted is a finite number, or one for each channel",
    ),
    "ragged": (lambda: small("se"), {"se": [1, [2]]}, ValueError, "is a finite number, or one for"),
    "text": (
        lambda: small("se"),
        {"se": "mean"},
        ValueError,
        r"\['se'\]='mean': accepted is a fin",
    ),
    "one in the other": (
        lambda: nn.Sequential(conv(), Outer()),
        {"1": 1, "1.inner": 1},
        ValueError,
        "constants name '1.inner', which is part of 1, and also '1', for which all of that goes",
    ),
    "NaN everywhere": (
        lambda: Small(lambda net, x: net.se(x) / 0, se=se()),
        {"se": 1},
        ValueError,
        r"in its output they differ by nan \(relative\), accepted is 1e-05",
    ),
    "no number": (lambda: small("se"), {"se": np.nan}, ValueError, r"constants\['se'\]=nan: acc"),
    "traced": (
        lambda: torch.jit.trace(small("se"), IMAGES),
        {"se": 1},
        ValueError,
        "is traced or scripted: accepted is the model as it was",
    ),
    "compiled": (
        lambda: torch.compile(small("se"), backend="eager"),
        {"se": 1},
        ValueError,
        "OptimizedModule is compiled: accepted is the model as it was",
    ),
    "compiled within": (
        lambda: small("se", se=torch.compile(se(), backend="eager")),
        {"se": 1},
        ValueError,
        "Small is compiled",
    ),
    "not copied": (
        lambda: small("se", a=Uncopied()),
        {"se": 1},
        ValueError,
        "Small cannot be copied: one of a kind",
    ),
    "another argument": (
        lambda: Small(lambda net, x: net.se(x, mask=None), se=WithKeyword(8)),
        {"se": 1},
        ValueError,
        "the folded Small does not run: .*unexpected keyword argument 'mask'",
    ),
    "its parameter used": (
        lambda: Small(remembered, a=conv(), se=se()),
        {"se": 1},
        ValueError,
        "the folded Small does not run: 'Identity' object has no attribute 'fc'",
    ),
    "integers": (
        lambda: Small(lambda net, x: net.se(x).flatten(1).argmax(1), se=se()),
        {"se": 1},
        TypeError,
        "Small gives no tensor of floats",
    ),
    "the model itself": (se, {"": 1}, ValueError, "name '': the model, a Squeeze, computes"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_folded_is_refused_in_words(name):
    make, constants, error, message = REFUSED[name]
    model = make()
    with pytest.raises(error, match=message):
        fold(model, constants, IMAGES)


def test_a_model_that_is_changed_just_then_is_refused():
    model = small("a", "se")
    with (
        intervene(model, "se", freeze(0.5)),
        pytest.raises(ValueError, match="Small runs with changes: fold it outside of `intervene`"),
    ):
        fold(model, {"se": 1}, IMAGES)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match=r"example of shape \(0, 8, 8, 7\): accepted are one"):
        fold(small("se"), {"se": 1}, IMAGES[:0])


def test_a_refusal_leaves_the_model_as_it_was():
    model = small("a", "se", "c")
    before = state(model)
    with pytest.raises(ValueError, match="constants name 'c'"):
        fold(model, {"se": 1, "c": 1}, IMAGES)
    assert_untouched(model, before)


@torch.no_grad()
def test_only_the_sites_that_are_named_are_folded():
    model = filled(EcaNetwork())
    images = torch.randn(2, 3, 8, 8)
    folded = fold(model, {"blocks.1.2": 0.25}, images)
    assert isinstance(folded.blocks[1][2], nn.Identity)
    assert [*record_weights(folded, images).weights] == ["blocks.0.2"]
    expected = frozen(model, {"blocks.1.2": torch.full((16,), 0.25)}, images)
    assert distance(folded(images), expected) <= 1e-6


@torch.no_grad()
def test_no_constants_make_an_equal_copy():
    model = filled(EcaNetwork())
    images = torch.randn(2, 3, 8, 8)
    copied, how, error = folding(model, {}, images)
    assert (how, error) == ({}, 0)
    assert copied is not model
    assert torch.equal(copied(images), model(images))
    assert fold(small("a"), {}, IMAGES)(IMAGES).shape == IMAGES.shape  # nor need it have attention


@pytest.mark.parametrize("training", [False, True])
def test_a_folded_network_trains_and_has_the_mode_of_the_given_one(training):
    model = nn.Sequential(conv(), nn.BatchNorm2d(8), se(), nn.Flatten(), nn.Linear(8 * 56, 3))
    model.train(training)
    model[0].requires_grad_(False)
    folded = fold(model, {"2": torch.linspace(0.5, 1, 8)}, IMAGES)
    assert {module.training for module in folded.modules()} == {training}
    assert {module.training for module in model.modules()} == {training}
    # Of batch statistics a folded BatchNorm is as exact as of running ones.
    reference = copy.deepcopy(model)
    reference[2] = Constants(torch.linspace(0.5, 1, 8))
    assert distance(folded(IMAGES), reference(IMAGES)) <= 1e-6
    folded(IMAGES).sum().backward()
    trained = {name for name, each in folded.named_parameters() if each.grad is not None}
    assert trained == {"1.weight", "1.bias", "4.weight", "4.bias"}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_within_any_mode_of_gradients_parameters_stay_what_they_are(mode):
    with mode():
        folded = fold(small("a", "se", "c"), {"se": 0.5}, IMAGES)
    folded(IMAGES).sum().backward()
    assert all(parameter.is_leaf for parameter in folded.parameters())
    assert folded.a.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_in_other_dtypes(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(EcaNetwork(), nn.Linear(5, 5))
    model = filled(model).to(dtype)
    images = torch.randn(2, 3, 8, 8)
    constants = {f"0.blocks.{i}.2": torch.rand(16) for i in range(2)}
    folded, how, error = folding(model, constants, images)
    assert how == {f"0.blocks.{i}.2": f"into 0.blocks.{i}.1 in front" for i in range(2)}
    assert {each.dtype for each in folded.parameters()} == {dtype}
    expected = frozen(model.double(), constants, images.double())
    assert (
        distance(folded(images.to(dtype)).double(), expected) <= 4 * torch.finfo(dtype).eps + 1e-6
    )
    assert error <= 8 * torch.finfo(dtype).eps


@torch.no_grad()
def test_a_factor_has_the_dtype_of_the_weights():
    model = small("act", "se", act=nn.SiLU()).bfloat16()
    folded = fold(model, {"se": np.linspace(0, 1, 8)}, IMAGES)
    assert folded.se.constants.dtype == torch.bfloat16
    assert folded(IMAGES.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_one_image_channels_last_and_wrapped():
    model = nn.DataParallel(filled(EcaNetwork())).to(memory_format=torch.channels_last)
    images = torch.randn(1, 3, 8, 8).to(memory_format=torch.channels_last)
    constants = {"module.blocks.0.2": torch.rand(16)}
    folded, how, _ = folding(model, constants, images)
    assert how == {"module.blocks.0.2": "into module.blocks.0.1 in front"}
    assert distance(folded(images), frozen(model, constants, images)) <= 1e-6


@torch.no_grad()
def test_a_model_with_two_names_for_one_module():
    model = small("a", "se", "c")
    model.other = model.se
    folded = fold(model, {"se": 0.5}, IMAGES)
    assert isinstance(folded.other, nn.Identity)
    assert folded.other is folded.se


@torch.no_grad()
def test_what_the_model_is_called_with_is_prepared_and_never_written_into():
    def run(net, x):
        x.relu_()
        return {"logits": net.c(net.se(net.a(x))).flatten(1)}

    model = Small(run, a=conv(), se=se(), c=conv())
    example = (IMAGES * 255).to(torch.uint8)
    kept = example.clone()
    folded = fold(model, {"se": 0.5}, example, prepare=lambda batch: {"x": batch.float() / 255})
    assert torch.equal(example, kept)
    expected = frozen(model, {"se": torch.full((8,), 0.5)}, example.float() / 255)
    assert distance(folded(example.float() / 255)["logits"], expected["logits"]) <= 1e-6
    floats = IMAGES.clone()
    fold(model, {"se": 0.5}, floats)
    assert torch.equal(floats, IMAGES)


# That a wrong fold is found, where what is wrong has no effect as the network stands.


def test_a_fold_that_a_gain_of_0_in_front_would_hide_is_found(monkeypatch):
    """Of a fresh NFNet: whoever multiplies its standardised weights sees no error on any image."""
    model = of_timm("nfnet_f0", **NARROW)().eval()
    images = torch.randn(2, 3, 32, 32)
    name = "stages.0.0.attn_last"
    assert not model.stages[0][0].conv3.gain.any()
    constants = {name: torch.linspace(0.5, 1.5, 32)}
    assert folding(model, constants, images).how == {name: "a factor"}
    monkeypatch.setattr(folder, "_in_front", lambda *_: "stages.0.0.conv3")
    with pytest.raises(ValueError, match=f"constant weights: at '{name}' they differ by "):
        fold(model, constants, images)


def test_a_fold_that_a_gain_of_0_behind_would_hide_is_found(monkeypatch):
    """A shortcut that is multiplied as well, and then by 0."""

    def run(net, x):
        x = net.a(x)
        return x.detach() * 0 + net.se(x) + net.gain(x)

    model = Small(run, a=conv(), se=se(), gain=nn.Conv2d(8, 8, 1))
    nn.init.zeros_(model.gain.weight)
    nn.init.zeros_(model.gain.bias)
    constants = {"se": torch.linspace(0.5, 1.5, 8)}
    assert folding(model, constants, IMAGES).how == {"se": "a factor"}
    monkeypatch.setattr(folder, "_in_front", lambda *_: "a")
    with pytest.raises(ValueError, match="in its output they differ by "):
        fold(model, constants, IMAGES)


# What becomes of a folded network.


class All(nn.Module):
    """A network with all that folding leaves behind."""

    def __init__(self):
        super().__init__()
        self.a = conv(3, 8)
        self.bn = nn.BatchNorm2d(8)
        self.front = se()
        self.act = nn.SiLU()
        self.behind = se()
        self.c = conv()
        self.factor = se()
        self.gate = se(how="gate")
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.front(self.bn(self.a(x)))
        x = self.c(self.behind(self.act(x)))
        x = self.factor(self.act(x))
        return self.fc((self.gate(x) * x).mean([2, 3]))


@pytest.fixture(scope="module")
def folded_all():
    torch.manual_seed(0)
    model = filled(All())
    constants = others_than(record_weights(model, torch.randn(2, 3, 8, 8)))
    assert [*constants] == ["front", "behind", "factor", ""]
    folded, how, _ = folding(model, constants, torch.randn(2, 3, 8, 8))
    assert [*how.values()] == [
        "into bn in front",
        "into c behind",
        "a factor",
        "a factor, in place of gate",
    ]
    return folded


@pytest.fixture
def images():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_folded_network_is_kept_and_loaded(folded_all, images, tmp_path):
    torch.save(folded_all.state_dict(), tmp_path / "folded.pt")
    other = copy.deepcopy(folded_all)
    for value in other.state_dict().values():
        value.zero_()
    other.load_state_dict(torch.load(tmp_path / "folded.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(other(images), folded_all(images))


EXPORTS = {
    "export": lambda model, images: torch.export.export(
        model, (images[:2],), dynamic_shapes=({0: torch.export.Dim("n")},)
    ).module(),
    "script": lambda model, _: torch.jit.script(model),
    "trace": lambda model, images: torch.jit.trace(model, images[:2]),
    "compile": lambda model, _: torch.compile(model, backend="eager", fullgraph=True),
    "deepcopy": lambda model, _: copy.deepcopy(model),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("name", EXPORTS)
@torch.no_grad()
def test_a_folded_network_is_exported(name, folded_all, images):
    exported = EXPORTS[name](folded_all, images)
    assert distance(exported(images), folded_all(images)) <= 1e-6


@torch.no_grad()
def test_a_folded_network_runs_as_onnx(folded_all, images, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "folded.onnx"
    program = torch.onnx.export(
        folded_all, (images[:2],), dynamo=True, dynamic_shapes=({0: "n"},), verbose=False
    )
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    [found] = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert distance(torch.from_numpy(found), folded_all(images)) <= 1e-6
