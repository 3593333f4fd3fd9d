"""What a network costs: parameters and multiply-adds.

Table 3 of the ECA paper prints its counts in units of its own: its M is `MEBI`, its G is `GIBI`.
"""

import math

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from eca_lab.attention.kernel_size import NETWORKS
from eca_lab.checks import check_choice, check_integer
from eca_lab.networks.backbones import build_model

MEBI, GIBI = 2**20, 2**30

# The methods of Table 3 that this package can build.
_ARMS = {"ResNet": "none", "MobileNetV2": "none", "SENet": "se", "CBAM": "cbam", "ECA-Net": "eca"}


def parameters(model: nn.Module) -> int:
    """Number of learned parameters of a module."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(
    model: nn.Module, size: int, *, channels: int = 3, convention: str = "torch"
) -> int:
    """Multiply-adds of one forward pass of one image, from shapes alone.

    The convention "torch" counts those of convolutions and matrix products, by torch's own counter.
    "paper", what the FLOPs of Table 3 are, counts multiply-adds of convolutions, 2 per weight of
    fully connected layers, 4 per element that a BatchNorm puts out, 1 per element of a ReLU or
    ReLU6, and 1 per element that a global pooling takes in or a MaxPool puts out. Neither counts
    other products element by element.

    Args:
        model: takes (N, channels, size, size).
        size: in pixels.
        channels: 3 for a network, C for an attention module.
        convention: "torch" or "paper".

    Raises:
        TypeError, ValueError: naming what is not accepted.
    """
    check_integer("size", size)
    check_integer("channels", channels)
    check_choice("convention", convention, ("torch", "paper"))
    # Tensors without numbers take the place of the model's own for one call. Two images: from one,
    # a BatchNorm in training may get a single value.
    images = 2
    paper = convention == "paper"
    tensors = [*model.named_parameters(), *model.named_buffers()]
    stand_ins = {name: tensor.detach().to("meta") for name, tensor in tensors}
    x = torch.empty(images, channels, size, size, device="meta")
    counter = FlopCounterMode(display=False, custom_mapping=_PAPER if paper else None)
    with torch.no_grad(), counter:
        torch.func.functional_call(model, stand_ins, x)
    counts = counter.get_flop_counts().get("Global", {})
    flops = sum(counts.values())
    return (flops - counts.get(_ATEN.convolution, 0) // 2 if paper else flops // 2) // images


def table_3(published: pd.DataFrame) -> pd.DataFrame:
    """Table 3 of the paper, as printed and as counted, for the networks that can be built here.

    Of the DataFrame of data/paper/table3_backbones.csv, one of 14 rows, indexed by (backbone,
    method): arm, ours; parameters and flops as printed, such as "24.37M"; counted_parameters and
    counted_flops (of 224 x 224 pixels, convention "paper") in the unit printed, not rounded.
    """
    rows = published.set_index(["backbone", "method"])[["parameters", "flops"]]
    rows = rows[rows.index.isin(_ARMS, level="method")]
    backbones = {name: backbone for backbone, name in NETWORKS.items()}
    units = {"M": MEBI, "G": GIBI}
    counted = []
    for (network, method), flops in rows["flops"].items():
        # The printed parameters imply this r.
        arm = "se(r=8)" if (network, method) == ("MobileNetV2", "SENet") else _ARMS[method]
        with torch.device("meta"):
            model = build_model(backbones[network], arm).eval()
        count = multiply_adds(model, 224, convention="paper")
        counted.append((arm, parameters(model) / MEBI, count / units[flops[-1]]))
    columns = ["arm", "counted_parameters", "counted_flops"]
    return rows.join(pd.DataFrame(counted, index=rows.index, columns=columns))


_ATEN = torch.ops.aten
# What else the paper's convention counts, from the shapes of an operator's inputs and output.
_ONE_EACH = _ATEN.relu, _ATEN.relu_, _ATEN.hardtanh_, _ATEN.mean, _ATEN.amax
_COUNTS = {
    _ATEN.native_batch_norm: lambda x, *_, **__: 4 * math.prod(x),
    **dict.fromkeys(_ONE_EACH, lambda x, *_, **__: math.prod(x)),
    _ATEN.max_pool2d_with_indices: lambda *_, out_shape, **__: math.prod(out_shape[0]),
}
# torch 2.11 takes an operator apart, without counting it, unless it finds the overload that was
# called; all versions look up the formula by the operator.
_PAPER = {
    key: count
    for operator, count in _COUNTS.items()
    for key in (operator, *(getattr(operator, name) for name in operator.overloads()))
}
