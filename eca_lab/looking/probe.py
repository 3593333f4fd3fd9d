"""Channel attention in a running network: record its weights, and intervene on them.

Of our own modules (of CBAM the channel weights are meant), and of those of timm and torchvision
that `_GATES` names: the very weights that the module applies, taken where it computes them.

Shapes: N images, C channels of a layer, which is named as in `model.named_modules`.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from eca_lab.checks import check_choice, check_integer

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
    of its input, None if they were not asked for.
    """

    weights: dict
    descriptors: dict | None = None


def attention_layers(model):
    """The attention modules of a model by name, in order; empty without any."""
    return {name: module for name, module in model.named_modules() if _gate(module) is not None}


def record_weights(model, images, prepare=None, batch_size=250, descriptors=False):
    """Record the weights of every attention module for every image: a `WeightRecord`.

    The model runs in evaluation mode, on the device and in the dtype of its parameters, and is
    left as it was found, also on an error. Within `intervene` the changed weights are recorded.

    images are a tensor (N, ...) on any device; prepare makes the model's input of a batch of them,
    such as `eca_lab.data.augmentation.input_transform(dataset)`. descriptors adds the means of each
    layer's input channels. ValueError: a model without channel attention, or with a layer that does
    not run exactly once a pass; images that are no tensor, none, or uint8 without prepare.
    """
    kinds = ("weights", "descriptors") if descriptors else ("weights",)
    return WeightRecord(**_run(model, images, prepare, batch_size, kinds))


def feature_maps(model, images, prepare=None):
    """What every attention module is given for every image: layer -> (N, C, h, w) float32 array.

    Arguments and errors as for `record_weights`. All of it is kept: meant for a few images.
    """
    return _run(model, images, prepare, 250, ("inputs",))["inputs"]


def _run(model, images, prepare, batch_size, kinds):
    """Run the images through the model: kind of what is recorded -> layer -> (N, ...) array."""
    layers = attention_layers(model)
    if not layers:
        known = ", ".join(f"{'.'.join(each)} with a {gate}" for each, gate in _GATES.items())
        name = type(model).__name__
        raise ValueError(f"{name} has no channel attention: accepted are models with {known}")
    check_integer("batch_size", batch_size)
    if not isinstance(images, torch.Tensor) or not len(images):
        raise ValueError("images: accepted is a tensor (N, ...) of one or more")
    if prepare is None and not images.is_floating_point():
        raise ValueError(f"images of {images.dtype} without prepare: accepted are floats")
    like = next(model.parameters(), torch.empty(0))
    found = {kind: {layer: [] for layer in layers} for kind in kinds}
    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
        model.eval()
        for kind, (layer, module) in product(kinds, layers.items()):
            stack.enter_context(_watch(module, kind, found[kind][layer]))
        stack.enter_context(torch.inference_mode())
        for passes, batch in enumerate(images.split(batch_size)):
            batch = batch.to(like.device)
            model((batch if prepare is None else prepare(batch)).to(like.dtype))
            for layer, kind in product(layers, kinds):
                if (times := len(found[kind][layer]) - passes) != 1:
                    raise ValueError(f"{layer} ran {times} times in a pass: accepted is once")
    return {
        kind: {layer: torch.cat(parts).numpy() for layer, parts in by_layer.items()}
        for kind, by_layer in found.items()
    }


def _watch(module, kind, found):
    """A hook that appends to a list what a module gives, or is given, in each pass."""

    def given(_, inputs):
        x = inputs[0]
        x = x.mean((2, 3), dtype=torch.float32) if kind == "descriptors" else x.clone()
        found.append(x.float().cpu())

    def weights(_, __, out):
        found.append(out.flatten(1).float().cpu())

    if kind == "weights":
        return _gate(module).register_forward_hook(weights)
    return module.register_forward_pre_hook(given)


@contextmanager
def intervene(model, layer, change):
    """While the context is open, change the channel weights of one layer.

        with intervene(model, "layer2.attention", freeze(record.weights[...].mean(0))):
            ...

    A change is a function from the weights (N, C) of a batch to those that are applied instead:
    `scale`, `freeze`, `permute` and `swap` make one, `off` is one. The innermost comes last.
    TypeError, ValueError for what is no function, or no layer; ValueError, RuntimeError from the
    model for a change that does not fit the channels.
    """
    gate = _gate(_layer(model, layer))
    if not callable(change):
        raise TypeError(f"change={change!r}: accepted are functions, such as probe.freeze(0.5)")

    def changed(_, __, out):  # of shape (N, C), or (N, C, 1, 1), or (N, 1, C)
        return change(out.flatten(1)).reshape(out.shape)

    with gate.register_forward_hook(changed):
        yield


def scale(factor):
    """A change for `intervene`: multiply the weights by a number, or each by its own, (C,)."""
    factor = _finite("factor", factor)
    return lambda weights: weights * factor.to(weights)


def freeze(weights):
    """A change for `intervene`: the same weights for every image, a number or (C,)."""
    frozen = _finite("weights", weights)
    return lambda weights: frozen.to(weights).expand_as(weights)


def permute(order):
    """A change for `intervene`: channel c gets the weight of channel order[c], for every image."""
    order = _permutation(order)

    def change(weights):
        if len(order) != (channels := weights.shape[1]):
            raise ValueError(f"order of length {len(order)}: accepted is {channels}")
        return weights[:, order.to(weights.device)]

    return change


def swap(shift=1):
    """A change for `intervene`: image i gets the weights of image i - shift of its batch.

    In the order of `shapes`, 10 swaps within a class, 1 between classes.
    """
    check_integer("shift", shift)

    def change(weights):
        if shift % len(weights) == 0:
            raise ValueError(f"shift={shift}: {len(weights)} images would keep their weights")
        return weights.roll(shift, 0)

    return change


def off(weights):
    """A change for `intervene`: weights of 1, which pass every channel as it is."""
    return torch.ones_like(weights)


@contextmanager
def renumber(model, layer, order):
    """While the context is open, number the channels otherwise that one attention module sees.

    Channel i is then the one that was order[i]: the module gets its input in the new order, with
    every parameter dimension of size C taken along, and its output is put back in place. To SE
    channels are but names, and nothing changes; ECA sees other neighbours. Weights recorded
    meanwhile are in the new order. ValueError for no layer, and for no permutation.
    """
    module, order = _layer(model, layer), _permutation(order)
    renumbered, restored = permute(order), permute(order.argsort())
    with ExitStack() as stack:
        for parameter in module.parameters():
            stack.callback(setattr, parameter, "data", parameter.data)
            for dimension, size in enumerate(parameter.shape):
                if size == len(order):
                    own = order.to(parameter.device)
                    parameter.data = parameter.data.index_select(dimension, own)
        stack.enter_context(module.register_forward_pre_hook(lambda _, x: renumbered(x[0])))
        stack.enter_context(module.register_forward_hook(lambda _, __, out: restored(out)))
        yield


def _gate(module):
    """The sub-module of an attention module whose output is the channel weights; else None."""
    for kind in type(module).__mro__:
        gate = _GATES.get((kind.__module__.split(".")[0], kind.__name__))
        if gate and isinstance(getattr(module, gate, None), nn.Module):
            return getattr(module, gate)
    return None


def _layer(model, name):
    """The attention module of that name."""
    layers = attention_layers(model)
    check_choice("layer", name, layers or ["none, since the model has no channel attention"])
    return layers[name]


def _finite(name, values):
    """A finite number or (C,) of them as a tensor, or ValueError."""
    values = torch.as_tensor(values, dtype=torch.float32)
    if values.dim() > 1 or not values.isfinite().all():
        raise ValueError(f"{name}: accepted is a finite number, or one for each channel")
    return values


def _permutation(order):
    order = torch.as_tensor(order)
    if sorted(order.tolist()) != list(range(len(order))):
        raise ValueError(f"order={order.tolist()}: accepted is each integer of 0 to C - 1, once")
    return order.long()
