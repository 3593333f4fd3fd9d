"""What a network costs: parameters, multiply-adds, and measured time.

Counts are plain integers. Table 3 of the ECA paper prints them in units of its own: its M is
`MEBI`, its G is `GIBI`.
"""

import math
import time

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from eca_lab.checks import check_choice, check_integer
from eca_lab.models import build_model

MEBI, GIBI = 2**20, 2**30
CONVENTIONS = ("torch", "paper")

# The rows of Table 3 that this package can build: (backbone, method) there -> ours. SE has r = 8
# on MobileNetV2, as the printed parameters imply.
_TABLE_3 = {
    (network, method): (backbone, arm)
    for network, backbone, plain, se in (
        ("ResNet-50", "resnet50", "ResNet", "se"),
        ("ResNet-101", "resnet101", "ResNet", "se"),
        ("ResNet-152", "resnet152", "ResNet", "se"),
        ("MobileNetV2", "mobilenet_v2", "MobileNetV2", "se(r=8)"),
    )
    for method, arm in ((plain, "none"), ("SENet", se), ("CBAM", "cbam"), ("ECA-Net", "eca"))
}


def parameters(model):
    """Number of learned parameters of a module."""
    return sum(each.numel() for each in model.parameters())


def multiply_adds(model, size, channels=3, convention="torch"):
    """Multiply-adds of one forward pass of one image, from shapes alone.

    Neither convention counts products element by element, such as the weights of SE-Var2 and
    ECA-NS, and the scaling of the features.

    Args:
        model: a module that takes (N, channels, size, size).
        size: side of the image in pixels.
        channels: 3 for a network, C for an attention module on its own.
        convention: "torch": those of convolutions and matrix products, by torch's own counter,
            whose FLOPs are twice as many. Or "paper", what the FLOPs of Table 3 are: multiply-adds
            of convolutions, 2 per weight of fully connected layers, 4 per element that a BatchNorm
            puts out, 1 per element of a ReLU or ReLU6, and 1 per element that a global pooling
            takes in or a MaxPool puts out.

    Raises:
        TypeError, ValueError: naming what is not accepted.
    """
    check_integer("size", size)
    check_integer("channels", channels)
    check_choice("convention", convention, CONVENTIONS)
    # Tensors without numbers take the place of the model's own for one call, and its BatchNorms
    # count nothing. Two images: from one, a BatchNorm in training may get a single value.
    images, paper = 2, convention == "paper"
    tensors = [*model.named_parameters(), *model.named_buffers()]
    stand_ins = {name: tensor.detach().to("meta") for name, tensor in tensors}
    x = torch.empty(images, channels, size, size, device="meta")
    counter = FlopCounterMode(display=False, custom_mapping=_PAPER if paper else None)
    with torch.no_grad(), counter:
        torch.func.functional_call(model, stand_ins, x)
    counts = counter.get_flop_counts().get("Global", {})
    flops = sum(counts.values())
    return (flops - counts.get(_ATEN.convolution, 0) // 2 if paper else flops // 2) // images


def table_3(published):
    """Table 3 of the paper, as printed and as counted, for the networks that can be built here.

    Of the DataFrame of data/paper/table3_backbones.csv it makes one indexed by the paper's
    (backbone, method), 14 rows: arm, ours; parameters and flops as printed, such as "24.37M";
    counted_parameters and counted_flops (of a 224 x 224 image, by convention "paper") in the unit
    of the printed number, not rounded.
    """
    rows = published.set_index(["backbone", "method"])[["parameters", "flops"]]
    rows = rows[rows.index.isin(_TABLE_3)]
    counted = []
    for key, flops in rows["flops"].items():
        backbone, arm = _TABLE_3[key]
        with torch.device("meta"):
            model = build_model(backbone, arm).eval()
        count = multiply_adds(model, 224, convention="paper") / {"M": MEBI, "G": GIBI}[flops[-1]]
        counted.append((arm, parameters(model) / MEBI, count))
    columns = ["arm", "counted_parameters", "counted_flops"]
    return rows.join(pd.DataFrame(counted, index=rows.index, columns=columns))


def step_seconds(models, size, batch_size, repeats=10):
    """Measured time of a forward pass and of a training step, each relative to the first model.

    The models take turns, one step each in every round and in the opposite order in every second
    one, so that whatever else the machine does meets all of them; ratios are of one round. A first
    round warms up. Forward passes are in evaluation mode and without gradients; a training step is
    forward pass, cross-entropy, backward pass and SGD at a learning rate of zero, on random images:
    the weights stay as they are, BatchNorm's running statistics move.

    Args:
        models: name -> classifier, all on one device, where the time is measured.
        size: side of the images in pixels.
        batch_size: images per step.
        repeats: rounds, at least 2.

    Returns:
        DataFrame indexed by (step, name), step being "forward" and "training": seconds, the median
        over the rounds; ratio, the median ratio to the first model; ratio_low and ratio_high, the
        quartiles of that ratio.
    """
    check_integer("size", size)
    check_integer("batch_size", batch_size)
    check_integer("repeats", repeats, least=2)  # to see the spread
    if not models:
        raise ValueError("models={}: accepted is at least one")
    device = next(next(iter(models.values())).parameters()).device
    x = torch.randn(batch_size, 3, size, size, device=device)
    rows = []
    for step in (_forward, _training):
        seconds = {name: [] for name in models}
        for turn in range(repeats + 1):
            order = list(models) if turn % 2 else list(models)[::-1]
            for name in order:
                seconds[name].append(_timed(step, models[name], x))
        rounds = pd.DataFrame(seconds).iloc[1:]
        ratios = rounds.div(rounds.iloc[:, 0], axis=0).quantile([0.5, 0.25, 0.75]).T
        ratios.columns = ["ratio", "ratio_low", "ratio_high"]
        rows.append(ratios.assign(seconds=rounds.median())[["seconds", *ratios.columns]])
    return pd.concat(rows, keys=["forward", "training"], names=["step", "name"])


def _timed(step, model, x):
    training = model.training
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    start = time.perf_counter()
    step(model, x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    seconds = time.perf_counter() - start
    # Outside of the measured time: only one model at a time holds gradients.
    model.zero_grad()
    model.train(training)
    return seconds


@torch.no_grad()
def _forward(model, x):
    model.eval()(x)


def _training(model, x):
    logits = model.train()(x)
    F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long, device=x.device)).backward()
    torch.optim.SGD(model.parameters(), lr=0).step()


_ATEN = torch.ops.aten


# What the paper's convention counts beside convolutions and matrix products, from the shapes of an
# operator's inputs and output.
_PAPER = {
    _ATEN.native_batch_norm: lambda x, *_, **__: 4 * math.prod(x),
    **dict.fromkeys(
        (_ATEN.relu, _ATEN.relu_, _ATEN.hardtanh_, _ATEN.mean, _ATEN.amax),
        lambda x, *_, **__: math.prod(x),
    ),
    _ATEN.max_pool2d_with_indices: lambda *_, out_shape, **__: math.prod(out_shape[0]),
}
