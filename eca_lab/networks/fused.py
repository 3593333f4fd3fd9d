"""The end of a residual block, relu(attention(bn(x)) + shortcut), as one operation for training.

Each module on its own reads and writes the whole feature map. But BatchNorm in training reads all
of x anyway, and sums over positions of that pass give the pooled descriptor:

    bn(x) = gamma r (x - mu) + beta       mu, r: mean and 1 / standard deviation of each channel
    y     = gamma r d + beta              d: mean over the positions of x - mu
    w     = sigmoid(score(y))
    out   = relu(w bn(x) + shortcut)

So does the backward pass, where g is the gradient of what the ReLU takes in, s0 and s1 are the sums
over positions of g and of g (x - mu), and M = N H W:

    dlogits = (gamma r s1 + beta s0) w (1 - w), from which autograd gives dy
    dbeta, dgamma = sums over images of w s0 + dy and of r (w s1 + dy d)
    dx      = gamma r (w g + dy / (H W) - dbeta / M - r (x - mu) dgamma / M)

Shapes: N images, C channels, H x W positions; x, shortcut, out, g: (N, C, H, W); y, d, logits, s0,
s1: (N, C); mu, r, gamma, beta: (C,). Four functions go through torch.compile, once for all sizes:
as they stand they would be several times slower than the modules.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from eca_lab.attention.modules import ChannelAttention

_compiled = cache(partial(torch.compile, dynamic=True, fullgraph=True))
_warn_once = cache(partial(warnings.warn, stacklevel=3))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def training_path(
    model: nn.Module, *, fused: bool = True, dtype: torch.dtype = torch.float32
) -> Iterator[str]:
    """While the context is open, the blocks of a model train fused, or by their modules.

    Args:
        model: on the device on which it will train.
        fused: False for its modules.
        dtype: of the feature maps, bfloat16 under autocast.

    Returns:
        "fused" or "modules": these also, with a warning, for a model with an `obstacle` and where
        torch.compile does not work.
    """
    device = next(model.parameters()).device
    reason = (obstacle(model) or _compile_error(device, dtype)) if fused else None
    if reason:
        _warn_once(f"training runs by the modules, not fused: {reason}")
        fused = False
    for block in _blocks(model):
        block.trains_fused = fused
    try:
        yield "fused" if fused else "modules"
    finally:
        for block in _blocks(model):
            block.trains_fused = False


def obstacle(model: nn.Module) -> str | None:
    """Why a model cannot train fused, None if it can."""
    if not _blocks(model):
        return f"the blocks of {type(model).__name__} do not end in a ReLU"
    if not all(_is_pooled(block.attention) for block in _blocks(model)):
        return "its attention depends on more than the means of the channels"
    return None


def applies(block: Any, bn: nn.Module, x: Tensor, shortcut: Tensor) -> bool:
    """Whether a block ends fused, from bn(x) on: not where a module is hooked or changed."""
    trains = block.trains_fused and bn.training and torch.is_grad_enabled()
    return (
        trains
        and _is_usual(bn)
        and _is_pooled(block.attention)
        and x.shape == shortcut.shape
        and x.dtype == shortcut.dtype
        and bn.weight.dtype == _wide(x[:0]).dtype
        and x.numel() > x.shape[1]  # of a single value BatchNorm has no variance, and says so
        and not any(_is_hooked(module) for module in (bn, block.relu, *block.attention.modules()))
    )


def bn_attention_add_relu(
    x: Tensor, shortcut: Tensor, bn: nn.BatchNorm2d, attention: nn.Module
) -> Tensor:
    """relu(attention(bn(x)) + shortcut) in training mode; moves the running statistics.

    Args:
        x: (N, C, H, W), what the BatchNorm takes in.
        shortcut: of the same shape and dtype.
        bn: affine, with running statistics.
        attention: a module that is a score of the means, or nn.Identity().
    """
    score = getattr(attention, "score", _score_of_none)
    parameters = attention.parameters()
    out, mean, var = _Fused.apply(x, shortcut, bn.weight, bn.bias, bn.eps, score, *parameters)
    with torch.no_grad():
        bn.num_batches_tracked.add_(1)
        share = bn.momentum
        if share is None:  # the average of all batches so far
            share = 1 / bn.num_batches_tracked.item()
        bn.running_mean.lerp_(mean, share)
        bn.running_var.lerp_(var / (1 - x.shape[1] / x.numel()), share)
    return out


def _score_of_none(y: Tensor) -> Tensor:
    """Logits of which the sigmoid is 1."""
    return torch.full_like(y, 1e4)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shortcut: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
        score: Callable[[Tensor], Tensor],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, d, mu, var, r = _run(pool, x, gamma, beta, eps=eps)
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            logits = score(y.requires_grad_())
        # Of one dtype and layout whatever the module: one graph for all.
        plain = logits.detach().to(y.dtype).contiguous()
        out = _run(attend, x, shortcut, plain, mu, r, gamma, beta)
        ctx.save_for_backward(x, gamma, beta, out, plain, d, mu, r)
        ctx.scored = y, logits, parameters
        ctx.mark_non_differentiable(mu, var)
        return out, mu, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, out, plain, d, mu, r = ctx.saved_tensors
        y, logits, parameters = ctx.scored
        if grad.stride() != x.stride():
            grad = torch.empty_like(x).copy_(grad)
        g, s0, s1, dlogits = _run(gate, grad, out, x, plain, mu, r, gamma, beta)
        gradients = {}  # none where there is no attention
        if logits.requires_grad:
            wanted = [tensor for tensor in (y, *parameters) if tensor.requires_grad]
            found = torch.autograd.grad(
                logits, wanted, dlogits.to(logits.dtype), retain_graph=True, allow_unused=True
            )
            gradients = dict(zip(wanted, found, strict=True))
        dy = gradients.get(y)
        if dy is None:
            dy = torch.zeros_like(d)
        dx, dgamma, dbeta = _run(input_grad, g, x, plain, s0, s1, dy, d, mu, r, gamma)
        return dx, g, dgamma, dbeta, None, None, *map(gradients.get, parameters)


def pool(
    x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, d, mu, the variance of each channel, and r."""
    x = _wide(x)
    pivot = x[:1].mean((2, 3))  # near the mean, so that the squares are of small numbers
    shifted = x - _over(pivot)
    mean = shifted.mean((2, 3))
    square = (shifted * shifted).mean((2, 3))
    mu = mean.mean(0)
    var = (square.mean(0) - mu * mu).clamp_min(0)
    d = mean - mu
    r = torch.rsqrt(var + eps)
    return d * (gamma * r) + beta, d, mu + pivot[0], var, r


def attend(
    x: Tensor,
    shortcut: Tensor,
    logits: Tensor,
    mu: Tensor,
    r: Tensor,
    gamma: Tensor,
    beta: Tensor,
) -> Tensor:
    """out."""
    w = torch.sigmoid(logits)
    attended = (_wide(x) - _over(mu)) * _over(w * (gamma * r)) + _over(w * beta)
    return torch.relu(attended + shortcut).to(x.dtype)  # relu keeps NaN, by which a loss is seen


def gate(
    grad: Tensor,
    out: Tensor,
    x: Tensor,
    logits: Tensor,
    mu: Tensor,
    r: Tensor,
    gamma: Tensor,
    beta: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """g, s0, s1 and dlogits."""
    g = torch.where(out <= 0, 0, grad)
    s0 = _wide(g).sum((2, 3))
    s1 = (_wide(g) * (_wide(x) - _over(mu))).sum((2, 3))
    w = torch.sigmoid(logits)
    return g, s0, s1, (s1 * (gamma * r) + s0 * beta) * w * (1 - w)


def input_grad(
    g: Tensor,
    x: Tensor,
    logits: Tensor,
    s0: Tensor,
    s1: Tensor,
    dy: Tensor,
    d: Tensor,
    mu: Tensor,
    r: Tensor,
    gamma: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dgamma, dbeta."""
    images, _, height, width = x.shape
    area = height * width
    w = torch.sigmoid(logits)
    scale = gamma * r
    dbeta = (w * s0 + dy).sum(0)
    dgamma = (w * s1 + dy * d).sum(0) * r
    slope = _over(scale * r * dgamma / (images * area))
    offset = _over(scale * (dy / area - dbeta / (images * area)))
    dx = _wide(g) * _over(w * scale) - (_wide(x) - _over(mu)) * slope + offset
    return dx.to(x.dtype), dgamma, dbeta


def _run(function: Callable, *tensors: Tensor, **options: float) -> Any:
    """What the function gives, compiled."""
    # Autocast, or who wants a gradient, would be reasons to compile again.
    with torch.autocast(tensors[0].device.type, enabled=False):
        return _compiled(function)(*(tensor.detach() for tensor in tensors), **options)


def _compile_error(device: torch.device, dtype: torch.dtype) -> str | None:
    """Compile what training needs; gives why that cannot be done, or None."""
    from torch._inductor import config  # takes a while

    try:
        _compile_all(device, dtype)
        return None
    except RuntimeError:  # maybe of a broken file in the cache, as who is killed there leaves them
        pass
    try:
        with config.patch(force_disable_caches=True):
            _compile_all(device, dtype)
        return None
    except RuntimeError as error:  # no C++ compiler, or a Python unknown to torch.compile
        reason, *_ = str(error).partition("\n\n")
        return f"torch.compile: {' '.join(reason.split())}"


def _compile_all(device: torch.device, dtype: torch.dtype) -> None:
    # Of sizes that differ, lest the compiler take two of them for one.
    bn = nn.BatchNorm2d(3, device=device)
    x = torch.empty((2, 3, 4, 5), dtype=dtype, device=device, memory_format=torch.channels_last)
    out = bn_attention_add_relu(x, torch.empty_like(x), bn, nn.Identity())
    out.backward(torch.empty_like(out))


def _blocks(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "trains_fused")]


def _is_pooled(attention: nn.Module) -> bool:
    """Whether logits of the pooled descriptor alone are all that the module does."""
    if isinstance(attention, nn.Identity):
        return True
    kind = type(attention)
    names = ("squeeze", "weights", "forward")
    return all(getattr(kind, name, None) is getattr(ChannelAttention, name) for name in names)


def _is_usual(bn: nn.Module) -> bool:
    return type(bn) is nn.BatchNorm2d and bn.affine and bn.track_running_stats


def _is_hooked(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in _HOOKS)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _over(values: Tensor) -> Tensor:
    return values[..., None, None]  # (..., C) -> (..., C, 1, 1)
