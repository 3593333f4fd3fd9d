"""Where channel attention may go in any network: behind modules that give maps.

Found in one pass of an example, by the data flow, whatever the modules are called.

Shapes: N images, C channels of a map (N, C, ...).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from eca_lab.checks import shown
from eca_lab.networks import passes
from eca_lab.networks.passes import Frame
from eca_lab.networks.sites import Sites, modules_like_attention

_aten = torch.ops.aten
_ADDITIONS = (_aten.add.Tensor, _aten.add_.Tensor)
_VIEWS = ("view", "_unsafe_view", "_reshape_alias", "unflatten")
_LINEAR = ("mm", "addmm", "linear")
_BATCHED = ("bmm", "baddbmm")


class Places:
    """The modules of a model behind which channel attention may go, seen in one pass of an example.

    After `find`, `left_out` says of residual branches that it had to leave out, and why.

    Args:
        model: any that runs as it is written, neither scripted nor compiled; left as it was found.
        example: a batch of one or more images, see `eca_lab.networks.passes.call`.

    Raises:
        TypeError, ValueError: as `eca_lab.networks.passes.call` and `Trace`, or an example that the
            model cannot take.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        passes.count_of(example)  # TypeError before anything runs
        self.left_out: dict[str, str] = {}
        self._model = model
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._attention = modules_like_attention(model)
        self._flow = _Flow(model)
        with (
            passes.evaluating(model),
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
            torch.no_grad(),
            self._flow,
        ):
            try:
                passes.call(model, example)
            except RuntimeError as error:
                kind = type(model).__name__
                raise ValueError(f"the example does not go through {kind}: {error}") from error

    def find(self, where: str | None = None) -> dict[str, int]:
        """The modules behind which attention may go, and how many channels each gives.

        Without `where` it is the paper's place: the end of every residual branch, before the
        addition. That is the module in which the branch's last operation stands, mostly a
        BatchNorm, or else, as behind LayerScale, the first that gives its result on. A sum of two
        maps of one shape is such an addition if one has come through at most one convolution or
        matrix product since their ways parted, the shortcut, and the other through more: that one
        is the branch. Blocks without a shortcut have no such place.

        Args:
            where: a pattern of names as in `model.named_modules`, by the rules of `fnmatch`, where
                "*" stands for dots as well. A Sequential that fits stands for its last module.

        Returns:
            Name -> number of channels, in the order in which the modules run.

        Raises:
            TypeError, ValueError: naming the module, or why there is none: nothing fits or is
                added; a module that does not run, runs twice, has two names, gives no map, holds
                another that fits, or hands its map to one that does not convolve it; attention
                that is there already.
        """
        if where is None:
            found = self._before_additions()
        elif isinstance(where, str):
            found = self._fitting(where)
        else:
            raise TypeError(f"where={shown(where)}: accepted is a pattern of names, or None")
        order = list(self._flow.given)
        return dict(sorted(found.items(), key=lambda place: order.index(place[0])))

    @property
    def again(self) -> set[str]:
        """The names of the modules that ran more than once in the pass."""
        return self._flow.again

    @property
    def own_attention(self) -> list[str]:
        """The names of the channel attention that the model has of its own."""
        return self._flow.found

    def _before_additions(self) -> dict[str, int]:
        found = {}
        for addition in self._flow.additions:
            if addition.giver is None:
                where = addition.block or "the model"
                reason = "the branch ends in an operation of its own, not in a module"
                self.left_out[f"an addition in {where}"] = reason
                continue
            name = self._last_in(addition.giver)
            try:
                found[name] = self._channels(name, addition.branch)
            except _NoPlaceError as error:
                self.left_out[name] = str(error)
        if not found:
            kind = type(self._model).__name__
            if not self.left_out:
                raise ValueError(f"{kind} adds no map to a shortcut: {self._advice()}")
            reasons = in_words(self.left_out)
            raise ValueError(f"{kind} has no place before an addition: {reasons}; {self._advice()}")
        return found

    def _advice(self) -> str:
        """How to say where, with names of this model."""
        maps = []
        for name, value in self._flow.given.items():
            if next(self._modules[name].children(), None) is None:
                with suppress(_NoPlaceError):
                    self._channels(name, value)
                    maps.append(name)
        such = f", such as {', '.join(maps[-3:])}" if maps else ""
        return f"accepted is a pattern of names of modules that give maps{such}, as where=..."

    def _fitting(self, where: str) -> dict[str, int]:
        """The places that a pattern names."""
        names = [name for name in self._modules if name and fnmatchcase(name, where)]
        if not names:
            first = ", ".join([name for name in self._modules if name][:5]) or "none"
            kind = type(self._model).__name__
            words = f"no module of {kind} has such a name; its first are {first}"
            raise ValueError(f"where={shown(where)}: {words}")
        found: dict[str, int] = {}
        for name in names:
            outer = next((other for other in names if name.startswith(f"{other}.")), None)
            if outer is not None:
                accepted = "accepted is a pattern of which no match lies in another"
                raise ValueError(f"where={shown(where)} fits {outer}, and {name} in it: {accepted}")
            last = self._last_in(name)
            try:
                found[last] = self._channels(last, self._flow.given.get(last))
            except _NoPlaceError as error:
                raise ValueError(f"where={shown(where)} fits {last}: {error}") from None
        for name in found:
            for before in self._flow.handed.get(name, set()) & found.keys():
                if not self._flow.is_heavy_between(before, name):
                    words = f"fits {before}, and {name}, which takes its map"
                    raise ValueError(f"where={shown(where)} {words}: accepted is one of the two")
        return found

    def _last_in(self, name: str) -> str:
        """The module itself, or of a Sequential the last one in it, whose result it gives on."""
        module = self._modules[name]
        while type(module).forward is nn.Sequential.forward and len(module):
            last, module = list(module.named_children())[-1]
            name = f"{name}.{last}" if name else last
        return name

    def _channels(self, name: str, output: Any) -> int:
        """How many channels a module gives; `_NoPlaceError` if attention cannot go there."""
        module = self._modules[name]
        names = [each for each, other in self._modules.items() if other is module]
        if len(names) > 1:
            raise _NoPlaceError(f"it is one module with the names {', '.join(names)}")
        if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            raise _NoPlaceError("it is a container, which may run what is put into it")
        if name not in self._flow.given:
            raise _NoPlaceError("it does not run in a pass of the example")
        if name in self._flow.again:
            raise _NoPlaceError("it runs more than once in a pass")
        if not isinstance(output, _Value):
            raise _NoPlaceError(f"it gives {output}: accepted is one map (N, C, ...)")
        attention = next((a for a in self._attention if f"{name}.".startswith(f"{a}.")), None)
        inside = attention and any(f"{site}.".startswith(f"{attention}.") for site in self._sites())
        if output.weighed or inside:
            raise _NoPlaceError("it gives a map that channel attention has weighed already")
        return self._map_channels(output)

    def _sites(self) -> list[str]:
        return [site.partition("#")[0] for site in self._flow.found]

    def _map_channels(self, value: "_Value") -> int:
        shape, axis = value.shape, value.axis
        if len(shape) < 3 or not value.tensor.is_floating_point():
            raise _NoPlaceError(f"it gives {_sizes(shape)}: accepted are maps (N, C, ...)")
        if axis not in (1, None):
            words = f"it gives {_sizes(shape)}, its channels in dimension {axis}"
            raise _NoPlaceError(f"{words}: accepted are maps (N, C, ...)")
        if axis is None and (value.disputed or len(shape) == 3):
            words = f"it gives {_sizes(shape)}, of which {shape[1]} may be channels or tokens"
            raise _NoPlaceError(f"{words}: accepted are maps (N, C, ...)")
        return shape[1]


def in_words(reasons: Mapping[str, str]) -> str:
    """The first of some reasons, by name, and how many more there are."""
    name, reason = next(iter(reasons.items()))
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f"{name}: {reason}{more}"


class _NoPlaceError(ValueError):
    """Why attention cannot go behind a module."""


class _Value:
    """What an operation gave: of which values, in which module, and who gave it on.

    axis is the dimension of the channels, None where that is not known, disputed where operands of
    a sum do not agree in it. convolutions and matrix products are heavy.
    """

    def __init__(
        self, tensor: Tensor, parents: Sequence["_Value"] = (), *, maker: str = ""
    ) -> None:
        self.tensor = tensor  # kept, so that no other gets its id
        self.shape = tuple(tensor.shape)
        self.parents = parents
        self.maker = maker
        self.givers: list[str] = []
        self.axis: int | None = None
        self.disputed = False
        self.heavy = False
        self.weighed = False

    @property
    def giver(self) -> str | None:
        """The module that stands for the value: that in which it was made, if it gives it on."""
        if self.maker in self.givers:
            return self.maker
        return next(iter(self.givers), None)

    def origins(self) -> set["_Value"]:
        """The value itself, and all of which it was made."""
        found = {self}
        todo = [self]
        while todo:
            new = set(todo.pop().parents) - found
            found |= new
            todo += new
        return found


class _Addition(NamedTuple):
    """A residual branch that is added to its shortcut in a module, the block."""

    branch: _Value
    giver: str | None
    block: str


class _Flow(Sites):
    """The data flow of a pass: every value with its origins, and who made it and gave it on.

    given: module -> its result, a `_Value`, or in words what it gives. handed: module -> those that
    gave what it takes in. again are modules that ran more than once.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.given: dict[str, _Value | str] = {}
        self.handed: dict[str, set[str]] = {}
        self.again: set[str] = set()
        self.additions: list[_Addition] = []
        self._values: dict[int, _Value] = {}
        self._constants = {id(each): each for each in (*model.parameters(), *model.buffers())}

    def entered(self, frame: Frame) -> None:
        super().entered(frame)
        values = [self._values.get(id(each)) for each in tree_leaves(frame.inputs)]
        self.handed[frame.name] = {name for value in values if value for name in value.givers}

    def left(self, frame: Frame, output: Any) -> None:
        super().left(frame, output)
        if frame.again:
            self.again.add(frame.name)
        self.given.pop(frame.name, None)
        if not isinstance(output, Tensor):
            self.given[frame.name] = f"a {type(output).__name__}"
            return
        value = self._values.get(id(output))
        self.given[frame.name] = value or "what no image moves"
        if value is not None:
            value.givers.append(frame.name)

    def is_heavy_between(self, before: str, after: str) -> bool:
        """Whether there is a convolution or a matrix product between what two modules give."""
        values = [self.given[name] for name in (before, after)]
        one, other = (value.origins() for value in values if isinstance(value, _Value))
        return any(value.heavy for value in other - one)

    def seen(self, function: Any, args: tuple, kwargs: dict) -> Any:
        given = self._given((args, kwargs))
        if function in _ADDITIONS and len(given) == 2:
            self._add(*given)
        sites = len(self.found)
        out = super().seen(function, args, kwargs)
        for tensor in _tensors(out):
            if not given:
                self._constants[id(tensor)] = tensor
                continue
            value = _Value(tensor, given, maker=self.frames[-1].name)
            name = function.overloadpacket.__name__
            value.heavy = "convolution" in name or name in (*_LINEAR, *_BATCHED)
            value.weighed = len(self.found) > sites
            value.axis = _axis(name, args, value)
            known = {each.axis for each in given if each.shape == value.shape} - {None}
            value.disputed = function in _ADDITIONS and len(known) > 1
            if value.disputed:
                value.axis = None
            self._values[id(tensor)] = value
        return out

    def _given(self, arguments: Any) -> list[_Value]:
        """The values among arguments; what comes from outside is one from now on."""
        found = []
        for tensor in _tensors(arguments):
            if id(tensor) not in self._constants:
                found.append(self._values.setdefault(id(tensor), _Value(tensor)))
        return found

    def _add(self, one: _Value, other: _Value) -> None:
        """Note an addition, if it is one of a residual branch."""
        if one is other or one.shape != other.shape or len(one.shape) < 3:
            return
        mine, others = one.origins(), other.origins()
        heavy = {
            one: sum(value.heavy for value in mine - others),
            other: sum(value.heavy for value in others - mine),
        }
        shortcut, branch = sorted(heavy, key=heavy.__getitem__)
        if heavy[shortcut] > 1 or heavy[shortcut] == heavy[branch]:
            return
        if None not in (branch.axis, shortcut.axis) and branch.axis != shortcut.axis:
            branch.axis, branch.disputed = None, True
        self.additions.append(_Addition(branch, branch.giver, self.frames[-1].name))


def _axis(name: str, args: tuple, value: _Value) -> int | None:
    """In which dimension an operation of that name leaves the channels; None if unknown."""
    last = len(value.shape) - 1
    if "convolution" in name or "batch_norm" in name or "group_norm" in name:
        return 1
    if name in _LINEAR or "layer_norm" in name:
        return last
    same = [parent for parent in value.parents if parent.shape == value.shape]
    source = (same or value.parents)[0]
    axis, shape = source.axis, source.shape
    if axis is None or name in _BATCHED:
        return None
    if name == "permute":
        return [dimension % len(shape) for dimension in args[1]].index(axis)
    if name == "transpose":
        pair = [dimension % len(shape) for dimension in args[1:3]]
        return pair[1 - pair.index(axis)] if axis in pair else axis
    if name in _VIEWS:
        if axis == len(shape) - 1 and shape[-1] == value.shape[-1]:
            return last
        return 1 if axis == 1 and shape[:2] == value.shape[:2] else None
    return axis if len(shape) == len(value.shape) else None


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _sizes(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape[1:]))})"
