"""A network as data, which a page runs by itself: its layers as JSON, its weights in float16."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from eca_lab.attention.modules import ECA, SE, ChannelAttention
from eca_lab.checks import check_integer, shown

MOST_WEIGHTS = 2_000_000  # 4 MB
MOST_MULTIPLY_ADDS = 200_000_000  # per image: about a fifth of a second

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (F.relu, torch.relu)


def describe(
    model: nn.Module, statistics: tuple[Tensor, Tensor], *, size: Sequence[int]
) -> dict[str, Any]:
    """What `network.js` is told of a network, to compute what it computes.

    Layers are numbered from the image, which is 0, and each says `from` which it takes its maps:

        conv       a convolution, into which the BatchNorm behind it is folded; a linear layer is
                   one of a map of one position
        relu, add, mean (over the positions), maxpool
        eca, se    a map times its weights

    Their weights follow each other in `weights`, as float16, in the order of the layers.

    Args:
        model: in evaluation mode; takes (N, 3, H, W).
        statistics: mean and std, (3,) of values in 0..1, by which its input is normalised, as
            `eca_lab.data.augmentation.channel_statistics` gives.
        size: (H, W) of the images.

    Raises:
        TypeError: no model.
        ValueError: one that a page cannot compute, or not in time. The message says why.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={shown(model)}: accepted is a torch.nn.Module")
    for name, pixels in zip(("height", "width"), size, strict=True):
        check_integer(name, pixels)
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode: accepted is one in evaluation mode")
    if sum(weights.numel() for weights in model.parameters()) > MOST_WEIGHTS:
        raise ValueError(f"the model is large: accepted are at most {MOST_WEIGHTS:,} parameters")
    try:
        graph = fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # of the model's own code, which is given no numbers
        raise ValueError(f"the model's layers cannot be told from its code: {error}") from None
    writer = _Writer(graph)
    like = next(model.parameters(), torch.empty(0))
    with torch.inference_mode():
        writer.run(torch.zeros(1, 3, *size, dtype=like.dtype, device=like.device))
    mean, std = (each.tolist() for each in statistics)
    return {
        "size": list(size),
        "mean": mean,
        "std": std,
        "layers": writer.layers,
        "weights": b"".join(writer.weights),
    }


class _Tracer(fx.Tracer):
    """Looks into all modules but torch's own and the attention."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ChannelAttention) or super().is_leaf_module(module, name)


class _Writer(fx.Interpreter):
    """Runs a model once, and writes down each of its steps as a layer."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.extra_traceback = False  # our messages as they are
        self.layers: list[dict[str, Any]] = []
        self.weights: list[bytes] = []
        self._numbers: dict[fx.Node, int] = {}  # of the layers that give what the nodes give
        self._multiply_adds = 0

    def run_node(self, node: fx.Node) -> Any:
        out = super().run_node(node)
        if node.op == "placeholder" and not self.layers:
            self._layer(node, "image")
        elif node.op == "call_module":
            self._module(node, self.submodules[node.target], out)
        elif node.op == "output":
            self._check_output(node, out)
        elif node not in self._numbers:
            self._function(node, out)
        return out

    def _module(self, node: fx.Node, module: nn.Module, out: Tensor) -> None:
        kind = type(module)
        if write := _WRITERS.get(kind):
            write(self, node, module, out)
        elif kind is nn.Identity:
            self._same(node)
        elif kind is nn.Flatten:
            self._flatten(node, out)
        elif kind is nn.ReLU:
            self._layer(node, "relu")
        elif kind is not nn.BatchNorm2d or node not in self._numbers:
            self._refuse(node, f"it is a {kind.__name__}")

    def _function(self, node: fx.Node, out: Any) -> None:
        called = node.target
        maps = [each for each in node.args if isinstance(each, fx.Node)]
        if called in _ADDITIONS and len(maps) == 2 and not node.kwargs:
            if self.env[maps[0]].shape != self.env[maps[1]].shape:
                self._refuse(node, "it adds maps of two sizes")
            self._layer(node, "add")
        elif called in _RELUS:
            self._layer(node, "relu")
        elif called in ("flatten", torch.flatten):
            self._flatten(node, out)
        else:
            self._refuse(node, f"it calls {getattr(called, '__name__', called)}")

    def _layer(self, node: fx.Node, op: str, **more: Any) -> None:
        inputs = [self._numbers[each] for each in node.all_input_nodes]
        if len(inputs) == 1 and op == "add":
            inputs *= 2  # of a map with itself
        self._numbers[node] = len(self.layers)
        self.layers.append({"op": op, "from": inputs, **more})

    def _same(self, node: fx.Node) -> None:
        [given] = node.all_input_nodes
        self._numbers[node] = self._numbers[given]

    def _flatten(self, node: fx.Node, out: Tensor) -> None:
        [given] = node.all_input_nodes
        if out.shape != self.env[given].shape[:2] or out.shape[1:].numel() != out.numel():
            self._refuse(node, "it flattens more than one position")
        self._same(node)

    def _conv(self, node: fx.Node, conv: nn.Conv2d, out: Tensor) -> None:
        (side, wide), (stride, right), padding = conv.kernel_size, conv.stride, conv.padding
        square = side == wide and stride == right and padding in ((0, 0), padding[:1] * 2)
        plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        if isinstance(padding, str) or not (square and plain):
            self._refuse(node, f"{conv}: accepted are square ones, without groups or dilation")
        bn = self._batch_norm_behind(node)
        weight, bias = _folded(conv, bn)
        options = {"stride": stride, "padding": padding[0]}
        self._product(node, weight, bias, positions=out[0, 0].numel(), **options)
        if bn is not None:
            [user] = node.users
            self._numbers[user] = self._numbers[node]

    def _linear(self, node: fx.Node, linear: nn.Linear, out: Tensor) -> None:
        [given] = node.all_input_nodes
        if self.env[given].shape != (1, linear.in_features):
            self._refuse(node, "it is a linear layer of other than one position")
        weight, bias = _numbers(linear.weight), np.zeros(linear.out_features)
        if linear.bias is not None:
            bias = _numbers(linear.bias)
        self._product(node, weight[:, :, None, None], bias, positions=1, stride=1, padding=0)

    def _product(
        self,
        node: fx.Node,
        weight: np.ndarray,
        bias: np.ndarray,
        *,
        positions: int,
        **options: int,
    ) -> None:
        self._multiply_adds += weight.size * positions
        if self._multiply_adds > MOST_MULTIPLY_ADDS:
            most = f"accepted are at most {MOST_MULTIPLY_ADDS:,} multiply-adds for an image"
            raise ValueError(f"the model takes long: {most}")
        outputs, inputs, side, _ = weight.shape
        self._write(node, weight, bias)
        self._layer(node, "conv", inputs=inputs, outputs=outputs, side=side, **options)

    def _maxpool(self, node: fx.Node, pool: nn.MaxPool2d, _: Tensor) -> None:
        options = {"side": pool.kernel_size, "stride": pool.stride, "padding": pool.padding}
        square = all(isinstance(each, int) for each in options.values())
        if not square or pool.dilation != 1 or pool.ceil_mode or pool.return_indices:
            self._refuse(node, f"{pool}: accepted are square ones that round down")
        self._layer(node, "maxpool", **options)

    def _mean(self, node: fx.Node, pool: nn.AdaptiveAvgPool2d, _: Tensor) -> None:
        if pool.output_size not in (1, (1, 1)):
            self._refuse(node, f"{pool}: accepted is an output of one position")
        self._layer(node, "mean")

    def _eca(self, node: fx.Node, eca: ECA, _: Tensor) -> None:
        self._write(node, _numbers(eca.conv.weight))
        order = eca.permutation.tolist() if eca.order == "shuffled" else None
        circular = eca.padding == "circular"
        options = {"k": eca.kernel_size, "circular": circular, "order": order}
        self._layer(node, "eca", name=node.target, **options)

    def _se(self, node: fx.Node, se: SE, _: Tensor) -> None:
        self._write(node, _numbers(se.fc1.weight), _numbers(se.fc2.weight))
        self._layer(node, "se", name=node.target, hidden=se.fc1.out_features)

    def _write(self, node: fx.Node, *arrays: np.ndarray) -> None:
        for array in arrays:
            with np.errstate(over="ignore"):
                half = array.astype("<f2")
            if not np.isfinite(half).all():
                self._refuse(node, "its weights are no numbers that float16 can hold")
            self.weights.append(half.tobytes())

    def _batch_norm_behind(self, node: fx.Node) -> nn.BatchNorm2d | None:
        """What alone takes the maps of a convolution, if it is a BatchNorm."""
        if len(node.users) != 1:
            return None
        [user] = node.users
        module = self.submodules.get(user.target) if user.op == "call_module" else None
        if type(module) is not nn.BatchNorm2d or module.running_mean is None:
            return None
        return module

    def _check_output(self, node: fx.Node, out: Any) -> None:
        last = [len(self.layers) - 1]
        given = [self._numbers[each] for each in node.all_input_nodes]
        if not isinstance(out, Tensor) or out.dim() != 2 or given != last:
            raise ValueError("the model gives no (N, classes): accepted are logits by class")

    def _refuse(self, node: fx.Node, reason: str) -> NoReturn:
        raise ValueError(f"{node.target}: {reason}, which a page does not compute")


_WRITERS: dict[type, Callable[..., None]] = {
    nn.Conv2d: _Writer._conv,
    nn.Linear: _Writer._linear,
    nn.MaxPool2d: _Writer._maxpool,
    nn.AdaptiveAvgPool2d: _Writer._mean,
    ECA: _Writer._eca,
    SE: _Writer._se,
}


def _numbers(weights: Any) -> np.ndarray:
    # Any: a BatchNorm says of what it has that it may be None.
    return weights.detach().double().cpu().numpy()


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d | None) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias, in float64, of a convolution that does what both do in evaluation mode."""
    weight = _numbers(conv.weight)
    bias = np.zeros(len(weight)) if conv.bias is None else _numbers(conv.bias)
    if bn is None:
        return weight, bias
    scale = (_numbers(bn.running_var) + bn.eps) ** -0.5
    bias = (bias - _numbers(bn.running_mean)) * scale
    if bn.weight is None or bn.bias is None:
        return weight * scale[:, None, None, None], bias
    gamma, beta = _numbers(bn.weight), _numbers(bn.bias)
    return weight * (gamma * scale)[:, None, None, None], gamma * bias + beta
