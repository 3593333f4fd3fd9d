"""How channel weights depend on channel means: Jacobians and what they tell.

Of a descriptor y (one mean per channel) an attention module makes logits, and of these weights
s = sigmoid(logits). The Jacobian of ECA's logits is its band, whatever y; that of Static's is zero;
that of SE's is W2 D W1, where the diagonal D of zeros and ones says which of the C // r hidden
units y switches on. That of the weights is diag(s (1 - s)) times that of the logits: of the same
rank, with the same zeros.

Shapes: N descriptors, C channels. In a Jacobian, row i holds how channel i's weight (or logit)
changes with the mean of each channel j.
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from eca_lab.attention.modules import ChannelAttention

# Below this share of the largest singular value, or of the largest entry, a number counts as zero.
# The rounding of single precision leaves about 1e-7.
TOLERANCE = 1e-5


def logit_jacobian(module: ChannelAttention, y: Tensor) -> Tensor:
    """Jacobians of a module's y -> score(y), (N, C, C), at descriptors y (N, C), or ValueError."""
    return _jacobian(module.score, module, y)


def weight_jacobian(module: ChannelAttention, y: Tensor) -> Tensor:
    """The same of y -> sigmoid(score(y)); of CBAM, the part of the means alone, not the maxima."""
    return _jacobian(lambda means: torch.sigmoid(module.score(means)), module, y)


def rank(singular_values: Tensor) -> Tensor:
    """Numerical rank, (..., C) -> (...): how many exceed `TOLERANCE` times the first, the largest.

    ECA's band has full rank for almost all kernels, but its smallest singular value may fall
    exponentially with C.
    """
    return (singular_values > TOLERANCE * singular_values[..., :1]).sum(-1)


def effective_rank(singular_values: Tensor) -> Tensor:
    """exp of the entropy of the singular values as shares of their sum, (..., C) -> (...): 1 to C.

    NaN where all are zero. Roy and Vetterli, "The effective rank", EUSIPCO 2007, Equation 4.
    """
    shares = singular_values / singular_values.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp()


def diagonal_share(matrices: Tensor) -> Tensor:
    """Share of the diagonal in the sum of squares, (..., C, C) -> (...); NaN for zeros alone.

    The paper's "direct correspondence between channel and weight" as a number: 1 where every weight
    depends on its own channel alone, about 1/C where that is like any other.
    """
    squares = matrices.square()
    return squares.diagonal(dim1=-2, dim2=-1).sum(-1) / squares.sum((-2, -1))


def bandwidth(matrices: Tensor) -> Tensor:
    """Largest |i - j| of an entry that is not zero, (..., C, C) -> (...).

    It is k // 2 for ECA with zeros for padding, whose band shows in the order of the convolution:
    where that is shuffled, p = module.permutation, in matrices[..., p, :][..., p]. Zero is up to
    `TOLERANCE` times the largest entry.
    """
    size = matrices.abs()
    is_zero = size <= TOLERANCE * size.amax((-2, -1), keepdim=True)
    index = torch.arange(matrices.shape[-1], device=matrices.device)
    distance = (index[:, None] - index).abs().expand_as(matrices)
    return distance.masked_fill(is_zero, 0).amax((-2, -1))


def measure(matrices: Tensor) -> pd.DataFrame:
    """The measures above of N Jacobians, (N, C, C), as a DataFrame of N rows, and sensitivity.

    That is how much all weights move with one channel's mean, a column's norm, in the mean.
    """
    spectra = torch.linalg.svdvals(matrices)
    columns = {
        "rank": rank(spectra),
        "effective_rank": effective_rank(spectra),
        "diagonal_share": diagonal_share(matrices),
        "bandwidth": bandwidth(matrices),
        "sensitivity": torch.linalg.vector_norm(matrices, dim=-2).mean(-1),
    }
    return pd.DataFrame({name: values.cpu() for name, values in columns.items()})


@torch.enable_grad()
def _jacobian(function: Callable[[Tensor], Tensor], module: ChannelAttention, y: Tensor) -> Tensor:
    if y.dim() != 2 or y.shape[1] != module.channels:
        raise ValueError(f"y of shape {tuple(y.shape)}: accepted is (N, {module.channels})")
    matrices = []
    for descriptor in y:
        # A copy for each of the rows, of which row i is the gradient of output i.
        copies = descriptor.repeat(module.channels, 1).requires_grad_()
        # Zeros where the input moves nothing, as in Static.
        logits = function(copies).trace()
        matrices += torch.autograd.grad(logits, copies, materialize_grads=True)
    return torch.stack(matrices)
