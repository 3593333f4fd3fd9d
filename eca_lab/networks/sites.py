"""Channel attention found by what it does, in any network.

A site is a product in which every channel of a map is multiplied by one number per image: a map
(N, C, ...), its channels in any dimension but the first, and a factor with the same N and C, one
value over all other dimensions, which the images move. It is called after the innermost module in
which it stands; the second one in the same module gets "#1" behind it, the third "#2".

Shapes: N images, C channels of a map.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from eca_lab.networks.passes import Frame, Trace

_aten = torch.ops.aten
_PRODUCTS = (_aten.mul.Tensor, _aten.mul_.Tensor)
_POOLS = (
    _aten.mean.dim,
    _aten.amax.default,
    _aten._adaptive_avg_pool2d.default,
    _aten.adaptive_max_pool2d.default,
    _aten.avg_pool2d.default,
    _aten.max_pool2d_with_indices.default,
)
# How classes and attributes are called that may be attention.
_LIKE_ATTENTION = re.compile(
    r"(?i:attention|attn|squeeze|excit|cbam|(?<![a-z])(c?eca|se)(?![a-z]))"
    r"|^(SE|C?[Ee][Cc][Aa])(Module|Layer|Block)?$"
)


@dataclass(frozen=True, eq=False)
class Site:
    """A product of a map with channel weights in one pass: N images, C channels.

    map is what is weighed, (N, ...), dimension that of its channels, and factor what weighs it, of
    as many dimensions.
    """

    name: str
    map: Tensor
    factor: Tensor
    dimension: int

    @property
    def weights(self) -> Tensor:
        """The factor as (N, C)."""
        return self.factor.movedim(self.dimension, 1).flatten(2)[:, :, 0]

    @property
    def channels_first(self) -> Tensor:
        """The map as (N, C, ...)."""
        return self.map.movedim(self.dimension, 1)


Handler = Callable[[Site], Tensor | None]  # may give other weights (N, C), which then apply


class Sites(Trace):
    """While it is entered, every site in the passes of a model is handed to `handlers` in turn.

    What one of them gives, the next sees, and the last applies. After a pass, `found` names its
    sites, and `left_out` says of products that are like sites why they are none.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.handlers: list[Handler] = []
        self.found: list[str] = []
        self.left_out: dict[str, str] = {}
        self._products: dict[str, int] = {}  # of a module, so far
        self._marks = _Marks(model)
        weights = [weight for weight in model.parameters() if weight.dim()]
        # How many outputs the layers have, and the convolutions among them.
        self._widths = {len(weight) for weight in weights}
        self._convolved = {len(weight) for weight in weights if weight.dim() > 2}

    def begin(self) -> None:
        self.found = []
        self.left_out = {}
        self._marks.clear()

    def entered(self, frame: Frame) -> None:
        self._products[frame.name] = 0

    def left(self, frame: Frame, output: Any) -> None:
        if not self.frames:
            self._marks.clear()

    def seen(self, function: Any, args: tuple, kwargs: dict) -> Any:
        if function in _PRODUCTS and all(isinstance(arg, Tensor) for arg in args):
            args = self._product(args, in_place=function is _aten.mul_.Tensor)
        out = function(*args, **kwargs)
        self._marks.follow(function, args, kwargs, out=out)
        return out

    def _product(self, args: tuple[Tensor, Tensor], *, in_place: bool) -> tuple[Tensor, Tensor]:
        """The factors of a product, with other weights if it is a site and a handler gives some."""
        x, weights = args
        found = self._dimension(x, weights)
        if found is None and not in_place:
            weights, x = args
            found = self._dimension(x, weights)
        if found is None:
            return args
        frame = self.frames[-1]
        number = self._products[frame.name]
        self._products[frame.name] = number + 1
        name = f"{frame.name}#{number}" if number else frame.name
        if frame.again:
            found = "it runs more than once in a pass"
            if name in self.found:
                self.found.remove(name)
        if isinstance(found, str):
            self.left_out[name] = found
            return args
        self.found.append(name)
        return self._handled(args, Site(name, x, weights, dimension=found))

    def _dimension(self, x: Tensor, weights: Tensor) -> int | str | None:
        """The dimension of x of which the weights are channel weights, or why they are none.

        None if they are not even like some.
        """
        varying = _varying(x, weights)
        if varying is None or self._marks.is_normaliser(weights):
            return None
        along, over = varying
        if not over:
            small = len(along) == 1 and self._marks.was_pooled(x)
            if not small or self._marks.was_pooled(weights):
                return None
        if len(along) > 1 and along[0] == 1:
            sizes = ", ".join(str(x.shape[dimension]) for dimension in along)
            return f"its weights are (N, {sizes}): accepted is one number a channel, (N, C)"
        if len(along) != 1:
            return None
        if self._marks.is_constant(weights):
            return "its weights are constants, which no image moves" if len(x) > 1 else None
        if len(x) != self.images:
            return f"its rows are {len(x)}, and the images {self.images}"
        [dimension] = along
        return self._channels_in(x, dimension, over)

    def _channels_in(self, x: Tensor, dimension: int, over: list[int]) -> int | str | None:
        """The dimension of the weights if it can be that of the channels; else why it cannot.

        (N, C, L) and (N, T, C) look alike, and so do weights of channels and of positions. The
        parameters tell: as many outputs as a map has channels some convolution, or some layer, has.
        """
        last = x.dim() - 1
        first = x.shape[1] in self._convolved
        if dimension == 1 and (x.dim() > 3 or first):
            return dimension
        if dimension == last and x.shape[last] in self._widths and not (over == [1] and first):
            return dimension
        if dimension not in (1, last):
            return None
        return f"whether its {x.shape[dimension]} weights are of channels cannot be told"

    def _handled(self, args: tuple[Tensor, Tensor], site: Site) -> tuple[Tensor, Tensor]:
        now = site
        shape = [1] * site.map.dim()
        shape[0], shape[site.dimension] = len(site.map), site.map.shape[site.dimension]
        for handler in self.handlers:
            weights = handler(now)
            if weights is not None:
                factor = weights.to(site.factor).reshape(shape)
                now = Site(site.name, site.map, factor, dimension=site.dimension)
        # The map stays where it was: a product in place is one in its first factor.
        return (now.map, now.factor) if args[0] is site.map else (now.factor, now.map)


class _Marks:
    """What is known of tensors in a pass, by where they are stored, so that views share it.

    Constants come of parameters alone. Normalisers are 1 / sqrt(...) by hand, and what constants
    make of them: RMSNorm multiplies by one number for every image and token, and is no attention.
    Pooled were maps of one position, which have the shape of their own weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self._weights = [*model.parameters(), *model.buffers()]
        self.clear()

    def clear(self) -> None:
        """Forget a pass. What was marked had to be kept, or its place could be another's."""
        self._constants = {_place(tensor): tensor for tensor in self._weights}
        self._normalisers: dict[int, Tensor] = {}
        self._pooled: dict[int, Tensor] = {}

    def is_constant(self, tensor: Tensor) -> bool:
        return _place(tensor) in self._constants

    def is_normaliser(self, tensor: Tensor) -> bool:
        return _place(tensor) in self._normalisers

    def was_pooled(self, tensor: Tensor) -> bool:
        return _place(tensor) in self._pooled

    def follow(self, function: Any, args: tuple, kwargs: dict, *, out: Any) -> None:
        """Mark what an operation gave, by what it was given."""
        given = [*_tensors((*args, *kwargs.values()))]
        outputs = [*_tensors((out,))]
        if function in _POOLS and given[0].numel() == len(given[0]) * max(given[0].shape[1:]):
            self._pooled[_place(given[0])] = given[0]
        inverse_root = function is _aten.rsqrt.default or (
            function is _aten.pow.Tensor_Scalar and args[1] < 0
        )
        if all(self.is_constant(tensor) for tensor in given):
            marked = self._constants
        elif inverse_root or all(
            self.is_constant(tensor) or self.is_normaliser(tensor) for tensor in given
        ):
            marked = self._normalisers
        else:  # what was written into is no constant any more
            for tensor in outputs:
                if any(tensor is other for other in given):
                    self._constants.pop(_place(tensor), None)
            return
        for tensor in outputs:
            marked[_place(tensor)] = tensor


_ACTIVE: WeakKeyDictionary[nn.Module, Sites] = WeakKeyDictionary()


@contextmanager
def watching(model: nn.Module, handler: Handler) -> Iterator[Sites]:
    """While the context is open, hand every site to the handler, behind those of contexts around.

    So the innermost context sees the weights that apply, and decides last.
    """
    with ExitStack() as stack:
        sites = _ACTIVE.get(model)
        if sites is None:
            sites = stack.enter_context(Sites(model))
            _ACTIVE[model] = sites
            stack.callback(_ACTIVE.pop, model)
        sites.handlers.append(handler)
        stack.callback(sites.handlers.remove, handler)
        yield sites


def is_watched(model: nn.Module) -> bool:
    """Whether a context of `watching` is open for the model."""
    return model in _ACTIVE


def modules_like_attention(model: nn.Module) -> dict[str, str]:
    """Name -> class of the modules that are called as attention is; none within another."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        kind = type(module).__name__
        called = _LIKE_ATTENTION.search(kind) or _LIKE_ATTENTION.search(name.rpartition(".")[2])
        within = any(name.startswith(f"{outer}.") for outer in found)
        if name and called and not within and not isinstance(module, nn.Identity | nn.Dropout):
            found[name] = kind
    return found


def without_product(model: nn.Module, known: Iterable[str]) -> dict[str, str]:
    """Which modules are called as attention is, but have none of the known sites; and a reason."""
    found = {}
    modules = [name.partition("#")[0] for name in known]
    for name, kind in modules_like_attention(model).items():
        parent = name.rpartition(".")[0]
        if not any(each in (name, parent) or each.startswith(f"{name}.") for each in modules):
            found[name] = f"a {kind} in which there is no such product"
    return found


def none_found(model: nn.Module, left_out: Mapping[str, str]) -> str:
    """What to tell of a model without a site: what was looked for, and what was left out."""
    message = (
        f"{type(model).__name__} has no channel attention that could be found: looked for was a "
        "product of a map (N, C, ...) with one number for every image and channel"
    )
    reasons = [f"{name or 'the model'}: {reason}" for name, reason in left_out.items()]
    if len(reasons) > 5:
        reasons[5:] = [f"and {len(reasons) - 5} more"]
    return "; ".join([message, *reasons])


def _varying(x: Tensor, weights: Tensor) -> tuple[list[int], list[int]] | None:
    """The dimensions of x, but the first, along which a factor varies, and those over which it is
    one value; None if it is no such factor of x, or x no map.
    """
    if not x.is_floating_point() or x.dim() < 3 or weights.dim() != x.dim():
        return None
    if len(weights) != len(x) or (len(x) > 1 and weights.stride(0) == 0):
        return None
    along: list[int] = []
    over: list[int] = []
    for dimension in range(1, x.dim()):
        if weights.shape[dimension] not in (1, x.shape[dimension]):
            return None
        if x.shape[dimension] == 1:
            continue
        one_value = weights.shape[dimension] == 1 or weights.stride(dimension) == 0
        (over if one_value else along).append(dimension)
    return along, over


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # its address: a fake tensor, which has no data, has one


def _tensors(values: tuple | list) -> Iterator[Tensor]:
    """The tensors among what an operation is given, or gives, and in its lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
