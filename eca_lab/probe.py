"""Channel attention in a running network: record its weights, measure them, intervene on them.

Works on our own attention modules and, without changes to them, on timm's EcaModule, CecaModule,
SEModule and SqueezeExcite, and on torchvision.ops.SqueezeExcitation. Of modules that have a spatial
map, too, such as CBAM, the channel weights are meant.

Shapes: N images, C channels of a layer, G classes. A layer is known by the name of its attention
module, as `model.named_modules` gives it.

What is recorded are the very weights that the module applies, taken where it computes them: from
the method `weights` of our modules, from the module that is the last activation of the others.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from eca_lab.attention import ChannelAttention
from eca_lab.checks import check_integer

CONFIDENCE = 0.95

# The largest variance of a weight that counts as none: rounding leaves some 1e-33.
_CONSTANT = 1e-20

# (package, class) -> the sub-module whose output is the channel weights. By name, so that timm
# need not be installed. timm.layers.SqueezeExcite is SEModule; that of its EfficientNets is not.
_GATES = {
    ("timm", "EcaModule"): "gate",
    ("timm", "CecaModule"): "gate",
    ("timm", "SEModule"): "gate",
    ("timm", "SqueezeExcite"): "gate",
    ("torchvision", "SqueezeExcitation"): "scale_activation",
}


# --- Recording --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class WeightRecord:
    """The channel weights of every image in every attention layer.

    Attributes:
        weights: layer -> (N, C) float32 array, in the order in which the layers stand in the model.
        labels: (N,) integers, or None.
        descriptors: layer -> (N, C) float32 array, the mean of each channel of the layer's input;
            None if they were not asked for.
    """

    weights: dict
    labels: np.ndarray | None = None
    descriptors: dict | None = None

    @property
    def layers(self):
        return list(self.weights)


def attention_layers(model):
    """The attention modules of a model by name, in order; empty without any."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, ChannelAttention) or _gate_name(module)
    }


def record_weights(model, images, labels=None, prepare=None, batch_size=250, descriptors=False):
    """Record the weights of every attention module for every image, in one pass.

    The model runs in evaluation mode, on the device and in the dtype of its parameters, and is
    left as it was found, also on an error. Within `intervene` the changed weights are recorded.

    Memory: 4 bytes for each image and channel of each layer, twice that with the descriptors;
    beside that, one batch. `record_class_moments` needs none that grows with N.

    Args:
        model: a module that takes a batch of images.
        images: (N, ...) tensor, on any device.
        labels: (N,) integers, kept in the record.
        prepare: function from a batch of images to the model's input, so that uint8 images may
            stay uint8: `eca_lab.train.input_transform(dataset)` for our networks, or the
            transforms of torchvision's pretrained ones. Left out, the images are the input.
        batch_size: images a batch.
        descriptors: record the means of each layer's input channels, too.

    Returns:
        WeightRecord.

    Raises:
        ValueError: a model without any channel attention; a layer that does not run exactly once
            a pass; no images, or uint8 images without prepare; labels that are not one for each
            image.
        TypeError: images that are no tensor; a batch_size that is not an integer.
    """
    labels = None if labels is None else _check_labels(labels, len(images))
    arrays, means = {}, {} if descriptors else None

    def receive(part, weights, squeezed):
        for target, values in ((arrays, weights), (means, squeezed)):
            for layer, value in values.items():
                value = value.float().cpu().numpy()
                if layer not in target:
                    target[layer] = np.empty((len(images), value.shape[1]), np.float32)
                target[layer][part] = value

    _run(model, images, prepare, batch_size, descriptors, receive)
    return WeightRecord(arrays, labels, means)


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Mean and variance of each channel's weight over the images of each class.

    Attributes:
        classes: (G,) labels.
        count: (G,) images of each.
        mean: (G, C) float64.
        variance: (G, C) float64, the mean squared distance from the mean.
    """

    classes: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def __add__(self, other):
        """The moments of the images of both, which have the same classes."""
        count = self.count + other.count
        share = np.divide(other.count, count, out=np.zeros(len(count)), where=count > 0)[:, None]
        step = other.mean - self.mean
        return ClassMoments(
            self.classes,
            count,
            self.mean + share * step,
            (1 - share) * self.variance + share * other.variance + share * (1 - share) * step**2,
        )


def record_class_moments(model, images, labels, prepare=None, batch_size=250):
    """Means and variances of the weights per class, streamed: no weight of a single image is kept.

    Memory: 16 bytes for each class and channel of each layer, whatever N; beside that, one batch.

    Args and errors as `record_weights`; labels are needed.

    Returns:
        dict: layer -> ClassMoments.
    """
    labels = _check_labels(labels, len(images))
    classes, moments = np.unique(labels), {}

    def receive(part, weights, _):
        for layer, value in weights.items():
            batch = class_moments(value.double().cpu().numpy(), labels[part], classes)
            moments[layer] = moments[layer] + batch if layer in moments else batch

    _run(model, images, prepare, batch_size, False, receive)
    return moments


def class_moments(weights, labels, classes=None):
    """Mean and variance of each channel's weight over the images of each class.

    Args:
        weights: (N, C).
        labels: (N,).
        classes: (G,) all labels, where the images at hand may lack some; a class without images
            counts 0 and has zeros for its moments.

    Raises:
        ValueError: weights that are not (N, C), or labels that are not one for each image.
    """
    weights = _matrix("weights", weights)
    labels = _check_labels(labels, len(weights))
    classes = np.unique(labels) if classes is None else classes
    members = (labels == classes[:, None]).astype(float)  # (G, N)
    count = members.sum(1)
    share = members / np.maximum(count, 1)[:, None]
    mean = share @ weights
    variance = share @ (weights - mean[np.searchsorted(classes, labels)]) ** 2
    return ClassMoments(classes, count.astype(int), mean, variance)


# --- Measures ---------------------------------------------------------------------------------


def class_share(moments):
    """Share of the variance of each channel's weight that lies between the classes.

    Epsilon squared, of the one-way analysis of variance with N images in G classes:

        epsilon^2 = 1 - (SSW / (N - G)) / (SST / (N - 1))

    SSW is the sum of squares about the means of the classes, SST about the mean of all, and
    eta^2 = 1 - SSW / SST. For weights that do not depend on the class, eta^2 is (G - 1) / (N - 1)
    in the mean; epsilon^2 is 0 in the mean, and so below 0 about as often as above.

    Args:
        moments: a ClassMoments.

    Returns:
        (C,) at most 1; NaN for a channel whose weight does not vary.

    Raises:
        ValueError: fewer than two classes, or no more images than classes.
    """
    images, groups = moments.count.sum(), len(moments.classes)
    if not 2 <= groups < images:
        raise ValueError(
            f"{images} images in {groups} classes: accepted are two or more classes, and more "
            "images than classes"
        )
    share = moments.count[:, None] / images
    within = (share * moments.variance).sum(0)
    between = (share * (moments.mean - (share * moments.mean).sum(0)) ** 2).sum(0)
    total = within + between
    ratio = np.divide(within, total, out=np.full(len(total), np.nan), where=total > _CONSTANT)
    return 1 - ratio * (images - 1) / (images - groups)


def effective_channels(weights):
    """Effective number of channels whose weight varies from image to image.

    The participation ratio of the variances v_c of the channels' weights over the images:

        (sum_c v_c)^2 / sum_c v_c^2

    C if all vary alike, 1 if one alone varies, 0 if none does.

    Args:
        weights: (N, C).
    """
    variances = _matrix("weights", weights).var(0)
    variances = variances[variances > _CONSTANT]
    return float(variances.sum() ** 2 / (variances**2).sum()) if len(variances) else 0.0


def weight_histogram(weights, bins=50):
    """Share of all weights in each of so many equal bins of [0, 1], (bins,); the sum is 1.

    Args:
        weights: (N, C), or any shape, within [0, 1].

    Raises:
        ValueError: a weight outside [0, 1].
    """
    weights = np.asarray(weights)
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError(
            f"weights from {weights.min()} to {weights.max()}: accepted are those within [0, 1]"
        )
    return np.histogram(weights, bins, range=(0, 1))[0] / weights.size


def saturation(weights, low=0.05, high=0.95):
    """Share of the weights below low, and share above high: where the sigmoid hardly reacts.

    Args:
        weights: (N, C), or any shape.
        low, high: limits, low <= high.

    Returns:
        two numbers between 0 and 1.
    """
    if not low <= high:
        raise ValueError(f"low={low}, high={high}: accepted are low <= high")
    weights = np.asarray(weights)
    return float((weights < low).mean()), float((weights > high).mean())


@dataclass(frozen=True)
class NeighbourCorrelation:
    """How alike the descriptors of neighbouring channels are, see `neighbour_correlation`.

    Attributes:
        neighbours: mean correlation of the pairs of neighbours.
        pairs: mean correlation of all pairs of channels: what a random order has in the mean.
        low, high: 95% of random orders have their mean correlation of neighbours between these.
        p: share of random orders that are as far from `pairs` as the order at hand, or farther.
    """

    neighbours: float
    pairs: float
    low: float
    high: float
    p: float


def neighbour_correlation(descriptors, reach=1, orders=2000, seed=0):
    """Are the descriptors of neighbouring channels more alike than those of any two channels?

    With r_ij, Pearson's correlation over the images of the descriptors of channels i and j, the
    measure is the mean of r_ij over all pairs 0 < j - i <= reach. It is compared with the same
    mean after the channels were put into random orders, so that the whole set of r_ij is kept:
    a permutation test, two-sided, p = (1 + as extreme) / (1 + orders).

    Args:
        descriptors: (N, C), `WeightRecord.descriptors[layer]`; for an ECA of shuffled order
            [:, module.permutation] of it. A channel that does not vary has r = 0 with all others.
        reach: how far apart neighbours may be, 1 to C - 2; k // 2 for what a kernel of size k
            joins with its centre.
        orders: how many random orders.
        seed: of the random orders.

    Raises:
        TypeError, ValueError: descriptors that are not (N, C) with N > 2; reach or orders not a
            positive integer, or reach above C - 2.
    """
    descriptors = _matrix("descriptors", descriptors)
    images, channels = descriptors.shape
    check_integer("reach", reach)
    check_integer("orders", orders)
    if images < 3 or reach > channels - 2:
        raise ValueError(
            f"{images} images, {channels} channels, reach={reach}: accepted are three or more "
            "images, and a reach of at most the number of channels less two"
        )
    centred = descriptors - descriptors.mean(0)
    length = np.sqrt((centred**2).sum(0))
    varies = length > 1e-7 * np.abs(descriptors).max(0)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=varies)
    correlation = unit.T @ unit

    def mean_of_neighbours(order):
        steps = range(1, reach + 1)
        return np.concatenate([correlation[order[:-d], order[d:]] for d in steps]).mean()

    random = np.random.default_rng(seed)
    expected = correlation[np.triu_indices(channels, 1)].mean()
    observed = mean_of_neighbours(np.arange(channels))
    drawn = np.array([mean_of_neighbours(random.permutation(channels)) for _ in range(orders)])
    extreme = np.abs(drawn - expected) >= np.abs(observed - expected)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    p = (1 + extreme.sum()) / (1 + orders)
    return NeighbourCorrelation(*(float(each) for each in (observed, expected, low, high, p)))


# --- Interventions ----------------------------------------------------------------------------


@contextmanager
def intervene(model, layer, change):
    """While the context is open, change the channel weights of one layer.

        with intervene(model, "layer2.attention", freeze(record.weights[...].mean(0))):
            ...

    Contexts may be nested: on several layers, or on one, where the inner change comes last.

    Args:
        model: a module with channel attention.
        layer: one of `attention_layers(model)`.
        change: function from the weights (N, C) of a batch to those that are applied in their
            stead: `scale`, `freeze`, `permute` and `swap` make one, `off` is one.

    Raises:
        ValueError: no such layer. From the model, when a change does not fit the layer's channels.
        TypeError: a change that cannot be called.
    """
    module = _layer(model, layer)
    if not callable(change):
        raise TypeError(
            f"change={change!r}: accepted are functions of the weights, such as probe.freeze(0.5)"
        )
    with _through(module, change):
        yield


def scale(factor):
    """A change for `intervene`: multiply the weights by a number, or each by its own, (C,)."""
    factor = _vector("factor", factor)
    return lambda weights: weights * _fit("factor", factor, weights)


def freeze(weights):
    """A change for `intervene`: the same weights for every image.

    With their mean over images, what is specific to an image is gone and a fixed scale per channel
    is left; with the mean of that, one number; and with the weights that were recorded for an
    image, that image's attention for all.

    Args:
        weights: a number, or (C,).
    """
    frozen = _vector("weights", weights)
    return lambda weights: _fit("weights", frozen, weights).expand_as(weights)


def permute(order):
    """A change for `intervene`: channel c gets the weight of channel order[c], for every image.

    Args:
        order: (C,), each of 0 to C - 1 once.
    """
    order = _permutation(order)

    def change(weights):
        _check_length("order", order, weights)
        return weights[:, order.to(weights.device)]

    return change


def swap(shift=1):
    """A change for `intervene`: image i gets the weights of image i - shift of its batch.

    The first images of a batch get those of the last. In the order of `shapes` each class comes
    every tenth image: a shift of 10 swaps within a class, a shift of 1 between classes.
    """
    check_integer("shift", shift)

    def change(weights):
        if shift % len(weights) == 0:
            raise ValueError(
                f"shift={shift}: a batch of {len(weights)} images would keep its weights"
            )
        return weights.roll(shift, 0)

    return change


def off(weights):
    """A change for `intervene`: weights of 1, which pass every channel as it is."""
    return torch.ones_like(weights)


@contextmanager
def renumber(model, layer, order):
    """While the context is open, number the channels otherwise that one attention module sees.

    Channel i is then the one that was order[i]: the module gets its input in the new order, with
    every parameter that belongs to a channel (every dimension of size C) taken along, and its
    output is put back in place. For a module to which channels are but names, such as SE, nothing
    changes. ECA's weights belong to no channel: it sees other neighbours. An ECA of shuffled order
    keeps its permutation, and so sees other neighbours, too.

    Weights that are recorded meanwhile are in the new order.

    Args:
        model: a module with channel attention.
        layer: one of `attention_layers(model)`.
        order: (C,), each of 0 to C - 1 once.

    Raises:
        ValueError: no such layer; order not a permutation. From the model, when its length is not
            the layer's number of channels.
    """
    module, order = _layer(model, layer), _permutation(order)

    def renumbered(_, inputs):
        _check_length("order", order, inputs[0])
        return (inputs[0][:, order.to(inputs[0].device)],)

    def in_place(_, __, output):
        return output[:, order.argsort().to(output.device)]

    with ExitStack() as stack:
        for parameter in module.parameters():
            stack.callback(setattr, parameter, "data", parameter.data)
            for dimension, size in enumerate(parameter.shape):
                if size == len(order):
                    own = order.to(parameter.device)
                    parameter.data = parameter.data.index_select(dimension, own)
        stack.callback(module.register_forward_pre_hook(renumbered).remove)
        stack.callback(module.register_forward_hook(in_place).remove)
        yield


# --- The modules ------------------------------------------------------------------------------


def _run(model, images, prepare, batch_size, descriptors, receive):
    """Run the images through the model; receive gets (slice, weights, descriptors) per batch."""
    layers = attention_layers(model)
    if not layers:
        ours = "eca_lab.attention"
        theirs = ", ".join(".".join(each) for each in _GATES)
        raise ValueError(
            f"{type(model).__name__} has no channel attention: accepted are models with modules "
            f"of {ours}, or {theirs}"
        )
    check_integer("batch_size", batch_size)
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images of type {type(images).__name__}: accepted is a tensor (N, ...)")
    if len(images) == 0:
        raise ValueError("images: there are none; accepted are one or more")
    if prepare is None and not images.is_floating_point():
        raise ValueError(
            f"images of {images.dtype} without prepare: accepted are the floating point numbers "
            "that the model takes, or a function prepare that makes them"
        )
    like = next(model.parameters(), torch.empty(0))
    weights = {layer: [] for layer in layers}
    squeezed = {layer: [] for layer in layers if descriptors}
    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
        model.eval()
        for layer, module in layers.items():
            stack.enter_context(_through(module, _keep(weights[layer])))
            if descriptors:
                hook = _keep_descriptors(squeezed[layer])
                stack.callback(module.register_forward_pre_hook(hook).remove)
        stack.enter_context(torch.inference_mode())
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            batch = images[part].to(like.device)
            model((batch if prepare is None else prepare(batch)).to(like.dtype))
            receive(part, _taken(weights), _taken(squeezed))


def _keep(kept):
    def change(weights):
        kept.append(weights)
        return weights

    return change


def _keep_descriptors(kept):
    return lambda _, inputs: kept.append(inputs[0].mean((2, 3), dtype=torch.float32))


def _taken(kept):
    """layer -> the one tensor that was kept of it, which is then forgotten."""
    for layer, tensors in kept.items():
        if len(tensors) != 1:
            raise ValueError(f"{layer} ran {len(tensors)} times in a pass: accepted is once")
    return {layer: tensors.pop() for layer, tensors in kept.items()}


@contextmanager
def _through(module, change):
    """While the context is open, the channel weights (N, C) of a module go through change."""
    if isinstance(module, ChannelAttention):
        # An attribute of the instance stands before the method of its class.
        outer, weights = vars(module).get("weights"), module.weights
        module.weights = lambda x: change(weights(x))
        try:
            yield
        finally:
            del module.weights
            if outer is not None:
                module.weights = outer
    else:
        # The weights have shape (N, C, 1, 1) or (N, 1, C).
        gate = getattr(module, _gate_name(module)).register_forward_hook(
            lambda _, __, output: change(output.flatten(1)).reshape(output.shape)
        )
        try:
            yield
        finally:
            gate.remove()


def _gate_name(module):
    """The name of the sub-module that gives another library's channel weights, or None."""
    kinds = ((kind.__module__.split(".")[0], kind.__name__) for kind in type(module).__mro__)
    return next((_GATES[kind] for kind in kinds if kind in _GATES), None)


def _layer(model, name):
    layers = attention_layers(model)
    if name not in layers:
        accepted = ", ".join(layers) or "none, since the model has no channel attention"
        raise ValueError(f"layer={name!r}: accepted are {accepted}")
    return layers[name]


# --- Checks -----------------------------------------------------------------------------------


def _check_labels(labels, count):
    """The labels as an array (N,) of integers."""
    labels = labels.cpu() if isinstance(labels, torch.Tensor) else labels
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels of shape {labels.shape} and type {labels.dtype}: accepted is an integer for "
            f"each of {count} images"
        )
    return labels


def _matrix(name, values):
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} of shape {values.shape}: accepted is (N, C), neither of them 0")
    return values


def _vector(name, values):
    """A number or (C,) numbers as a tensor."""
    values = torch.as_tensor(values, dtype=torch.float32)
    if values.dim() > 1 or not values.isfinite().all():
        raise ValueError(
            f"{name} of shape {tuple(values.shape)}: accepted is a finite number, or one for each "
            "channel"
        )
    return values


def _fit(name, vector, weights):
    if vector.dim() == 1:
        _check_length(name, vector, weights)
    return vector.to(weights)


def _permutation(order):
    order = torch.as_tensor(order)
    if order.dim() != 1 or not torch.equal(order.sort().values.cpu(), torch.arange(len(order))):
        raise ValueError(f"order={order.tolist()}: accepted is each of 0 to C - 1, once")
    return order


def _check_length(name, values, tensor):
    if len(values) != tensor.shape[1]:
        raise ValueError(
            f"{name} has {len(values)} values: accepted is one for each of the layer's "
            f"{tensor.shape[1]} channels"
        )
