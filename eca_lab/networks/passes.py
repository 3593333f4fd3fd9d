"""A pass of any network: what goes in, what comes out, and what every operation in between is.

Nothing here knows a network by its name. A module is named as in `torch.nn.Module.named_modules`;
the network itself has the name "".
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eca_lab.checks import check_integer, shown

Prepare = Callable[[Any], Any]  # a batch of images -> what the network is called with

_IMAGES = "a tensor (N, ...), a DataLoader, or another iterable of batches"


def batches(images: Tensor | Iterable[Any], batch_size: int = 250) -> Iterator[tuple[Any, Any]]:
    """Batches of images, each with its labels, or None where there are none.

    Args:
        images: a tensor (N, ...), which is cut into batches; or batches: a DataLoader, or another
            iterable. Of a batch that is a tuple or a list, the first is the images and the second
            their labels. Any other batch is handed on as it is.
        batch_size: how many images of a tensor make a batch.

    Raises:
        TypeError, ValueError: what is none of these, or holds no image.
    """
    check_integer("batch_size", batch_size)
    if isinstance(images, Tensor):
        if images.dim() == 0 or not len(images):
            raise ValueError(f"images of shape {tuple(images.shape)}: accepted are one or more")
        yield from ((batch, None) for batch in images.split(batch_size))
        return
    if isinstance(images, str | Mapping) or not isinstance(images, Iterable):
        raise TypeError(f"images={shown(images)}: accepted is {_IMAGES}")
    batch = None
    for batch in images:
        if isinstance(batch, tuple | list):
            yield batch[0], batch[1] if len(batch) > 1 else None
        else:
            yield batch, None
    if batch is None:
        raise ValueError(f"images={shown(images)} gives no batch: accepted are one or more")


def count_of(batch: Any) -> int:
    """How many images a batch holds: the length of the first tensor in it."""
    for value in tree_leaves(batch):
        if isinstance(value, Tensor) and value.dim():
            return len(value)
    raise TypeError(f"a batch is {shown(batch)}: accepted is a tensor, or what holds one")


def call(model: nn.Module, batch: Any, prepare: Prepare | None = None) -> Any:
    """Run a batch through a model, on the device and in the dtype of its parameters.

    Args:
        model: any.
        batch: of images.
        prepare: makes of the batch, on that device, what the model is called with: a tuple of
            arguments, a dict of arguments by name, or the one argument itself.

    Raises:
        ValueError: images that are integers, without prepare.
    """
    like = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    given = _moved(batch, like.device)
    if prepare is not None:
        given = prepare(given)
    elif isinstance(given, Tensor) and not given.is_floating_point():
        raise ValueError(f"images of {given.dtype} without prepare: accepted are floats")
    given = _moved(given, like.device, like.dtype if like.is_floating_point() else None)
    if isinstance(given, dict):
        return model(**given)
    if isinstance(given, tuple):
        return model(*given)
    return model(given)


def logits_of(output: Any) -> Tensor:
    """The logits (N, classes) in what a model gives.

    A tensor; what has an attribute or an entry "logits" (or an entry "out"); or the first of a
    tuple. TypeError for anything else.
    """
    found = output
    if not isinstance(found, Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, Mapping):
        found = found.get("logits", found.get("out"))
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(found, Tensor) and found.dim() == 2:
        return found
    what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else shown(output)
    raise TypeError(f"the model gives {what}: accepted are logits (N, classes), alone or first")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While the context is open, the model is in evaluation mode; afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    with suppress(NotImplementedError):  # what torch.export made has the mode of its making alone
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions and matrix products of float32 in float32, on GPUs that would round to TF32."""
    with ExitStack() as stack:
        convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        for backend in (convolutions, torch.backends.cuda.matmul):
            stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        yield


def _moved(value: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """A tensor, or those in a tuple, list or dict, there; the floats among them in that dtype."""
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    if isinstance(value, dict):
        return {name: _moved(part, device, dtype) for name, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_moved(part, device, dtype) for part in value)
    return value


class Frame(NamedTuple):
    """A module that runs, with these arguments, and whether it has run before in this pass."""

    name: str
    module: nn.Module
    inputs: tuple
    again: bool


class Trace:
    """While it is entered, `seen` is told of every operation in the passes of a model.

    It sees what is computed, not what computes: eager, traced and compiled models alike, and these
    run uncompiled meanwhile. `frames` are the modules that run just then, the innermost last;
    `images` is how many images the pass has. Of a traced model, whose modules are not called one by
    one, the model is the only frame.

    Raises:
        ValueError: a scripted model, into which nothing can look.
        RuntimeError: from a pass in another thread, where it cannot see.
    """

    def __init__(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.RecursiveScriptModule):
                raise ValueError(
                    f"{name or type(model).__name__} is scripted, and hooks cannot be put on it: "
                    "accepted is the model that was scripted, or one that was traced"
                )
        self.model = model
        self.frames: list[Frame] = []
        self.images = 0
        self._ran: set[str] = set()
        self._entered = ExitStack()
        self._thread: int | None = None  # the one whose operations are seen

    def seen(self, function: Any, args: tuple, kwargs: dict) -> Any:
        """Run an operation, and give what it gives. A subclass looks at it, or changes it."""
        return function(*args, **kwargs)

    def begin(self) -> None:
        """A pass begins."""

    def entered(self, frame: Frame) -> None:
        """A module begins."""

    def left(self, frame: Frame, output: Any) -> None:
        """A module has ended, and gives this; after an error, None."""

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        for name, module in self.model.named_modules():
            self._watch(name, module)
        if "torch._dynamo" in sys.modules:  # or nothing is compiled
            self._entered.enter_context(torch.compiler.set_stance("force_eager"))
        self._entered.enter_context(_Mode(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.close()

    def _watch(self, name: str, module: nn.Module) -> None:
        def enter(module: nn.Module, inputs: tuple, named: dict) -> None:
            if not self.frames:
                self._begin_pass((inputs, named))
            self.frames.append(Frame(name, module, inputs, again=name in self._ran))
            self._ran.add(name)
            self.entered(self.frames[-1])

        def leave(module: nn.Module, inputs: tuple, output: Any) -> None:
            if self.frames:  # none, where a pass was refused
                self.left(self.frames.pop(), output)

        enters = module.register_forward_pre_hook(enter, with_kwargs=True)
        self._entered.enter_context(enters)
        self._entered.enter_context(module.register_forward_hook(leave, always_call=True))

    def _begin_pass(self, inputs: Any) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "the model runs in another thread than the one that looks into it: run it there"
            )
        self.images = count_of(inputs)
        self._ran.clear()
        self.begin()


class _Mode(TorchDispatchMode):
    """Tells a trace of the operations."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it, torch would import it, for seconds

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._trace.frames or function is torch.ops.prim.device.default:
            return function(*args, **kwargs)  # outside of the model, or no operation
        # In inference mode an operation that consists of others comes in one piece.
        with self:
            out = function.decompose(*args, **kwargs)
        return self._trace.seen(function, args, kwargs) if out is NotImplemented else out
