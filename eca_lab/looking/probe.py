"""Channel attention in a running network: record its weights, and intervene on them.

Of any network: attention is what `eca_lab.networks.sites` finds, the very weights that are applied.
Of CBAM the channel weights are meant.

Shapes: N images, C channels of a layer, which is named as in `model.named_modules`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eca_lab.checks import check_choice, check_integer
from eca_lab.networks import passes
from eca_lab.networks.sites import (
    Site,
    modules_like_attention,
    none_found,
    watching,
    without_product,
)

Change = Callable[[Tensor], Tensor]  # of the weights (N, C) of a batch, for `intervene`
Numbers = float | Sequence[float] | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class WeightRecord:
    """The channel weights of every image in every attention layer, in the order of the layers.

    weights maps a layer to a (N, C) float32 array, and so do descriptors, the means of each channel
    of its input, empty if they were not asked for. left_out says of what looks like channel
    attention, by name, why it is not recorded.
    """

    weights: dict[str, np.ndarray]
    descriptors: dict[str, np.ndarray] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def record_weights(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    *,
    prepare: passes.Prepare | None = None,
    batch_size: int = 250,
    descriptors: bool = False,
) -> WeightRecord:
    """Record the weights of all channel attention for every image: a `WeightRecord`.

    The model runs in evaluation mode, on the device and in the dtype of its parameters, and is
    left as it was found, also on an error. Within `intervene` the changed weights are recorded.

    Args:
        model: any with channel attention, also traced or compiled.
        images: (N, ...), on any device, or batches: a DataLoader, or another iterable, see
            `eca_lab.networks.passes.batches`.
        prepare: makes what the model is called with of a batch of images, such as
            `eca_lab.data.augmentation.input_transform(dataset)`. A tuple it is called with as
            arguments, a dict as arguments by name.
        batch_size: how many images of a tensor run at once.
        descriptors: record the means of each layer's input channels, too.

    Raises:
        TypeError, ValueError: a model in which no channel attention is found, or that is scripted;
            images that are neither, none, or integers without prepare.
    """
    kinds: dict[str, Callable[[Site], Tensor]] = {"weights": _weights}
    if descriptors:
        kinds["descriptors"] = _descriptors
    found, left_out = _run(model, images, prepare, batch_size=batch_size, kinds=kinds)
    return WeightRecord(**found, left_out=left_out)


def feature_maps(
    model: nn.Module, images: Tensor | Iterable[Any], *, prepare: passes.Prepare | None = None
) -> dict[str, np.ndarray]:
    """What channel attention weighs, for every image: layer -> (N, C, ...) float32 array.

    Arguments and errors as for `record_weights`. All of it is kept: meant for a few images.
    """
    found, _ = _run(model, images, prepare, batch_size=250, kinds={"maps": _maps})
    return found["maps"]


def _weights(site: Site) -> Tensor:
    return site.weights


def _descriptors(site: Site) -> Tensor:
    return site.channels_first.flatten(2).mean(2, dtype=torch.float32)


def _maps(site: Site) -> Tensor:
    return site.channels_first


def _run(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    prepare: passes.Prepare | None,
    *,
    batch_size: int,
    kinds: dict[str, Callable[[Site], Tensor]],
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Run the images through the model: kind of what is recorded -> layer -> (N, ...) array, and
    what was left out, and why.
    """
    parts: dict[str, list[dict[str, Tensor]]] = {}  # layer -> kind of each pass
    left_out: dict[str, str] = {}

    def keep(site: Site) -> None:
        # Copies: what is applied now may be written over in the same pass.
        kept = {kind: of(site).float().cpu().clone() for kind, of in kinds.items()}
        parts.setdefault(site.name, []).append(kept)

    number = 0  # of passes
    with ExitStack() as stack:
        stack.enter_context(passes.evaluating(model))
        sites = stack.enter_context(watching(model, keep))
        stack.enter_context(torch.inference_mode())
        for batch, _ in passes.batches(images, batch_size):
            passes.call(model, batch, prepare)
            left_out |= sites.left_out
            number += 1
    for layer, kept in parts.items():
        if len(kept) != number:
            left_out.setdefault(layer, "it does not run in every pass")
    left_out |= without_product(model, [*parts, *left_out])
    layers = [layer for layer in parts if layer not in left_out]
    if not layers:
        raise ValueError(none_found(model, left_out))
    found = {
        kind: {layer: torch.cat([kept[kind] for kept in parts[layer]]).numpy() for layer in layers}
        for kind in kinds
    }
    return found, left_out


@contextmanager
def intervene(model: nn.Module, layer: str, change: Change) -> Iterator[None]:
    """While the context is open, change the channel weights of one layer.

        with intervene(model, "layer2.attention", freeze(record.weights[...].mean(0))):
            ...

    The innermost of several comes last. The model has to run in the thread that opens the context.

    Args:
        model: with channel attention.
        layer: one of those that `record_weights` finds.
        change: a function from the weights (N, C) of a batch to those that are applied instead:
            `scale`, `freeze`, `permute` and `swap` make one, `off` is one.

    Raises:
        TypeError, ValueError: no function; no module of that name. Once the model has run, no
            channel attention there.
        ValueError, RuntimeError: from the model, for a change that does not fit the channels.
    """
    if not callable(change):
        raise TypeError(f"change={change!r}: accepted are functions, such as probe.freeze(0.5)")
    _check_module(model, layer)
    with _watching_one(model, layer, lambda site: change(site.weights)):
        yield


@contextmanager
def _watching_one(
    model: nn.Module, layer: str, handler: Callable[[Site], Tensor | None]
) -> Iterator[None]:
    """While the context is open, hand one site to the handler; a pass without it is an error."""

    def only(site: Site) -> Tensor | None:
        return handler(site) if site.name == layer else None

    def check(_: nn.Module, __: object, ___: object) -> None:
        if layer not in sites.found:
            left_out = sites.left_out | without_product(model, [*sites.found, *sites.left_out])
            found = ", ".join(sites.found)
            accepted = f"accepted are {found}" if found else none_found(model, left_out)
            raise ValueError(
                f"layer={layer!r}: {left_out.get(layer, 'no channel attention')}; {accepted}"
            )

    # Behind that of the sites, so that the pass is over for them.
    with watching(model, only) as sites, model.register_forward_hook(check):
        yield


def _check_module(model: nn.Module, layer: str) -> nn.Module:
    """The module in which a site stands; ValueError unless there is one of that name."""
    modules = dict(model.named_modules())
    accepted = modules_like_attention(model) or ["the layers that record_weights finds"]
    name = str(layer).partition("#")[0]
    if name not in modules:
        check_choice("layer", layer, accepted)
    return modules[name]


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
        layer: one of those that `record_weights` finds, which has a module to itself, of maps
            (N, C, ...).
        order: a permutation of its channels, (C,).

    Raises:
        ValueError: no module of that name, or no permutation. Once the model has run, attention
            that is not the module's own.
    """
    module = _check_module(model, layer)
    indices = _permutation(order)
    renumbered = permute(indices)
    restored = permute(indices.argsort())
    given: list[Tensor] = []

    def enter(_: nn.Module, inputs: tuple) -> tuple:
        given[:] = [renumbered(inputs[0])]
        return (given[0], *inputs[1:])

    def check(site: Site) -> None:
        if site.dimension != 1 or site.map is not given[0]:
            accepted = "accepted is attention with a module to itself, of maps (N, C, ...)"
            raise ValueError(f"layer={layer!r}: what it weighs is not its input; {accepted}")

    with ExitStack() as stack:
        for parameter in module.parameters():
            stack.callback(setattr, parameter, "data", parameter.data)
            for dimension, size in enumerate(parameter.shape):
                if size == len(indices):
                    there = indices.to(parameter.device)
                    parameter.data = parameter.data.index_select(dimension, there)
        stack.enter_context(_watching_one(model, layer, check))
        stack.enter_context(module.register_forward_pre_hook(enter))
        stack.enter_context(module.register_forward_hook(lambda _, __, out: restored(out)))
        yield


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
