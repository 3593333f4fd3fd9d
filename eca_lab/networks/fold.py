"""Channel attention taken out of a network: constant weights, multiplied into what stands near.

Weights that hardly depend on the image may as well be constants, and constants need no module. Of a
map x, its channels multiplied by constants c:

    c (gamma x + beta) = (c gamma) x + c beta    the BatchNorm in front, or likewise a convolution,
                                                 if its map goes nowhere else;
    W (c x) + b        = (W c) x + b             the convolution behind, if c x goes only there;
    c x                                          else c remains, as a factor.

Where a map comes from and where it goes is seen in one pass. That nothing was overlooked is checked
by two more, of the network with its weights frozen and of the folded one.

Shapes: N images, C channels.
"""

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from eca_lab.checks import shown
from eca_lab.networks import passes
from eca_lab.networks.passes import Frame, Prepare
from eca_lab.networks.sites import Site, Sites, is_watched, watching

Numbers = float | Sequence[float] | np.ndarray | Tensor

# These types and no subclass: a weight-standardised convolution undoes what its weight is
# multiplied by, and a BatchNorm with an activation inside gives no affine function.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AFFINE = (*_CONVOLUTIONS, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Scale(nn.Module):
    """Multiply the channels of a map by constants, (C,), which no training moves."""

    def __init__(self, constants: Tensor, *, dimensions: int, dimension: int = 1) -> None:
        super().__init__()
        shape = [1] * dimensions
        shape[dimension] = len(constants)
        self.register_buffer("constants", constants.reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constants


class Gate(nn.Module):
    """The same weights for every image, in the shape in which attention gave them: (N, C, ...)."""

    def __init__(self, constants: Tensor, shape: Sequence[int]) -> None:
        super().__init__()
        self.rest = [*shape[1:]]
        self.register_buffer("constants", constants.reshape([1, *self.rest]))

    def forward(self, x: Tensor) -> Tensor:
        return self.constants.expand([x.shape[0]] + self.rest)  # noqa: RUF005, for TorchScript


class Folding(NamedTuple):
    """A folded model; how each site was folded; and the largest relative error that was seen.

    how is "into layer1.0.bn2 in front", "into layer1.0.conv3 behind", "a factor", or "a factor, in
    place of layer1.0.gate" where the product stayed and the module that gave its weights went.
    """

    model: nn.Module
    how: dict[str, str]
    error: float


def fold(
    model: nn.Module,
    constants: Mapping[str, Numbers],
    example: Any,
    *,
    prepare: Prepare | None = None,
) -> nn.Module:
    """A new model in which channel attention is constant, and its modules are gone.

        means = {site: weights.mean(0) for site, weights in record.weights.items()}
        folded = fold(model, means, images[:8])

    It is an ordinary model, in the mode of the given one, which is left as it was. Its parameters
    can be trained; factors that remain are buffers.

    Args:
        model: any in which the attention has modules to itself: those that give map * weights, or
            those that give the weights alone.
        constants: site, as `eca_lab.looking.probe.record_weights` names it -> its weights, a number
            or (C,). No other site changes.
        example: images (N, ...), a few, or what `prepare` takes. On these the folded model gives
            what the model gives with its weights frozen, within 1e-5 (relative, in float32).
        prepare: makes of the example what the model is called with, see `eca_lab.networks.passes`.

    Raises:
        TypeError: no model, no mapping.
        ValueError: a site that is none, that runs twice or whose attention is written inline;
            constants that do not fit; a model that is compiled or scripted, or cannot be copied; a
            folded model that does not run, or gives something else.
    """
    return folding(model, constants, example, prepare=prepare).model


def folding(
    model: nn.Module,
    constants: Mapping[str, Numbers],
    example: Any,
    *,
    prepare: Prepare | None = None,
) -> Folding:
    """As `fold`, which gives the model alone: a `Folding`."""
    _check_model(model)
    frozen = _checked(constants)
    if isinstance(example, Tensor) and not example.numel():
        raise ValueError(
            f"example of shape {tuple(example.shape)}: accepted are one or more images"
        )

    def run(network: nn.Module) -> Any:
        # Some networks write into what they are given.
        fresh = tree_map(
            lambda value: value.clone() if isinstance(value, Tensor) else value, example
        )
        return passes.call(network, fresh, prepare)

    with torch.inference_mode(False), torch.no_grad(), passes.without_tf32():
        flow = _Flow(model, frozen)
        with passes.evaluating(model), flow:
            run(model)
        steps = [_step(flow, site) for site in frozen]
        _check_nesting(steps)
        places = {step.compared: step.site for step in steps}
        folded = _folded(model, steps)
        # A gain of 0, as the last one of a block often begins, would hide what is wrong before it.
        filled = _without_zeros(model)
        errors = [
            _error(model, folded, frozen, run=run, places=places),
            _error(filled, _folded(filled, steps), frozen, run=run, places=places),
        ]
    return Folding(folded, {step.site: step.how for step in steps}, max(errors))


class _Value(NamedTuple):
    """What is stored in a place, once that was written into so many times."""

    place: int
    written: int


class _Tensor(NamedTuple):
    """What a tensor is when it is seen: its value, and how that is laid out."""

    value: _Value
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class _Product(NamedTuple):
    """A site: what is multiplied, and the constants (C,) for the channels of that dimension."""

    map: _Tensor
    weights: _Tensor
    dimension: int
    constants: Tensor


class _Step(NamedTuple):
    """How one site is folded: `by` comes in the place of a module, and another one may take the
    constants. What the module `compared` gives shows whether it is right.
    """

    site: str
    how: str
    replaced: str
    by: nn.Module
    compared: str
    constants: Tensor
    front: str | None = None
    behind: str | None = None


class _Flow(Sites):
    """Sees in a pass with constant weights which module made a tensor, and which ones read it.

    It keeps all tensors of the pass: a place in memory that was freed could become another's.
    """

    def __init__(self, model: nn.Module, constants: Mapping[str, Tensor]) -> None:
        super().__init__(model)
        self.constants = constants
        self.handlers.append(self._freeze)

    def begin(self) -> None:
        super().begin()
        self.products: dict[str, _Product] = {}
        self.results: dict[str, _Tensor] = {}  # of the products
        self.runs: Counter[str] = Counter()  # of a module
        self.takes: dict[str, list[_Tensor | None]] = {}  # what a module was called with
        self.gives: dict[str, _Tensor] = {}
        self.makers: dict[_Tensor, str] = {}  # the modules that gave it as an affine function
        # Of a value: the modules in which it was read, outermost first; none of them: the caller.
        self.reads: defaultdict[_Value, list[tuple[str, ...]]] = defaultdict(list)
        self._written: Counter[int] = Counter()  # into a storage
        self._kept: list[Tensor] = []
        self._frozen = ""  # the site whose product is under way

    def value(self, tensor: Tensor) -> _Value:
        """What is stored where a tensor lies, now."""
        place = tensor.untyped_storage().data_ptr()
        return _Value(place, self._written[place])

    def tensor(self, tensor: Tensor) -> _Tensor:
        """What a tensor is now."""
        offset = int(tensor.storage_offset())
        return _Tensor(self.value(tensor), tuple(tensor.shape), tensor.stride(), offset)

    def is_last(self, value: _Value) -> bool:
        """Whether nothing else was written there since."""
        return self._written[value.place] == value.written

    def entered(self, frame: Frame) -> None:
        super().entered(frame)
        self.runs[frame.name] += 1
        self.takes[frame.name] = [
            self.tensor(each) if isinstance(each, Tensor) else None for each in frame.inputs
        ]

    def left(self, frame: Frame, output: Any) -> None:
        super().left(frame, output)
        if isinstance(output, Tensor):
            self.gives[frame.name] = self.tensor(output)
            if type(frame.module) in _AFFINE:
                self.makers[self.gives[frame.name]] = frame.name
        if not self.frames:
            self._read(_tensors(output))

    def seen(self, function: Any, args: tuple, kwargs: dict) -> Any:
        given = _tensors((args, kwargs))
        places = {self.value(tensor).place for tensor in given}
        out = super().seen(function, args, kwargs)
        outputs = _tensors(out)
        self._kept += [*given, *outputs]
        schema = function._schema
        is_view = all(self.value(tensor).place in places for tensor in outputs)
        if schema.is_mutable or not is_view:  # to take a view is not to read
            self._read(given)
        names = [argument.name for argument in schema.arguments]
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        for argument in schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(values.get(argument.name)):
                    self._written[self.value(tensor).place] += 1
        if self._frozen:
            self.results[self._frozen] = self.tensor(out)
            self._frozen = ""
        return out

    def _freeze(self, site: Site) -> Tensor | None:
        weights = _constants_of(self.constants, site)
        if weights is not None:
            self.products[site.name] = _Product(
                self.tensor(site.map),
                self.tensor(site.weights),
                site.dimension,
                constants=weights[0].clone(),
            )
            self._frozen = site.name
        return weights

    def _read(self, tensors: list[Tensor]) -> None:
        names = tuple(frame.name for frame in self.frames)
        for tensor in tensors:
            self.reads[self.value(tensor)].append(names)


def _step(flow: _Flow, site: str) -> _Step:
    """How to fold a site that was seen in the pass, or ValueError."""
    if site not in flow.found:
        reason = flow.left_out.get(site, "no channel attention there")
        accepted = f"accepted are {', '.join(flow.found) or 'none: no channel attention is found'}"
        raise ValueError(f"constants name {site!r}: {reason}; {accepted}")
    name = site.partition("#")[0]
    product = flow.products[site]
    constants = product.constants
    if name and flow.takes[name] == [product.map] and flow.gives.get(name) == flow.results[site]:
        if front := _in_front(flow, product, name):
            how = f"into {front} in front"
            return _Step(site, how, name, nn.Identity(), name, constants, front=front)
        if behind := _behind(flow, product, flow.results[site]):
            how = f"into {behind} behind"
            return _Step(site, how, name, nn.Identity(), behind, constants, behind=behind)
        factor = Scale(constants, dimensions=len(product.map.shape), dimension=product.dimension)
        return _Step(site, "a factor", name, factor, name, constants)
    if gate := _gate(flow, product):
        by = Gate(constants, flow.gives[gate].shape)
        return _Step(site, f"a factor, in place of {gate}", gate, by, name, constants)
    kind = type(flow.model.get_submodule(name)).__name__
    raise ValueError(
        f"constants name {site!r}: {name or 'the model'}, a {kind}, computes its attention inline, "
        "among other things; accepted is attention with a module to itself, that is given the map "
        "alone and gives map * weights, or one that gives the weights for one product"
    )


def _check_nesting(steps: list[_Step]) -> None:
    for step in steps:
        for other in steps:
            if step.replaced.startswith(f"{other.replaced}."):
                raise ValueError(
                    f"constants name {step.site!r}, which is part of {other.replaced}, and also "
                    f"{other.site!r}, for which all of that goes; accepted is one of them"
                )


def _in_front(flow: _Flow, product: _Product, name: str) -> str | None:
    """The module that made the map for this one alone, if it can take the constants."""
    maker = flow.makers.get(product.map)
    reads = flow.reads[product.map.value]
    alone = product.dimension == 1 and all(name in path for path in reads)
    return maker if maker and alone and _can_take(flow, maker) else None


def _behind(flow: _Flow, product: _Product, result: _Tensor) -> str | None:
    """The convolution to which alone the product goes, if it can take the constants."""
    paths = flow.reads[result.value]
    readers = {path[-1] if path else "" for path in paths}
    if len(readers) != 1 or product.dimension != 1:
        return None
    [reader] = readers
    module = flow.model.get_submodule(reader)
    if type(module) not in _CONVOLUTIONS or module.groups > 1 or flow.takes[reader] != [result]:
        return None
    # The convolution will read the map itself, so that it must not be written over before.
    in_place = product.map.value.place == result.value.place
    last = result.value if in_place else product.map.value
    return reader if flow.is_last(last) and _can_take(flow, reader) else None


def _can_take(flow: _Flow, name: str) -> bool:
    """Whether a module has parameters that can be multiplied, and that nobody else uses."""
    module = flow.model.get_submodule(name)
    if flow.runs[name] != 1 or "forward" in vars(module):
        return False
    if module._forward_hooks or module._forward_pre_hooks:  # as of torch's weight_norm
        return False
    owners = Counter(
        id(parameter) for each in flow.model.modules() for parameter in each.parameters(False)
    )
    parameters = list(module.parameters(recurse=False))
    return bool(parameters) and all(
        owners[id(parameter)] == 1
        and all(path[-1:] == (name,) for path in flow.reads[flow.value(parameter)])
        for parameter in parameters
    )


def _gate(flow: _Flow, product: _Product) -> str | None:
    """The outermost module that gives the weights, for this product alone.

    It is given the map; or something else, such as the means of its channels, and has parameters:
    to replace a sigmoid alone would save nothing.
    """
    found = None
    for name, given in flow.gives.items():
        if given.value != product.weights.value or flow.runs[name] != 1:
            continue
        taken = flow.takes[name]
        images, channels = product.weights.shape
        is_whole = given.shape[0] == images and math.prod(given.shape[1:]) == channels
        if not is_whole or len(taken) != 1 or not taken[0]:
            continue
        of_map = taken[0].value == product.map.value
        has_parameters = next(flow.model.get_submodule(name).parameters(), None) is not None
        if of_map or (has_parameters and taken[0].shape[0] == images):
            found = name
    outside = [path for path in flow.reads[product.weights.value] if found not in path]
    return found if len(outside) == 1 else None


def _folded(model: nn.Module, steps: list[_Step]) -> nn.Module:
    """A copy of a model, in which these steps were taken."""
    folded = _copied(model)
    for step in steps:
        if step.front:
            module = folded.get_submodule(step.front)
            for parameter in module.parameters(recurse=False):
                _multiply(parameter, step.constants, dimension=0)
        elif step.behind:
            weight = folded.get_submodule(step.behind).get_parameter("weight")
            _multiply(weight, step.constants, dimension=1)
        old = folded.get_submodule(step.replaced)
        by = copy.deepcopy(step.by).train(old.training)
        for name, module in [*folded.named_modules(remove_duplicate=False)]:
            if module is old:
                folded.set_submodule(name, by)
    return folded


def _multiply(parameter: nn.Parameter, constants: Tensor, *, dimension: int) -> None:
    shape = [1] * parameter.dim()
    shape[dimension] = len(constants)
    exact = torch.promote_types(parameter.dtype, torch.float32)
    product = parameter.data.to(exact) * constants.to(parameter.device, exact).reshape(shape)
    parameter.data = product.to(parameter.dtype)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever a module of somebody's holds
        raise ValueError(f"{type(model).__name__} cannot be copied: {error}") from error


def _without_zeros(model: nn.Module) -> nn.Module:
    """A copy of a model in which small random numbers stand for all parameters that are 0."""
    filled = _copied(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in filled.parameters():
        zeros = parameter == 0
        random = torch.rand(int(zeros.sum()), generator=generator) + 0.5
        if parameter.dim() > 1:  # of either sign, and as large as weights with this fan-in
            random = (random - 1) / parameter[0].numel() ** 0.5
        parameter.data[zeros] = random.to(parameter)
    return filled


def _error(
    model: nn.Module,
    folded: nn.Module,
    frozen: Mapping[str, Tensor],
    *,
    run: Callable[[nn.Module], Any],
    places: Mapping[str, str],
) -> float:
    """The largest relative error of a folded model, at its output and at places: module -> site.

    ValueError for one that is too large.
    """
    names = [*places, ""]
    with watching(model, lambda site: _constants_of(frozen, site)):
        expected = _outputs(model, names, run)
    try:
        found = _outputs(folded, names, run)
    except Exception as error:
        raise ValueError(f"the folded {type(model).__name__} does not run: {error}") from error
    if not expected[""]:
        raise TypeError(f"{type(model).__name__} gives no tensor of floats, which are accepted")
    largest = 0.0
    for name in names:
        accepted = max(_accepted(tensor) for tensor in expected[name])
        distance = _distance(found.get(name, []), expected[name])
        if not distance <= accepted:  # nor if it is no number
            where = f"at {places[name]!r}" if name in places else "in its output"
            raise ValueError(
                f"the folded {type(model).__name__} is not the one with constant weights: {where} "
                f"they differ by {distance:.1e} (relative), accepted is {accepted:.0e}"
            )
        largest = max(largest, distance)
    return largest


def _outputs(
    model: nn.Module, names: list[str], run: Callable[[nn.Module], Any]
) -> dict[str, list[Tensor]]:
    """The floats that these modules of a model give, copied before they can be written over."""
    found: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        stack.enter_context(passes.evaluating(model))
        for name in names:

            def keep(_: nn.Module, __: object, output: Any, name: str = name) -> None:
                tensors = _tensors(output)
                found[name] = [each.clone() for each in tensors if each.is_floating_point()]

            stack.enter_context(model.get_submodule(name).register_forward_hook(keep))
        run(model)
    return found


def _distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest of the errors |a - b| / |b|."""
    if [each.shape for each in found] != [each.shape for each in expected]:
        return math.inf
    errors = [0.0]
    for a, b in zip(found, expected, strict=True):
        difference, size = (a.float() - b.float()).norm().item(), b.float().norm().item()
        errors.append(difference / size if size else math.inf if difference else 0.0)
    return np.max(errors).item()  # NaN if there is one


def _accepted(tensor: Tensor) -> float:
    """The error that is accepted: many roundings in the dtype of the tensor, but 1e-5 at least."""
    return max(1e-5, 16 * torch.finfo(tensor.dtype).eps)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _constants_of(frozen: Mapping[str, Tensor], site: Site) -> Tensor | None:
    """The constants of a site as its weights (N, C), None if it has none."""
    if site.name not in frozen:
        return None
    constants, channels = frozen[site.name], site.weights.shape[1]
    if constants.dim() and len(constants) != channels:
        accepted = f"accepted is a number, or {channels} of them"
        raise ValueError(f"constants[{site.name!r}] of length {len(constants)}: {accepted}")
    return constants.to(site.weights).expand(site.weights.shape)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={shown(model)}: accepted is a torch.nn.Module")
    if is_watched(model):
        raise ValueError(
            f"{type(model).__name__} runs with changes: fold it outside of `intervene`"
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            how = "traced or scripted"
        elif name.rpartition(".")[2] == "_orig_mod":
            how = "compiled"
        else:
            continue
        raise ValueError(
            f"{type(model).__name__} is {how}: accepted is the model as it was before; what fold "
            "makes of it can be traced, scripted and compiled"
        )


def _checked(constants: Mapping[str, Numbers]) -> dict[str, Tensor]:
    """Site -> a finite number or (C,) of them as a tensor."""
    if not isinstance(constants, Mapping):
        accepted = "accepted is a mapping from sites to their weights"
        raise TypeError(f"constants={shown(constants)}: {accepted}")
    numbers = {}
    for site, values in constants.items():
        try:
            numbers[site] = torch.as_tensor(values, dtype=torch.float32).detach()
        except (TypeError, ValueError, RuntimeError):  # what is no number
            numbers[site] = torch.tensor(math.nan)
        if numbers[site].dim() > 1 or not numbers[site].isfinite().all():
            accepted = "accepted is a finite number, or one for each channel"
            raise ValueError(f"constants[{site!r}]={shown(values)}: {accepted}")
    return numbers
