"""What it costs to look into a network, and what folding its attention saves.

    python benchmarks/your_network.py

Two runs take turns, and the second is divided by the first, turn by turn: the median, and the
least and largest. On one thread, in evaluation, random weights, images of zeros and ones drawn at
random; none of this has a part in the time.

- Recording the weights of SE-ResNet-50, 8 images of 128 pixels, over a plain pass of it.
- SE-ResNet-50 with all attention folded, over plain ResNet-50.
- With attention over folded, for three networks: what the attention costs in the end.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import timm
import torch
from torch import nn

from eca_lab import fold, record_weights

RECORDED = ("seresnet50", 128)
FOLDED = (("seresnet50", 224), ("efficientnet_b0", 224), ("mobilenetv3_large_100", 224))


def ratios(turns: int, first: Callable[[], object], second: Callable[[], object]) -> np.ndarray:
    """Seconds of the second over those of the first, one number a turn."""
    first()
    second()  # both are warm now
    found = []
    for _ in range(turns):
        marks = [time.perf_counter()]
        for run in (first, second):
            run()
            marks.append(time.perf_counter())
        found.append((marks[2] - marks[1]) / (marks[1] - marks[0]))
    return np.array(found)


def passing(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run():
        return model(images)

    return run


def folded(model: nn.Module, images: torch.Tensor) -> nn.Module:
    weights = record_weights(model, images).weights
    return fold(model, {site: values.mean(0) for site, values in weights.items()}, images)


def measure(turns: int, count: int, size: int | None) -> dict[str, np.ndarray]:
    """What is compared -> its ratios."""

    def images(side):
        return torch.rand(count, 3, size or side, size or side)

    found = {}
    name, side = RECORDED
    model, x = timm.create_model(name).eval(), images(side)
    found[f"recording {name} over a pass"] = ratios(
        turns, passing(model, x), lambda: record_weights(model, x)
    )
    for name, side in FOLDED:
        model, x = timm.create_model(name).eval(), images(side)
        without = folded(model, x[:2])
        if name == "seresnet50":
            plain = timm.create_model("resnet50").eval()
            pair = passing(plain, x), passing(without, x)
            found[f"{name} folded over resnet50"] = ratios(turns, *pair)
        pair = passing(without, x), passing(model, x)
        found[f"{name} over folded"] = ratios(turns, *pair)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, help="of all images, in pixels")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, one thread, {options.turns} turns of {options.images} images"
    )
    for what, found in measure(options.turns, options.images, options.size).items():
        print(f"{what:36} {np.median(found):.3f} ({found.min():.3f} to {found.max():.3f})")


if __name__ == "__main__":
    main()
