"""Networks that anybody's functions make, named as package.module:function.

The function is imported by its name, from wherever Python looks: ``python -m eca_lab`` looks in the
working directory first, and so do the processes that it starts. It is called with
``num_classes=...``, draws its weights from torch's generator, and gives a new network (N, 3, H, W)
-> logits (N, classes) every time.
"""

import hashlib
import json
import sysconfig
from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from sys import modules
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from eca_lab.attention.spec import check_backbone, is_function
from eca_lab.checks import shown
from eca_lab.networks import passes


def import_function(backbone: str) -> Callable[..., Any]:
    """The function of that name; ValueError where it cannot be imported, and why."""
    check_backbone(backbone)
    module, _, name = backbone.partition(":")
    try:
        function = getattr(import_module(module), name, None)
    except Exception as error:  # what a module does when it is imported can be anything
        looked = " (looked for in the working directory and in sys.path)"
        where = looked if isinstance(error, ModuleNotFoundError) else ""
        raise _refused(backbone, f"{_said(error)}{where}") from None
    if not callable(function):
        raise _refused(backbone, f"{module} has no function {name}")
    if not _takes_classes(function):
        raise _refused(backbone, "accepted is a function that takes num_classes=...")
    return function


def build_imported(backbone: str, *, num_classes: int) -> nn.Module:
    """What the function of that name makes, its weights drawn from torch's generator.

    ValueError where it cannot be imported, raises, or gives no `torch.nn.Module`.
    """
    function = import_function(backbone)
    try:
        model = function(num_classes=num_classes)
    except Exception as error:
        raise _refused(backbone, f"with num_classes={num_classes}: {_said(error)}") from None
    if not isinstance(model, nn.Module):
        raise _refused(backbone, f"it gives {shown(model)}: accepted is a torch.nn.Module")
    return model


def example_of(size: int) -> Tensor:
    """Two images of so many pixels, for passes that shapes alone matter to."""
    return torch.zeros(2, 3, size, size)


def architecture(backbone: str, *, num_classes: int, size: int) -> str:
    """A fingerprint of the network that a function makes: another one where that is another.

    The SHA-256 of its modules (names, classes, and what they print of themselves), its parameters
    and buffers (names, shapes, dtypes, whether they are trained, and the values of those that no
    seed changes, such as pretrained ones), and every operation of a pass in training and in
    evaluation, with its shapes and its arguments that are no tensors.

    It knows no comments, names of variables or files. It does not see how weights are drawn, but
    only which; what becomes of gradients; what an example of this size does not run; and another
    version of torch may compute by other operations, which are another fingerprint.

    Args:
        backbone: package.module:function.
        num_classes: of the data set.
        size: of its images, in pixels.

    Raises:
        ValueError: as `build_imported`; or a function that does not make a new network every time,
            or draws from elsewhere than torch's generator; or a network that cannot take such
            images, or gives no logits (N, classes).
    """
    return _architecture(import_function(backbone), backbone, num_classes, size)


def uploads(backbone: str) -> list[ModuleType]:
    """What other machines need to import the function: its package, unless it is installed."""
    if not is_function(backbone):
        return []
    import_function(backbone)
    package = modules[backbone.partition(":")[0].partition(".")[0]]
    places = [
        *getattr(package, "__path__", ()),
        *filter(None, [getattr(package, "__file__", None)]),
    ]
    installed = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")]
    if any(Path(place).is_relative_to(root) for place in places for root in installed):
        return []
    return [package]


def _takes_classes(function: Callable[..., Any]) -> bool:
    try:
        parameters = signature(function).parameters
    except ValueError:  # of some that are built in
        return False
    kinds = [parameter.kind for parameter in parameters.values()]
    return "num_classes" in parameters or Parameter.VAR_KEYWORD in kinds


@cache  # a module that is imported stays as it is
def _architecture(function: Callable[..., Any], backbone: str, num_classes: int, size: int) -> str:
    with torch.random.fork_rng(devices=[]):
        built = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            built.append(build_imported(backbone, num_classes=num_classes))
        first, again, _ = built
        if first is again:
            raise _refused(backbone, "it gives the same network again: accepted is a new one")
        tensors = [*first.parameters(), *first.buffers()]
        if any(tensor.is_meta or is_lazy(tensor) for tensor in tensors):
            raise _refused(backbone, "its weights have no values yet")
        values, same, others = (_values(model) for model in built)
        if values != same:
            elsewhere = "its weights are drawn from elsewhere than torch's generator"
            raise _refused(backbone, f"{elsewhere}: one seed gives two networks")
        runs = [_operations(model, backbone, num_classes, size) for model in (first, again)]
        if runs[0] != runs[1]:
            raise _refused(backbone, "with one seed, two passes of it are not of one kind")
    for name in values:
        if others.get(name) != values[name]:
            values[name] = [*values[name][:-1], "drawn"]
    parts = [
        [name, type(part).__qualname__, part.extra_repr()] for name, part in first.named_modules()
    ]
    content = json.dumps([parts, values, runs[0]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _values(model: nn.Module) -> dict[str, list[Any]]:
    """Of every parameter and buffer: shape, dtype, whether it is trained, and a digest."""
    found = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        values = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(values.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        found[name] = [list(tensor.shape), str(tensor.dtype), tensor.requires_grad, digest]
    return found


def _operations(model: nn.Module, backbone: str, num_classes: int, size: int) -> list[Any]:
    """The operations of a pass in training and of one in evaluation."""
    images = example_of(size)
    trace = _Operations(model)
    for mode in (True, False):
        model.train(mode)
        torch.manual_seed(0)
        try:
            with torch.no_grad(), trace:
                logits = passes.call(model, images)
        except Exception as error:
            words = f"it cannot take images of {size} x {size} pixels"
            raise _refused(backbone, f"{words}: {_said(error)}") from None
        if not isinstance(logits, Tensor) or logits.shape != (len(images), num_classes):
            what = _shape(logits) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            mode_name = "training" if mode else "evaluation"
            accepted = f"accepted are logits (N, {num_classes})"
            raise _refused(backbone, f"its network gives {what} in {mode_name}: {accepted}")
    return trace.operations


class _Operations(passes.Trace):
    """Writes down every operation: its name, its arguments, and the shapes of what it gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.operations: list[Any] = []

    def seen(self, function: Any, args: tuple, kwargs: dict) -> Any:
        arguments = tree_map(_written, [args, kwargs])
        out = function(*args, **kwargs)
        self.operations.append([str(function), arguments, [*map(_written, tree_leaves(out))]])
        return out


def _written(value: Any) -> Any:
    """An argument as JSON holds it: of a tensor its shape, of a float all its digits."""
    if isinstance(value, Tensor):
        return _shape(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | torch.dtype):
        return repr(value)
    return type(value).__name__


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _refused(backbone: str, why: str) -> ValueError:
    return ValueError(f"backbone={shown(backbone)}: {why}")


def _said(error: Exception) -> str:
    """An error, by its kind and its first line."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}".strip(": ")
