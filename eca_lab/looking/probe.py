"""Channel attention in a running network: record its weights, and intervene on them.

Of our own modules (of CBAM the channel weights are meant), and of those of timm and torchvision
that `_GATES` names: the very weights that the module applies, taken where it computes them.

Shapes: N images, C channels of a layer, which is named as in `model.named_modules`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from eca_lab.checks import check_choice, check_integer

Change = Callable[[Tensor], Tensor]  # of the weights (N, C) of a batch, for `intervene`
Numbers = float | Sequence[float] | np.ndarray | Tensor

# (package, class) -> the sub-module whose output is the channel weights. By name, so that timm need
# not be installed. A class of that name without one, as in timm's legacy networks, is another.
_GATES = {
    ("eca_lab", "ChannelAttention"): "gate",
    ("timm", "EcaModule"): "gate",
    ("timm", "CecaModule"): "gate",
    ("timm", "SEModule"): "gate",
    ("timm", "SqueezeExcite"): "gate",
    ("torchvision", "SqueezeExcitation"): "scale_activation",
}


@dataclass(frozen=True, eq=False)
class WeightRecord:
    """The channel weights of every image in every attention layer, in the order of the layers.

    weights maps a layer to a (N, C) float32 array, and so do descriptors, the means of each channel
    of its input, empty if they were not asked for.
    """

    weights: dict[str, np.ndarray]
    descriptors: dict[str, np.ndarray] = field(default_factory=dict)


def attention_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The attention modules of a model by name, in order; empty without any."""
    return {name: module for name, module in model.named_modules() if _gate(module) is not None}


def record_weights(
    model: nn.Module,
    images: Tensor,
    *,
    prepare: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 250,
    descriptors: bool = False,
) -> WeightRecord:
    """Record the weights of every attention module for every image: a `WeightRecord`.

    The model runs in evaluation mode, on the device and in the dtype of its parameters, and is
    left as it was found, also on an error. Within `intervene` the changed weights are recorded.

    Args:
        model: with channel attention, see `attention_layers`.
        images: (N, ...), on any device.
        prepare: makes the model's input of a batch of images, such as
            `eca_lab.data.augmentation.input_transform(dataset)`.
        batch_size: how many images run at once.
        descriptors: record the means of each layer's input channels, too.

    Raises:
        ValueError: a model without channel attention, or with a layer that does not run exactly
            once a pass; images that are no tensor, none, or uint8 without prepare.
    """
    kinds = ("weights", "descriptors") if descriptors else ("weights",)
    return WeightRecord(**_run(model, images, prepare, batch_size=batch_size, kinds=kinds))


def feature_maps(
    model: nn.Module, images: Tensor, *, prepare: Callable[[Tensor], Tensor] | None = None
) -> dict[str, np.ndarray]:
    """What every attention module is given for every image: layer -> (N, C, h, w) float32 array.

    Arguments and errors as for `record_weights`. All of it is kept: meant for a few images.
    """
    return _run(model, images, prepare, batch_size=250, kinds=("inputs",))["inputs"]


def _run(
    model: nn.Module,
    images: Tensor,
    prepare: Callable[[Tensor], Tensor] | None,
    *,
    batch_size: int,
    kinds: tuple[str, ...],
) -> dict[str, dict[str, np.ndarray]]:
    """Run the images through the model: kind of what is recorded -> layer -> (N, ...) array."""
    layers = attention_layers(model)
    if not layers:
        known = [f"{package}.{kind} with a {gate}" for (package, kind), gate in _GATES.items()]
        accepted = f"accepted are models with {', '.join(known)}"
        raise ValueError(f"{type(model).__name__} has no channel attention: {accepted}")
    check_integer("batch_size", batch_size)
    if not isinstance(images, torch.Tensor) or not len(images):
        raise ValueError("images: accepted is a tensor (N, ...) of one or more")
    if prepare is None and not images.is_floating_point():
        raise ValueError(f"images of {images.dtype} without prepare: accepted are floats")
    like = next(model.parameters(), torch.empty(0))
    # kind -> layer -> one tensor for each pass
    found: dict[str, dict[str, list[Tensor]]] = {
        kind: {layer: [] for layer in layers} for kind in kinds
    }
    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
        model.eval()
        for kind, (layer, module) in product(kinds, layers.items()):
            stack.enter_context(_watch(module, kind, found[kind][layer]))
        stack.enter_context(torch.inference_mode())
        for passes, batch in enumerate(images.split(batch_size)):
            inputs = batch.to(like.device)
            if prepare is not None:
                inputs = prepare(inputs)
            model(inputs.to(like.dtype))
            for layer, kind in product(layers, kinds):
                times = len(found[kind][layer]) - passes
                if times != 1:
                    raise ValueError(f"{layer} ran {times} times in a pass: accepted is once")
    return {
        kind: {layer: torch.cat(parts).numpy() for layer, parts in by_layer.items()}
        for kind, by_layer in found.items()
    }


def _watch(module: nn.Module, kind: str, found: list[Tensor]) -> RemovableHandle:
    """A hook that appends to a list what a module gives, or is given, in each pass."""

    def keep_weights(_: nn.Module, __: object, out: Tensor) -> None:
        found.append(out.flatten(1).float().cpu())

    def keep_descriptors(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].mean((2, 3), dtype=torch.float32).cpu())

    def keep_inputs(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].clone().float().cpu())

    if kind == "weights":
        return _gate(module).register_forward_hook(keep_weights)
    hook = keep_descriptors if kind == "descriptors" else keep_inputs
    return module.register_forward_pre_hook(hook)


@contextmanager
def intervene(model: nn.Module, layer: str, change: Change) -> Iterator[None]:
    """While the context is open, change the channel weights of one layer.

        with intervene(model, "layer2.attention", freeze(record.weights[...].mean(0))):
            ...

    The innermost of several comes last.

    Args:
        model: with channel attention.
        layer: one of `attention_layers`.
        change: a function from the weights (N, C) of a batch to those that are applied instead:
            `scale`, `freeze`, `permute` and `swap` make one, `off` is one.

    Raises:
        TypeError, ValueError: no function, or no layer.
        ValueError, RuntimeError: from the model, for a change that does not fit the channels.
    """
    gate = _gate(_layer(model, layer))
    if not callable(change):
        raise TypeError(f"change={change!r}: accepted are functions, such as probe.freeze(0.5)")

    def changed(
        _: nn.Module, __: object, out: Tensor
    ) -> Tensor:  # of shape (N, C), or (N, C, 1, 1), or (N, 1, C)
        return change(out.flatten(1)).reshape(out.shape)

    with gate.register_forward_hook(changed):
        yield


def scale(factor: Numbers) -> Change:
    """A change for `intervene`: multiply the weights by a number, or each by its own, (C,)."""
    factors = _finite("factor", factor)
    return lambda weights: weights * factors.to(weights)


def freeze(weights: Numbers) -> Change:
    """A change for `intervene`: the same weights for every image, a number or (C,)."""
    frozen = _finite("weights", weights)
    return lambda weights: frozen.to(weights).expand_as(weights)


def permute(order: Sequence[int] | np.ndarray | Tensor) -> Change:
    """A change for `intervene`: channel c gets the weight of channel order[c], for every image."""
    indices = _permutation(order)

    def change(weights: Tensor) -> Tensor:
        channels = weights.shape[1]
        if len(indices) != channels:
            raise ValueError(f"order of length {len(indices)}: accepted is {channels}")
        return weights[:, indices.to(weights.device)]

    return change


def swap(shift: int = 1) -> Change:
    """A change for `intervene`: image i gets the weights of image i - shift of its batch.

    In the order of `shapes`, 10 swaps within a class, 1 between classes.
    """
    check_integer("shift", shift)

    def change(weights: Tensor) -> Tensor:
        if shift % len(weights) == 0:
            raise ValueError(f"shift={shift}: {len(weights)} images would keep their weights")
        return weights.roll(shift, 0)

    return change


def off(weights: Tensor) -> Tensor:
    """A change for `intervene`: weights of 1, which pass every channel as it is."""
    return torch.ones_like(weights)


@contextmanager
def renumber(
    model: nn.Module, layer: str, order: Sequence[int] | np.ndarray | Tensor
) -> Iterator[None]:
    """While the context is open, number the channels otherwise that one attention module sees.

    Channel i is then the one that was order[i]: the module gets its input in the new order, with
    every parameter dimension of size C taken along, and its output is put back in place. To SE
    channels are but names, and nothing changes; ECA sees other neighbours. Weights recorded
    meanwhile are in the new order.

    Args:
        model: with channel attention.
        layer: one of `attention_layers`.
        order: a permutation of its channels, (C,).

    Raises:
        ValueError: no layer, or no permutation.
    """
    module = _layer(model, layer)
    indices = _permutation(order)
    renumbered = permute(indices)
    restored = permute(indices.argsort())
    with ExitStack() as stack:
        for parameter in module.parameters():
            stack.callback(setattr, parameter, "data", parameter.data)
            for dimension, size in enumerate(parameter.shape):
                if size == len(indices):
                    there = indices.to(parameter.device)
                    parameter.data = parameter.data.index_select(dimension, there)
        stack.enter_context(module.register_forward_pre_hook(lambda _, x: renumbered(x[0])))
        stack.enter_context(module.register_forward_hook(lambda _, __, out: restored(out)))
        yield


def _gate(module: nn.Module) -> nn.Module | None:
    """The sub-module of an attention module whose output is the channel weights; else None."""
    for kind in type(module).__mro__:
        gate = _GATES.get((kind.__module__.split(".")[0], kind.__name__))
        if gate and isinstance(getattr(module, gate, None), nn.Module):
            return getattr(module, gate)
    return None


def _layer(model: nn.Module, name: str) -> nn.Module:
    """The attention module of that name."""
    layers = attention_layers(model)
    check_choice("layer", name, layers or ["none, since the model has no channel attention"])
    return layers[name]


def _finite(name: str, values: Numbers) -> Tensor:
    """A finite number or (C,) of them as a tensor, or ValueError."""
    numbers = torch.as_tensor(values, dtype=torch.float32)
    if numbers.dim() > 1 or not numbers.isfinite().all():
        raise ValueError(f"{name}: accepted is a finite number, or one for each channel")
    return numbers


def _permutation(order: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    indices = torch.as_tensor(order)
    if sorted(indices.tolist()) != list(range(len(indices))):
        raise ValueError(f"order={indices.tolist()}: accepted is each integer of 0 to C - 1, once")
    return indices.long()
