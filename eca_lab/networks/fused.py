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
from contextlib import contextmanager
from functools import cache, partial

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from eca_lab.attention.modules import ChannelAttention

_compiled = cache(partial(torch.compile, dynamic=True, fullgraph=True))
_warn_once = cache(partial(warnings.warn, stacklevel=3))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def training_path(model, fused=True, dtype=torch.float32):
    """While the context is open, the blocks of a model train fused, or by their modules.

    Gives "fused" or "modules": these also, with a warning, for a model with an `obstacle` and where
    torch.compile does not work. dtype is that of the feature maps, bfloat16 under autocast.
    """
    device = next(model.parameters()).device
    if fused and (reason := obstacle(model) or _compile_error(device, dtype)):
        _warn_once(f"training runs by the modules, not fused: {reason}")
        fused = False
    for block in _blocks(model):
        block.trains_fused = fused
    try:
        yield "fused" if fused else "modules"
    finally:
        for block in _blocks(model):
            block.trains_fused = False


def obstacle(model):
    """Why a model cannot train fused, None if it can."""
    if not _blocks(model):
        return f"the blocks of {type(model).__name__} do not end in a ReLU"
    if not all(_is_pooled(block.attention) for block in _blocks(model)):
        return "its attention depends on more than the means of the channels"


def applies(block, bn, x, shortcut):
    """Whether a block ends fused, from bn(x) on: not where a module is hooked or changed."""
    modules = bn, block.relu, *block.attention.modules()
    return (
        block.trains_fused
        and (bn.training and torch.is_grad_enabled())
        and (x.shape, x.dtype) == (shortcut.shape, shortcut.dtype)
        and x.numel() > x.shape[1]  # of a single value BatchNorm has no variance, and says so
        and (type(bn) is nn.BatchNorm2d and bn.affine and bn.track_running_stats)
        and bn.weight.dtype == _wide(x[:0]).dtype
        and _is_pooled(block.attention)
        and not any(getattr(module, hooks) for module in modules for hooks in _HOOKS)
    )


def bn_attention_add_relu(x, shortcut, bn, attention):
    """relu(attention(bn(x)) + shortcut) in training mode; moves the running statistics."""
    score = getattr(attention, "score", lambda y: torch.full_like(y, 1e4))  # the sigmoid is 1
    others = bn.weight, bn.bias, bn.eps, score, *attention.parameters()
    out, mean, var = _Fused.apply(x, shortcut, *others)
    with torch.no_grad():
        bn.num_batches_tracked += 1
        share = 1 / bn.num_batches_tracked.item() if bn.momentum is None else bn.momentum
        bn.running_mean.lerp_(mean, share)
        bn.running_var.lerp_(var / (1 - x.shape[1] / x.numel()), share)
    return out


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shortcut, gamma, beta, eps, score, *parameters):
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
    def backward(ctx, grad, *_):
        x, gamma, beta, out, plain, d, mu, r = ctx.saved_tensors
        y, logits, parameters = ctx.scored
        grad = grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)
        g, s0, s1, dlogits = _run(gate, grad, out, x, plain, mu, r, gamma, beta)
        wanted, grads = [each for each in (y, *parameters) if each.requires_grad], []
        if logits.requires_grad:
            given = logits, wanted, dlogits.to(logits.dtype)
            grads = torch.autograd.grad(*given, retain_graph=True, allow_unused=True)
        of = dict(zip(wanted, grads, strict=False))  # empty where there is no attention
        dy = torch.zeros_like(d) if of.get(y) is None else of[y]
        dx, dgamma, dbeta = _run(input_grad, g, x, plain, s0, s1, dy, d, mu, r, gamma)
        return dx, g, dgamma, dbeta, None, None, *map(of.get, parameters)


def pool(x, gamma, beta, eps):
    x = _wide(x)
    pivot = x[:1].mean((2, 3))  # near the mean, so that the squares are of small numbers
    shifted = x - _over(pivot)
    mean, square = shifted.mean((2, 3)), (shifted * shifted).mean((2, 3))
    mu = mean.mean(0)
    var = (square.mean(0) - mu * mu).clamp_min(0)
    d, r = mean - mu, torch.rsqrt(var + eps)
    return d * (gamma * r) + beta, d, mu + pivot[0], var, r


def attend(x, shortcut, logits, mu, r, gamma, beta):
    w = torch.sigmoid(logits)
    attended = (_wide(x) - _over(mu)) * _over(w * (gamma * r)) + _over(w * beta)
    return torch.relu(attended + shortcut).to(x.dtype)  # relu keeps NaN, by which a loss is seen


def gate(grad, out, x, logits, mu, r, gamma, beta):
    g = torch.where(out <= 0, 0, grad)
    s0, s1 = _wide(g).sum((2, 3)), (_wide(g) * (_wide(x) - _over(mu))).sum((2, 3))
    w = torch.sigmoid(logits)
    return g, s0, s1, (s1 * (gamma * r) + s0 * beta) * w * (1 - w)


def input_grad(g, x, logits, s0, s1, dy, d, mu, r, gamma):
    """dx, dgamma, dbeta."""
    images, _, height, width = x.shape
    w, scale, area = torch.sigmoid(logits), gamma * r, height * width
    dbeta, dgamma = (w * s0 + dy).sum(0), (w * s1 + dy * d).sum(0) * r
    slope = _over(scale * r * dgamma / (images * area))
    offset = _over(scale * (dy / area - dbeta / (images * area)))
    dx = _wide(g) * _over(w * scale) - (_wide(x) - _over(mu)) * slope + offset
    return dx.to(x.dtype), dgamma, dbeta


def _run(function, *tensors, **options):
    # Autocast, or who wants a gradient, would be reasons to compile again.
    with torch.autocast(tensors[0].device.type, enabled=False):
        return _compiled(function)(*(each.detach() for each in tensors), **options)


def _compile_error(device, dtype):
    """Compile what training needs, of sizes that differ, lest two be taken for one."""
    from torch._inductor import config  # takes a while

    bn = nn.BatchNorm2d(3, device=device)
    x = torch.empty((2, 3, 4, 5), dtype=dtype, device=device, memory_format=torch.channels_last)
    for anew in (False, True):  # who is killed while compiling leaves broken files in the cache
        try:
            with config.patch(force_disable_caches=anew):
                out = bn_attention_add_relu(x, torch.empty_like(x), bn, nn.Identity())
                return out.backward(torch.empty_like(out))
        except RuntimeError as error:  # no C++ compiler, or a Python unknown to torch.compile
            reason, *_ = str(error).partition("\n\n")
    return f"torch.compile: {' '.join(reason.split())}"


def _blocks(model):
    return [module for module in model.modules() if hasattr(module, "trains_fused")]


def _is_pooled(attention):
    """Whether logits of the pooled descriptor alone are all that the module does."""
    return isinstance(attention, nn.Identity) or all(
        getattr(type(attention), name, None) is getattr(ChannelAttention, name)
        for name in ("squeeze", "weights", "forward")
    )


def _wide(x):
    return x if x.dtype == torch.float64 else x.float()


def _over(values):
    return values[..., None, None]  # (..., C) -> (..., C, 1, 1)
