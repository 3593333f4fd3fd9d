"""The end of a residual block, relu(attention(bn(x)) + shortcut), as one operation for training.

Each module on its own reads and writes the whole feature map. But BatchNorm reads all of x anyway,
for its statistics, and sums per image and channel from the same pass give the pooled descriptor:

    bn(x) = gamma r (x - mu) + beta       mu, r: mean and 1 / standard deviation of each channel
    y     = gamma r d + beta              d: mean of x over positions, (N, C), less mu
    w     = sigmoid(score(y))
    out   = relu(w bn(x) + shortcut)

So forward takes two passes, and attention adds none. Nor does it backward, where g is the gradient
of what goes into the ReLU, M = N H W, and sums are over positions:

    s0, s1  = sum g, sum g (x - mu)       what BatchNorm needs, but for each image
    dlogits = (gamma r s1 + beta s0) w (1 - w), and dy from it by autograd
    dbeta, dgamma = sum over N of w s0 + dy, and of r (w s1 + dy d)
    dx      = gamma r (w g + dy / (H W) - dbeta / M - r (x - mu) dgamma / M)

For every attention whose logits depend on y alone, and for none (w = 1). The four functions `pool`,
`attend`, `gate` and `input_grad` go through torch.compile, once for all sizes: as separate
operators they would be many times slower than the modules.

Shapes: N images, C channels, H x W positions; x, shortcut, out, g: (N, C, H, W); y, d, logits, s0,
s1: (N, C); mu, r, gamma, beta: (C,).
"""

import warnings
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from eca_lab.attention import ChannelAttention

PATHS = ("modules", "fused")


@contextmanager
def training_path(model, fused=True, dtype=torch.float32):
    """While the context is open, the blocks of a model train fused, or by their modules.

    Args:
        model: of `eca_lab.models.build_model`, on its device. Its state dict stays as it is.
        fused: False for the modules. They also run, with a warning that says why, for a model with
            an `obstacle` and where torch.compile does not work.
        dtype: of the feature maps in training, bfloat16 under autocast.

    Yields:
        "fused" or "modules".
    """
    reason = "it was not asked for"
    if fused:
        reason = obstacle(model) or _compile(next(model.parameters()).device, dtype)
        if reason:
            warnings.warn(f"training runs by the modules, not fused: {reason}", stacklevel=3)
    blocks = _blocks(model)
    for block in blocks:
        block.trains_fused = not reason
    try:
        yield "modules" if reason else "fused"
    finally:
        for block in blocks:
            block.trains_fused = False


def obstacle(model):
    """Why the blocks of a model cannot train fused; None if they can."""
    blocks = _blocks(model)
    if not blocks:
        return f"the blocks of {type(model).__name__} do not end in a ReLU"
    for block in blocks:
        if not _is_pooled(block.attention):
            return f"the weights of {block.attention.spec} depend on more than the channels' means"
    return None


def applies(block, bn, x, shortcut):
    """Whether a block ends fused, given the input of its last BatchNorm.

    Not where someone listens to a module or has put another in its place, nor in evaluation mode.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (
        block.trains_fused
        and bn.training
        and torch.is_grad_enabled()
        and x.device.type in ("cpu", "cuda")
        and (x.shape, x.dtype) == (shortcut.shape, shortcut.dtype)
        and x.numel() > x.shape[1]  # of a single value BatchNorm has no variance, and says so
        and type(bn) is nn.BatchNorm2d
        and bn.affine
        and bn.track_running_stats
        and bn.weight.dtype == wide
        and _is_pooled(block.attention)
        and not any(map(_is_hooked, (bn, block.attention, block.relu)))
    )


def bn_attention_add_relu(x, shortcut, bn, attention):
    """relu(attention(bn(x)) + shortcut) in training mode; updates the running statistics.

    Args:
        x, shortcut: (N, C, H, W), of one dtype and layout.
        bn: BatchNorm2d of C channels.
        attention: a `ChannelAttention` whose logits depend on the descriptor alone, or Identity.
    """
    none = isinstance(attention, nn.Identity)
    score = _always if none else attention.score
    out, mean, var = _Fused.apply(
        x, shortcut, bn.weight, bn.bias, bn.eps, score, *attention.parameters()
    )
    with torch.no_grad():
        bn.num_batches_tracked += 1
        share = 1 / bn.num_batches_tracked.item() if bn.momentum is None else bn.momentum
        count = x.numel() // x.shape[1]
        bn.running_mean.lerp_(mean, share)
        bn.running_var.lerp_(var * (count / (count - 1)), share)
    return out


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shortcut, gamma, beta, eps, score, *parameters):
        pool, attend, _, _ = _functions()
        with torch.autocast(x.device.type, enabled=False):
            y, d, mu, var, r = pool(x.detach(), gamma.detach(), beta.detach(), eps)
        with torch.enable_grad():
            logits = score(y.requires_grad_())
        plain = logits.detach().to(y.dtype).contiguous()  # one graph for all modules
        scale = (mu, r, gamma.detach(), beta.detach())
        with torch.autocast(x.device.type, enabled=False):
            out = attend(x.detach(), shortcut.detach(), plain, *scale)
        ctx.save_for_backward(x, out, plain, d, mu, r, gamma, beta)
        ctx.scored = y, logits, parameters
        ctx.mark_non_differentiable(mu, var)
        return out, mu, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        _, _, gate, input_grad = _functions()
        x, out, plain, d, mu, r, gamma, beta = (each.detach() for each in ctx.saved_tensors)
        y, logits, parameters = ctx.scored
        grad = grad.contiguous(memory_format=_layout(x))
        with torch.autocast(x.device.type, enabled=False):
            g, s0, s1, dlogits = gate(grad, out, x, plain, mu, r, gamma, beta)
        dy, dparameters = None, {}
        if logits.requires_grad:
            wanted = [y, *(each for each in parameters if each.requires_grad)]
            dy, *rest = torch.autograd.grad(
                logits, wanted, dlogits.to(logits.dtype), retain_graph=True, allow_unused=True
            )
            dparameters = dict(zip(wanted[1:], rest, strict=True))
        dy = torch.zeros_like(d) if dy is None else dy
        with torch.autocast(x.device.type, enabled=False):
            dx, dgamma, dbeta = input_grad(g, x, plain, s0, s1, dy, d, mu, r, gamma)
        return dx, g, dgamma, dbeta, None, None, *map(dparameters.get, parameters)


def pool(x, gamma, beta, eps):
    """y, d, mu, the variance, and r."""
    x = _wide(x)
    pivot = x[:1].mean((2, 3))  # near the mean, so that the squares are of small numbers
    shifted = x - _over(pivot)
    mean, square = shifted.mean((2, 3)), (shifted * shifted).mean((2, 3))
    mu = mean.mean(0)
    var = (square.mean(0) - mu * mu).clamp_min(0)
    d, r = mean - mu, torch.rsqrt(var + eps)
    return d * (gamma * r) + beta, d, mu + pivot[0], var, r


def attend(x, shortcut, logits, mu, r, gamma, beta):
    """out, with NaN where it goes in."""
    w = torch.sigmoid(logits)
    scaled = (_wide(x) - _over(mu)) * _over(w * (gamma * r)) + _over(w * beta)
    return torch.relu(scaled + shortcut).to(x.dtype)


def gate(grad, out, x, logits, mu, r, gamma, beta):
    """g, s0, s1 and the gradient of the logits."""
    g = torch.where(out <= 0, 0, grad)
    s0, s1 = _wide(g).sum((2, 3)), (_wide(g) * (_wide(x) - _over(mu))).sum((2, 3))
    w = torch.sigmoid(logits)
    return g, s0, s1, (s1 * (gamma * r) + s0 * beta) * w * (1 - w)


def input_grad(g, x, logits, s0, s1, dy, d, mu, r, gamma):
    """The gradients of x, gamma and beta."""
    n, _, height, width = x.shape
    w, scale, area = torch.sigmoid(logits), gamma * r, height * width
    dbeta, dgamma = (w * s0 + dy).sum(0), (w * s1 + dy * d).sum(0) * r
    slope = _over(scale * r * dgamma / (n * area))
    offset = _over(scale * (dy / area - dbeta / (n * area)))
    dx = _wide(g) * _over(w * scale) - (_wide(x) - _over(mu)) * slope + offset
    return dx.to(x.dtype), dgamma, dbeta


@cache
def _functions():
    functions = pool, attend, gate, input_grad
    return tuple(torch.compile(each, dynamic=True, fullgraph=True) for each in functions)


def _compile(device, dtype):
    """Compile what a network needs in training; why that does not work, None if it does."""
    # Sizes that differ, so that none of them are taken to be equal.
    x = torch.linspace(-1, 1, 2 * 3 * 4 * 5, device=device, dtype=dtype).view(2, 3, 4, 5)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    try:
        bn = nn.BatchNorm2d(3, device=device)
        out = bn_attention_add_relu(x, x.detach().clone(), bn, nn.Identity())
        out.backward(torch.ones_like(out))
    except RuntimeError as error:  # no C++ compiler, or a Python that torch.compile does not know
        return f"torch.compile: {str(error).strip().splitlines()[0]}"
    return None


def _always(y):
    """Logits of no attention: the sigmoid is 1."""
    return torch.full_like(y, 1e4, requires_grad=False)


def _blocks(model):
    return [module for module in model.modules() if hasattr(module, "trains_fused")]


def _is_pooled(attention):
    """Whether the logits depend on the pooled descriptor alone, and nobody has changed that."""
    if isinstance(attention, nn.Identity):
        return True
    return isinstance(attention, ChannelAttention) and all(
        getattr(type(attention), name) is getattr(ChannelAttention, name)
        and name not in vars(attention)
        for name in ("squeeze", "weights", "forward")
    )


def _is_hooked(module):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _layout(x):
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _over(values):
    """(..., C) -> (..., C, 1, 1)."""
    return values[..., None, None]


def _wide(x):
    """x in float32, or float64 as it is: what sums are taken in."""
    return x if x.dtype == torch.float64 else x.float()
