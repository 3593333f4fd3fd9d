"""Channel attention put into any network, and taken out again.

The attention becomes a child of the module behind which it stands, under the name `CHILD`, and a
forward hook of that module runs it. So every module and parameter keeps its name: weights load
into the network as before, and those of the attention stand beside them, as in
``layer1.0.bn3.channel_attention.conv.weight``. The hook holds no module, but asks the one that
runs, and so goes along where a network is copied, saved whole, replicated, compiled or exported.
What makes other modules of modules may leave it behind: convert to SyncBatchNorm, fuse and
quantise before. `attached` tells where that has happened.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eca_lab.attention.modules import ChannelAttention, make_attention
from eca_lab.attention.spec import Spec, parse_spec
from eca_lab.checks import check_choice, shown
from eca_lab.networks.backbones import modules_for
from eca_lab.networks.places import Places, in_words

CHILD = "channel_attention"
STARTS = ("drawn", "as it was")
# Arms whose weights cannot all be 1 at first.
_NEVER_AS_IT_WAS = {
    "cbam": "its spatial map would still weigh the positions",
    "se_var1": "it has no weights, so its logits are the means themselves",
}
# Into these nothing can be put that would run, or would be trained.
_WRAPPERS = {
    "OptimizedModule": "compiled",
    "ScriptModule": "scripted",
    "DistributedDataParallel": "wrapped by DistributedDataParallel",
    "FullyShardedDataParallel": "sharded",
    "FSDPModule": "sharded",
}

Record = dict[str, dict[str, Any]]


@torch.inference_mode(False)  # of which the weights could not be trained
def attach(
    model: nn.Module,
    attention: str | Spec,
    where: str | None = None,
    example: Any = None,
    *,
    start: str = "drawn",
) -> Record:
    """Put channel attention into a network, behind modules that give maps (N, C, ...).

    Each module gets attention of its own, for its number of channels, known from one pass of the
    example; on its device, in the dtype of its weights, in its mode. All else stays as it was, the
    weights and their names, too. An optimizer that was made before does not know the new ones.

        attach(model, "eca", where="layer*.bn3", example=images)

    Args:
        model: any that is not compiled, scripted or wrapped yet.
        attention: a spec, such as "eca(k=3)"; "none" puts in nothing, and is recorded.
        where: a pattern of names; without it, before the additions of the residual branches: see
            `eca_lab.networks.places.Places.find`. A warning tells which of them are left out.
        example: a batch of one or more images, see `eca_lab.networks.passes.call`; always needed.
        start: "drawn", weights as each module draws them from torch's generator. Or "as it was",
            for a network that is trained: the last weights of each module are 0, and its sigmoid is
            doubled, so that all channel weights begin at 1 and the network gives what it gave.

    Returns:
        What was put where, for `attach_again`, as JSON holds it: name of the module -> attention,
        the resolved spec; channels; start.

    Raises:
        TypeError, ValueError: what is not accepted, naming it; nothing is changed then.
    """
    attention = parse_spec(attention)
    _check_model(model)
    if example is None:
        raise TypeError("example: missing; accepted is a batch of images, such as images[:2]")
    check_choice("start", start, STARTS)
    _check_start(attention, start)
    theirs = [f"{name}.{CHILD}" for name in attached(model)]
    places = Places(model, example)
    found = places.find(where)
    if places.left_out:
        warnings.warn(f"left without attention: {in_words(places.left_out)}", stacklevel=2)
    if own := [site for site in places.own_attention if site not in theirs]:
        words = f"the network has channel attention of its own in {len(own)} places, such as"
        warnings.warn(f"{words} {own[0]}: what is attached comes on top", stacklevel=2)
    record = {}
    made = modules_for(attention, list(found.values()))
    for (name, channels), module in zip(found.items(), made, strict=True):
        spec = module.spec if isinstance(module, ChannelAttention) else "none"
        record[name] = {"attention": spec, "channels": channels, "start": start}
    _put_all(model, record, dict(zip(found, made, strict=True)))
    again = Places(model, example).again
    if twice := [name for name in found if f"{name}.{CHILD}" in again]:
        _take_out(model, found)
        raise ValueError(f"{twice[0]} runs all that is in it: accepted is a module in it")
    return record


@torch.inference_mode(False)
def attach_again(model: nn.Module, record: Mapping[str, Mapping[str, Any]]) -> None:
    """Put channel attention where a record says that it was, to load weights that were saved.

    Args:
        model: built as that one was, without attention.
        record: of `attach` or `attached`, as JSON gives it back.

    Raises:
        TypeError, ValueError: what is no such record, or does not fit the model.
    """
    _check_model(model)
    if not isinstance(record, Mapping):
        raise TypeError(f"record={shown(record)}: accepted is what attach gave")
    made = {}
    for name, entry in record.items():
        if not isinstance(entry, Mapping) or entry.keys() != {"attention", "channels", "start"}:
            accepted = "accepted are attention, channels and start"
            raise ValueError(f"record of {shown(name)}: {shown(entry)}: {accepted}")
        spec = parse_spec(entry["attention"])
        check_choice("start", entry["start"], STARTS)
        _check_start(spec, entry["start"])
        made[name] = make_attention(spec, entry["channels"])
    _put_all(model, record, made)


def attached(model: nn.Module) -> Record:
    """What `attach` has put into a network and is there, as it records it.

    ValueError for attention that would not run any more: the module behind which it stands was
    made anew, such as by a conversion to SyncBatchNorm.
    """
    record: Record = {}
    for name, module in model.named_modules():
        child = module._modules.get(CHILD)
        if not isinstance(child, ChannelAttention):
            continue
        if _run_child not in module._forward_hooks.values():
            raise ValueError(
                f"the attention of {name} does not run: {type(module).__name__} was made anew "
                "behind it; accepted is such a conversion before attach"
            )
        start = "as it was" if isinstance(child.gate, _DoubledSigmoid) else "drawn"
        record[name] = {"attention": child.spec, "channels": child.channels, "start": start}
    return record


def detach(model: nn.Module) -> None:
    """Take out all that `attach` has put into a network, which then is as it was before.

    Args:
        model: any that is not compiled, scripted or wrapped.

    Raises:
        TypeError, ValueError: such a model, or one in which nothing is attached.
    """
    _check_model(model)
    record = attached(model)
    if not record:
        raise ValueError(f"{type(model).__name__} has no attention that was attached")
    _take_out(model, record)


class _DoubledSigmoid(nn.Sigmoid):
    """2 sigmoid(x): 1 where the logit is 0, to the bit."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _run_child(module: nn.Module, _: tuple, output: Tensor) -> Tensor:
    """The forward hook: it finds the attention in the module that runs, which may be a copy."""
    return getattr(module, CHILD)(output)


def _put_all(
    model: nn.Module, record: Mapping[str, Mapping[str, Any]], made: Mapping[str, nn.Module]
) -> None:
    """Put modules behind those of these names; nothing is put in before all are checked."""
    modules = dict(model.named_modules())
    for name, attention in made.items():
        if name not in modules:
            raise ValueError(f"{type(model).__name__} has no module {shown(name)}")
        if hasattr(modules[name], CHILD):
            raise ValueError(f"{name} has {CHILD} already: accepted after detach(model)")
        if record[name]["start"] == "as it was" and isinstance(attention, ChannelAttention):
            _start_as_it_was(attention)
    for name, attention in made.items():
        if isinstance(attention, ChannelAttention):
            _put(model, name, attention)


def _put(model: nn.Module, name: str, attention: ChannelAttention) -> None:
    like = _weight_near(model, name)
    if like is not None:
        attention.to(like.device, like.dtype)
    module = model.get_submodule(name)
    module.add_module(CHILD, attention.train(module.training))
    module.register_forward_hook(_run_child)


def _weight_near(model: nn.Module, name: str) -> Tensor | None:
    """A weight of a module, or else of the innermost module around it that has some."""
    for weight in model.get_submodule(name).parameters():
        if weight.is_floating_point():
            return weight
    return _weight_near(model, name.rpartition(".")[0]) if name else None


def _take_out(model: nn.Module, names: Iterable[str]) -> None:
    """Take out the attention behind modules of these names, where there is some."""
    for name in names:
        module = model.get_submodule(name)
        module._modules.pop(CHILD, None)
        for key in [key for key, hook in module._forward_hooks.items() if hook is _run_child]:
            del module._forward_hooks[key]


@torch.no_grad()
def _start_as_it_was(attention: ChannelAttention) -> None:
    """Make all its weights 1: logits of 0, and a sigmoid that is doubled.

    The weights of its last map alone are 0: were those before it, none would ever learn.
    """
    *_, last = attention.parameters()
    last.zero_()
    attention.gate = _DoubledSigmoid()


def _check_start(attention: Spec, start: str) -> None:
    if start == "as it was" and (reason := _NEVER_AS_IT_WAS.get(attention.name)):
        raise ValueError(f"attention '{attention}' with start={start!r}: {reason}")


def _check_model(model: nn.Module) -> None:
    """Raise for what is no module, or one into which nothing can be put."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={shown(model)}: accepted is a torch.nn.Module")
    for name, module in model.named_modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}
        how = next((how for kind, how in _WRAPPERS.items() if kind in kinds), None)
        if module._compiled_call_impl is not None:
            how = "compiled"
        if how is not None:
            where = name or type(module).__name__
            raise ValueError(f"{where} is {how}: accepted is the model before that")
