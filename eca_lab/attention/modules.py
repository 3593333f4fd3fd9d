"""Channel attention modules: Table 2 of the ECA paper from top to bottom, CBAM, and a control.

Papers: ECA and the SE-Var, SE-GC and ECA-NS ladder, Wang et al., CVPR 2020, arXiv:1910.03151;
SE, Hu et al., CVPR 2018, arXiv:1709.01507; CBAM, Woo et al., ECCV 2018, arXiv:1807.06521.

Shapes: N images, C channels; k kernel size, r reduction. Maps are (N, C, ...) with one or more
dimensions of positions, such as (N, C, L), (N, C, H, W) or (N, C, D, H, W). Every module has:

    squeeze(x):  (N, C, ...) -> (N, C)       one number per channel
    score(y):    (N, C) -> (N, C)            logits
    weights(x):  (N, C, ...) -> (N, C)       in (0, 1)
    forward(x):  (N, C, ...) -> (N, C, ...)  x * weights(x)

No module has a bias, as the parameter counts of the paper's Table 3 imply. Weights are drawn as
torch draws those of a layer with the same fan-in. TypeError, ValueError: an argument that is not
accepted, or does not fit the number of channels; maps of another shape.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eca_lab.attention.kernel_size import GAMMA, B, adaptive_kernel_size, check_kernel_size
from eca_lab.attention.spec import GRAMMAR, ORDERS, PADDINGS, Spec, parse_spec
from eca_lab.checks import check_choice, check_integer


class ChannelAttention(nn.Module):
    """Scale each channel by a weight in (0, 1) computed from the channels' means.

    Subclasses give `score`, and have an attribute for each of their arguments. All weights come out
    of `gate`, where `eca_lab.looking.probe` reads and changes them.

    decay is None, or 0 where training is to leave the parameters without weight decay, whatever
    its recipe: `eca_lab.training.train` obeys it, and nothing else knows of it.
    """

    decay: int | None = None
    __jit_unused_properties__ = ("spec",)  # TorchScript would compile it

    def __init__(self, channels: int) -> None:
        check_integer("channels", channels)
        super().__init__()
        self.channels = channels
        self.gate = nn.Sigmoid()

    @property
    def spec(self) -> str:
        """The spec string of the module as resolved: "eca(k=5)" for an adaptive ECA of C = 256.

        TypeError for a class from elsewhere, such as one's own ECA: what it computes has no name.
        """
        name = next((name for name, kind in _CLASSES.items() if type(self) is kind), None)
        if name is None:
            accepted = f"accepted are {', '.join(kind.__name__ for kind in _CLASSES.values())}"
            raise TypeError(f"{type(self).__name__} has no spec: {accepted}, and no subclass")
        grammar = GRAMMAR[name]
        values = {key: getattr(self, attribute, None) for key, attribute in grammar.items()}
        usual = (None, PADDINGS[0], ORDERS[0])  # goes without saying
        arguments = {key: value for key, value in values.items() if value not in usual}
        return str(Spec(name, arguments))

    def squeeze(self, x: Tensor) -> Tensor:
        return torch.mean(x, _positions(x, self.channels, planar=False))

    def score(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def weights(self, x: Tensor) -> Tensor:
        return self.gate(self.score(self.squeeze(x)))

    def forward(self, x: Tensor) -> Tensor:
        return _scale(x, self.weights(x))


class LinearAttention(ChannelAttention):
    """Attention whose logits are an affine map of the descriptor, score(y) = M y + score(0).

    M is zero for Static, diagonal for SEVar1 and SEVar2, block-diagonal for SEGroup, banded for
    ECANS and ECA (in the shuffled order if there is one), full for SEVar3. But for Static, score(0)
    is zero.
    """

    @torch.no_grad()
    def interaction_matrix(self) -> Tensor:
        """M, (C, C): row i holds what channel i's logit takes from each channel."""
        like = next(self.parameters(), torch.empty(0))
        units = torch.eye(self.channels, dtype=like.dtype, device=like.device)
        return (self.score(units) - self.score(torch.zeros_like(units))).T


class Static(LinearAttention):
    """sigmoid(w), one learned logit per channel that no input moves, C weights in all.

    Not of the paper: the control for all that looks at the image. w begins at 0, so that every
    weight begins at one half. It is called weight and not bias, of which weight decay is kept off.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.zeros(channels))

    def score(self, y: Tensor) -> Tensor:
        return self.weight.expand_as(y)


class ECA(LinearAttention):
    """Efficient channel attention: sigmoid(C1D_k(y)), k weights in all (Equations 9 and 12).

    kernel_size is k, odd and at most C, or None: psi(C) of Equation 12, with its gamma and b, 2 and
    1 if left out. padding is what the convolution sees beyond the first and the last channel:
    "zeros", as in the paper, or "circular", the other end. order is "identity", or "shuffled": a
    random order of the channels, drawn when the module is made, for the convolution alone.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | None = None,
        *,
        gamma: float | None = None,
        b: float | None = None,
        padding: Literal["zeros", "circular"] = "zeros",
        order: str = "identity",
    ) -> None:
        super().__init__(channels)
        check_choice("padding", padding, PADDINGS)
        check_choice("order", order, ORDERS)
        named = [name for name, value in (("gamma", gamma), ("b", b)) if value is not None]
        if kernel_size is None:
            kernel_size = adaptive_kernel_size(
                channels, gamma=GAMMA if gamma is None else gamma, b=B if b is None else b
            )
        elif named:
            both = f"kernel_size={kernel_size} with {', '.join(named)}"
            raise ValueError(f"{both}: accepted is one of the two")
        check_kernel_size(kernel_size, channels)
        self.kernel_size = kernel_size
        self.padding = padding
        self.order = order
        self.conv = nn.Conv1d(
            1, 1, kernel_size, padding=kernel_size // 2, padding_mode=padding, bias=False
        )
        if order == "shuffled":
            permutation = torch.randperm(channels)
            self.register_buffer("permutation", permutation)
            self.register_buffer("inverse", permutation.argsort())

    def score(self, y: Tensor) -> Tensor:
        if not hasattr(self, "permutation"):  # asked so that TorchScript can leave the rest out
            return _convolve(y, self.conv.weight, self.padding)
        return _convolve(y[:, self.permutation], self.conv.weight, self.padding)[:, self.inverse]


class ECANS(LinearAttention):
    """ECA-NS: a band of k weights per channel, not shared between them, k C in all (Table 2)."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels)
        check_kernel_size(kernel_size, channels)
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(channels, kernel_size))
        nn.init.uniform_(self.weight, -(kernel_size**-0.5), kernel_size**-0.5)

    def score(self, y: Tensor) -> Tensor:
        half = self.kernel_size // 2
        windows = F.pad(y, (half, half)).unfold(1, self.kernel_size, 1)  # (N, C, k)
        return (windows * self.weight).sum(2)


class SEVar1(LinearAttention):
    """SE-Var1: sigmoid(y), no weights (Table 2)."""

    def score(self, y: Tensor) -> Tensor:
        return y


class SEVar2(LinearAttention):
    """SE-Var2: sigmoid(w * y), one weight per channel, C in all (Table 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-1, 1))

    def score(self, y: Tensor) -> Tensor:
        return self.weight * y


class SEVar3(LinearAttention):
    """SE-Var3: sigmoid(W y) with a full W, C^2 weights (Table 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.fc = nn.Linear(channels, channels, bias=False)

    def score(self, y: Tensor) -> Tensor:
        return self.fc(y)


class SEGroup(LinearAttention):
    """SE-GC: sigmoid(GC_g(y)), a block-diagonal W of g blocks, C^2 / g weights (Table 2).

    g is 16 in SE-GC1, C/16 and C/8 in SE-GC2 and SE-GC3, whose specs give group_size=16 and 8.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels)
        _check_divides("groups", groups, channels)
        self.groups = groups
        self.conv = nn.Conv1d(channels, channels, 1, groups=groups, bias=False)

    def score(self, y: Tensor) -> Tensor:
        return self.conv(y.unsqueeze(2)).squeeze(2)


class SE(ChannelAttention):
    """Squeeze-and-Excitation: sigmoid(W2 ReLU(W1 y)), C // r hidden units, 2 C^2 / r weights."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(channels)
        check_integer("reduction", reduction, most=channels)
        self.reduction = reduction
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)

    def score(self, y: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(y)))


class CBAM(SE):
    """CBAM: SE's perceptron on the mean and on the maximum, then a spatial map (7x7 convolution).

    It takes maps (N, C, H, W) alone. `squeeze` gives the mean; `weights` adds the logits of mean
    and maximum. Without the BatchNorm that CBAM's authors put behind the spatial convolution, as
    the ECA paper's Table 3 implies.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(channels, reduction)
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def squeeze(self, x: Tensor) -> Tensor:
        return torch.mean(x, _positions(x, self.channels, planar=True))

    def weights(self, x: Tensor) -> Tensor:
        return self.gate(self.score(self.squeeze(x)) + self.score(x.amax((2, 3))))

    def _spatial_weights(self, x: Tensor) -> Tensor:
        """Weights of the positions in (0, 1), (N, C, H, W) -> (N, 1, H, W)."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(summary))

    def forward(self, x: Tensor) -> Tensor:
        x = _scale(x, self.weights(x))
        return x * self._spatial_weights(x).to(x.dtype)


_CLASSES = {
    "static": Static,
    "se": SE,
    "cbam": CBAM,
    "se_var1": SEVar1,
    "se_var2": SEVar2,
    "se_var3": SEVar3,
    "se_gc": SEGroup,
    "eca_ns": ECANS,
    "eca": ECA,
}


def make_attention(spec: str | Spec, channels: int, *, stage: int | None = None) -> nn.Module:
    """The attention module that a spec names for so many channels, ``nn.Identity()`` for "none".

    Args:
        spec: of the arm.
        channels: C of the feature maps that it will get.
        stage: index of the stage, needed where the spec gives a kernel size per stage.

    Raises:
        TypeError, ValueError: what is no spec, or does not fit the channels or the stage.
    """
    spec = parse_spec(spec)
    check_integer("channels", channels)
    if spec.name == "none":
        return nn.Identity()
    arguments = {GRAMMAR[spec.name][key]: value for key, value in spec.arguments.items()}
    sizes = spec.kernel_sizes
    try:
        if group_size := arguments.pop("group_size", None):
            _check_divides("group_size", group_size, channels)
            arguments["groups"] = channels // group_size
        if isinstance(sizes, tuple):
            if stage is None or not 0 <= stage < len(sizes):
                stages = f"stages 0 to {len(sizes) - 1}, not stage={stage}"
                raise ValueError(f"it gives a kernel size per stage: accepted are {stages}")
            arguments["kernel_size"] = sizes[stage]
        decay = arguments.pop("decay", None)
        module = _CLASSES[spec.name](channels, **arguments)
        module.decay = decay
        return module
    except ValueError as error:
        raise ValueError(f"attention {str(spec)!r}: {error}") from None


# torch.fx traces without shapes: what is wrapped it takes as one step, and checks when it runs.
@torch.fx.wrap
def _positions(x: Tensor, channels: int, *, planar: bool) -> list[int]:
    """The dimensions of maps that are positions, of (N, C, H, W) alone where planar.

    TypeError, ValueError: no such maps, or not of so many channels.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"maps of type {type(x).__name__}: accepted is a tensor")
    fits = x.dim() == 4 if planar else x.dim() > 2
    if not fits or x.shape[1] != channels:
        positions = "H, W" if planar else "L, ..."
        raise ValueError(f"maps of shape {list(x.shape)}: accepted is (N, {channels}, {positions})")
    return list(range(2, x.dim()))


def _scale(x: Tensor, weights: Tensor) -> Tensor:
    """Maps times a weight for each channel, in the dtype of the maps: autocast may give another."""
    ones = [1] * (x.dim() - 2)
    return x * weights.to(x.dtype).unflatten(1, [-1] + ones)  # noqa: RUF005, TorchScript has no *


@torch.fx.wrap
def _convolve(y: Tensor, kernel: Tensor, padding: str) -> Tensor:
    """Convolution over the channels of y, (N, C), with a kernel of k weights, (1, 1, k)."""
    size, channels = kernel.shape[2], y.shape[1]
    mode = "circular" if padding == "circular" else "constant"
    padded = F.pad(y[:, None], (size // 2, size // 2), mode)
    if y.is_meta:  # torch's counter is to see the convolution that it is
        return F.conv1d(padded, kernel)[:, 0]
    # The same as a product, (1, k) @ (k, N C): on a CPU up to ten times as fast.
    padded = padded[:, 0]
    shifted = torch.stack([padded[:, i : i + channels] for i in range(size)])
    return (kernel.flatten(1) @ shifted.flatten(1)).view_as(y)


def _check_divides(name: str, value: int, channels: int) -> None:
    check_integer(name, value)
    if channels % value:
        raise ValueError(f"{name}={value}: accepted are divisors of channels={channels}")
