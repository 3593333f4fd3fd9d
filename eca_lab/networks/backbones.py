"""Backbones with a channel attention module in every residual block.

MobileNetV2 and the frame of ResNets are torchvision's, and all parameters have its names. To import
torchvision takes longer than torch, so it is done where one of these is built. A block's attribute
``attention`` stands after its last BatchNorm and before the shortcut is added.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from torch import Tensor, nn

from eca_lab.attention.architectures import ARCHITECTURES
from eca_lab.attention.modules import ChannelAttention, make_attention
from eca_lab.attention.spec import BACKBONES, Spec, parse_spec
from eca_lab.checks import check_choice
from eca_lab.networks import fused


class _Block(nn.Module):
    """A residual block with a place for an attention module."""

    channels: int
    attention: nn.Module

    def _make_place(self, channels: int) -> None:
        self.channels = channels
        self.attention = nn.Identity()


class _ReluBlock(_Block):
    """One that ends in a ReLU, behind BatchNorm, attention and shortcut."""

    trains_fused = False  # eca_lab.networks.fused.training_path sets it
    relu: nn.Module

    def _end(self, bn: nn.BatchNorm2d, x: Tensor, shortcut: Tensor) -> Tensor:
        if fused.applies(self, bn, x, shortcut):
            return fused.bn_attention_add_relu(x, shortcut, bn, self.attention)
        return self.relu(self.attention(bn(x)) + shortcut)


class BasicBlock(_ReluBlock):
    """Two 3x3 convolutions, of ResNet-18 and 34: (N, inplanes, H, W) to (N, planes, H', W').

    torchvision's ResNet, which makes both kinds of block, also gives them groups and dilation: `_`,
    the same for all networks here.
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        *_: object,
        **__: object,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(inplanes, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample
        self._make_place(planes)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self._end(self.bn2, self.conv2(out), shortcut)


class Bottleneck(_ReluBlock):
    """1x1, 3x3 and 1x1 convolutions, of ResNet-50 and larger: planes * 4 channels go out."""

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        *_: object,
        **__: object,
    ) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = _conv(inplanes, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self._make_place(outputs)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self._end(self.bn3, self.conv3(out), shortcut)


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)


def _resnet(backbone: str, num_classes: int) -> nn.Module:
    from torchvision.models.resnet import ResNet

    architecture = ARCHITECTURES[backbone]
    block = BasicBlock if architecture.block == "basic" else Bottleneck
    return ResNet(block, architecture.counts, num_classes)


def _mobilenet_v2(num_classes: int) -> nn.Module:
    from torchvision.models import mobilenetv2

    class InvertedResidual(_Block, mobilenetv2.InvertedResidual):
        out_channels: int

        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self._make_place(self.out_channels)

        def forward(self, x: Tensor) -> Tensor:
            out = self.attention(self.conv(x))
            return x + out if self.use_res_connect else out

    return mobilenetv2.MobileNetV2(num_classes, block=InvertedResidual)


class TinyResNet(nn.Module):
    """Basic blocks of 16 and 64 channels and two bottlenecks of 256, for two CPU cores.

    Equation 12 gives 3, 3 and 5 for these widths, none of them a tie: adaptive k differs from every
    fixed k. In a basic block the widest stage would cost three quarters of the time; with two
    bottlenecks the last feature map sees 25 pixels of a 32 x 32 image and not 17.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = _conv(3, 16, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = BasicBlock(16, 16)
        self.layer2 = BasicBlock(16, 64, 2, _projection(16, 64))
        first = Bottleneck(64, 64, 2, _projection(64, 256))
        self.layer3 = nn.Sequential(first, Bottleneck(256, 64))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, 1, stride=2), nn.BatchNorm2d(outputs))


def build_model(
    backbone: str,
    attention: str | Spec = "none",
    *,
    num_classes: int = 1000,
    stem: str = "imagenet",
) -> nn.Module:
    """A backbone with an attention module in every block, with random weights.

    The backbone's weights are drawn first: one state of torch's generator gives all arms the same.

    Args:
        backbone: one of `eca_lab.attention.spec.BACKBONES`.
        attention: a spec, such as "eca(k=3)".
        num_classes: how many logits come out.
        stem: "imagenet", torchvision's, which takes a quarter of the resolution, or "cifar", for
            images up to 64 pixels: a 3x3 convolution of stride 1 and no pooling.

    Raises:
        ValueError: what is unknown, or does not fit the widths of the backbone.
    """
    check_choice("backbone", backbone, BACKBONES)
    check_choice("stem", stem, ("imagenet", "cifar"))
    model = _plain(backbone, num_classes)
    if stem == "cifar" and backbone == "mobilenet_v2":
        model.features[0][0].stride = (1, 1)  # already 3x3, and no pooling follows
    elif stem == "cifar":
        model.conv1 = _conv(3, model.conv1.out_channels, 3)
        model.maxpool = nn.Identity()
    add_attention(model, attention)
    return model


def _plain(backbone: str, num_classes: int) -> Any:  # of which stems have other attributes
    if backbone == "tiny":
        return TinyResNet(num_classes)
    if backbone == "mobilenet_v2":
        return _mobilenet_v2(num_classes)
    return _resnet(backbone, num_classes)


def add_attention(model: nn.Module, attention: str | Spec) -> None:
    """Put a new attention module into every block of a model, or raise as `build_model`."""
    places = list(blocks(model))
    modules = modules_for(attention, [place.channels for place in places])
    for place, module in zip(places, modules, strict=True):
        place.block.attention = module


def modules_for(attention: str | Spec, widths: Sequence[int]) -> list[nn.Module]:
    """A new attention module for every place, or raise as `build_model`.

    Args:
        attention: a spec.
        widths: the channels of the places, in order; a run of equal widths is a stage.
    """
    attention = parse_spec(attention)
    stages = _stages(widths)
    count = stages[-1] + 1
    sizes = attention.kernel_sizes
    if isinstance(sizes, tuple) and len(sizes) != count:
        accepted = f"accepted is one, or one for each of {count} stages"
        raise ValueError(f"attention '{attention}' gives {len(sizes)} kernel sizes: {accepted}")
    return [
        make_attention(attention, channels, stage=stage)
        for channels, stage in zip(widths, stages, strict=True)
    ]


def _stages(widths: Sequence[int]) -> list[int]:
    """The stage of each place, of so many channels: a stage is a run of equal widths."""
    runs = groupby(widths)
    return [stage for stage, (_, run) in enumerate(runs) for _ in run]


def attention_specs(model: nn.Module) -> list[str]:
    """The attention of every block, as resolved spec strings: where equal, it is one network.

    TypeError for a module that no spec names.
    """
    specs = []
    for place in blocks(model):
        module = place.block.attention
        if not isinstance(module, ChannelAttention | nn.Identity):
            accepted = "accepted are nn.Identity and the modules of eca_lab.attention.modules"
            raise TypeError(f"{place.name}.attention is a {type(module).__name__}: {accepted}")
        specs.append("none" if isinstance(module, nn.Identity) else module.spec)
    return specs


class Place(NamedTuple):
    """Where an attention module stands: a block, as the model names it, its width and stage."""

    name: str
    block: _Block
    channels: int
    stage: int


def blocks(model: nn.Module) -> Iterator[Place]:
    """The `Place` of every block, in order; a stage is a run of blocks of equal width."""
    found = [each for each in model.named_modules() if isinstance(each[1], _Block)]
    stages = _stages([block.channels for _, block in found])
    for (name, block), stage in zip(found, stages, strict=True):
        yield Place(name, block, block.channels, stage)
