"""The networks that attention is put into, in one table: their blocks, widths and kernel sizes.

What torchvision builds of them, what the ECA paper calls them, and which kernel sizes its authors
released. Needs no torch.
"""

from typing import Literal, NamedTuple


class Architecture(NamedTuple):
    """A network of torchvision's shape.

    channels are the output channels of each stage, where the ECA modules stand. block is the kind
    of its residual blocks, counts how many each stage of a ResNet has (of MobileNetV2 torchvision
    knows). label is its name in the paper, None where the paper does not have it; released are the
    kernel sizes of the stages in the authors' checkpoint, also in data/paper/released_kernels.csv.
    """

    block: Literal["basic", "bottleneck", "inverted"]
    counts: tuple[int, ...]
    channels: tuple[int, ...]
    label: str | None = None
    released: tuple[int, ...] = ()


_BASIC = (64, 128, 256, 512)
_BOTTLENECK = (256, 512, 1024, 2048)
_MOBILE = (16, 24, 32, 64, 96, 160, 320)
ARCHITECTURES = {
    "resnet10": Architecture("basic", (1, 1, 1, 1), _BASIC),
    "resnet18": Architecture("basic", (2, 2, 2, 2), _BASIC, "ResNet-18", (3, 5, 7, 7)),
    "resnet34": Architecture("basic", (3, 4, 6, 3), _BASIC, "ResNet-34", (3, 3, 5, 7)),
    "resnet50": Architecture("bottleneck", (3, 4, 6, 3), _BOTTLENECK, "ResNet-50", (3, 5, 5, 7)),
    "resnet101": Architecture("bottleneck", (3, 4, 23, 3), _BOTTLENECK, "ResNet-101", (3, 3, 5, 7)),
    "resnet152": Architecture("bottleneck", (3, 8, 36, 3), _BOTTLENECK, "ResNet-152", (3, 3, 5, 7)),
    "mobilenet_v2": Architecture("inverted", (), _MOBILE, "MobileNetV2", (1, 1, 1, 1, 3, 3, 3)),
}
