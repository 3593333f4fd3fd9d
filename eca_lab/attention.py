"""Channel attention modules: Table 2 of the ECA paper from top to bottom, and CBAM.

Papers: ECA and the SE-Var, SE-GC and ECA-NS ladder, Wang et al., CVPR 2020, arXiv:1910.03151;
SE, Hu et al., CVPR 2018, arXiv:1709.01507; CBAM, Woo et al., ECCV 2018, arXiv:1807.06521.

Shapes: N images, C channels, H x W positions; k kernel size, r reduction. Every module answers
the same four questions:

    squeeze(x):  (N, C, H, W) -> (N, C)        one number per channel
    score(y):    (N, C) -> (N, C)              logits
    weights(x):  (N, C, H, W) -> (N, C)        in (0, 1)
    forward(x):  (N, C, H, W) -> (N, C, H, W)  x * weights(x)

No module has a bias, which is what the parameter counts of the paper's Table 3 imply. Weights are
drawn as torch draws those of a layer with the same fan-in.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from eca_lab.kernel_size import (
    adaptive_kernel_size,
    check_channels,
    check_kernel_size,
    check_mapping,
    check_positive_integer,
)

PADDINGS = ("zeros", "circular")
ORDERS = ("identity", "shuffled")


class ChannelAttention(nn.Module):
    """Scale each channel by a weight in (0, 1) computed from the channels' means.

    Subclasses give `score` and `spec`, the spec string that names the module as it was resolved:
    for an adaptive ECA of 256 channels, "eca(k=5)".
    """

    def __init__(self, channels):
        check_channels(channels)
        super().__init__()
        self.channels = channels

    def squeeze(self, x):
        """Global average pooling, (N, C, H, W) -> (N, C)."""
        return x.mean((2, 3))

    def score(self, y):
        """Logits of the channel weights, (N, C) -> (N, C)."""
        raise NotImplementedError

    def weights(self, x):
        """Channel weights in (0, 1), (N, C, H, W) -> (N, C)."""
        return torch.sigmoid(self.score(self.squeeze(x)))

    def forward(self, x):
        # Under autocast the weights may have another dtype than x; the output keeps that of x.
        return x * self.weights(x).to(x.dtype)[:, :, None, None]


class LinearAttention(ChannelAttention):
    """Attention whose logits are a linear map of the descriptor, score(y) = M y."""

    @torch.no_grad()
    def interaction_matrix(self):
        """M of score(y) = M y, (C, C): row i holds what channel i's logit takes from each channel.

        Diagonal for SEVar1 and SEVar2, block-diagonal for SEGroup, banded for ECANS and ECA (in
        the shuffled order if there is one), full for SEVar3.
        """
        like = next(self.parameters(), torch.empty(0))
        return self.score(torch.eye(self.channels, dtype=like.dtype, device=like.device)).T


class ECA(LinearAttention):
    """Efficient channel attention: sigmoid(C1D_k(y)), k weights in all (Equations 9 and 12).

    Args:
        channels: C.
        kernel_size: k, odd and at most C. Left out, it is adaptive: psi(C) of Equation 12.
        gamma, b: of Equation 12, 2 and 1 if left out. Not together with a kernel size.
        padding: what the convolution sees beyond the first and the last channel: "zeros", as in
            the paper, or "circular", the other end of the channels.
        order: "identity", or "shuffled": convolve over a random but fixed order of the channels,
            drawn when the module is made, and put the logits back in place.

    Raises:
        TypeError, ValueError: as `adaptive_kernel_size`; k even, larger than C, or given together
            with gamma or b; an unknown padding or order.
    """

    def __init__(
        self, channels, kernel_size=None, gamma=None, b=None, padding="zeros", order="identity"
    ):
        super().__init__(channels)
        _check_choice("padding", padding, PADDINGS)
        _check_choice("order", order, ORDERS)
        if kernel_size is None:
            kernel_size = adaptive_kernel_size(
                channels, 2 if gamma is None else gamma, 1 if b is None else b
            )
        elif gamma is not None or b is not None:
            raise ValueError(
                f"kernel_size={kernel_size} with gamma={gamma}, b={b}: accepted is either a "
                "kernel size, or gamma and b to compute it from"
            )
        check_kernel_size(kernel_size, channels)
        self.padding, self.order = padding, order
        self.conv = nn.Conv1d(
            1, 1, kernel_size, padding=kernel_size // 2, padding_mode=padding, bias=False
        )
        if order == "shuffled":
            permutation = torch.randperm(channels)
            self.register_buffer("permutation", permutation)
            self.register_buffer("inverse", permutation.argsort())

    @property
    def kernel_size(self):
        return self.conv.kernel_size[0]

    @property
    def spec(self):
        arguments = [f"k={self.kernel_size}"]
        if self.padding != "zeros":
            arguments.append(f"padding={self.padding}")
        if self.order != "identity":
            arguments.append(f"order={self.order}")
        return f"eca({', '.join(arguments)})"

    def convolve(self, y):
        """The convolution over the channels alone, (N, 1, C) -> (N, 1, C)."""
        return self.conv(y)

    def score(self, y):
        if self.order == "shuffled":
            y = y[:, self.permutation]
        logits = self.convolve(y.unsqueeze(1)).squeeze(1)  # (N, C) -> (N, 1, C) -> (N, C)
        return logits[:, self.inverse] if self.order == "shuffled" else logits


class PaddedECA(ECA):
    """An ECA module with its kernel padded with zeros on both sides, which stay zero in training.

    Computes the same: modules of any k then have weights of one shape, and a network compiled with
    one k serves for all of them.

    Args:
        module: the ECA module to take the place of; its weights are copied.
        kernel_size: the padded size, odd, at least that of the module and at most its channels.

    Raises:
        TypeError, ValueError: a kernel size that is not accepted.
    """

    def __init__(self, module, kernel_size):
        super().__init__(module.channels, kernel_size, padding=module.padding)
        if kernel_size < module.kernel_size:
            raise ValueError(
                f"kernel_size={kernel_size}: accepted are at least the {module.kernel_size} of the "
                "module"
            )
        margin = (kernel_size - module.kernel_size) // 2
        with torch.no_grad():
            self.conv.weight.copy_(F.pad(module.conv.weight, (margin, margin)))
        self.register_buffer("mask", F.pad(torch.ones_like(module.conv.weight), (margin, margin)))
        if module.order == "shuffled":
            self.order = "shuffled"
            self.register_buffer("permutation", module.permutation)
            self.register_buffer("inverse", module.inverse)

    def convolve(self, y):
        # Masked, the padding gets no gradient; and weight decay leaves a zero as it is.
        half = self.kernel_size // 2
        mode = "circular" if self.padding == "circular" else "constant"
        return F.conv1d(F.pad(y, (half, half), mode), self.conv.weight * self.mask)


class ECANS(LinearAttention):
    """ECA-NS: a band of k weights per channel, not shared between channels, k C in all (Table 2).

    Raises:
        TypeError, ValueError: kernel_size not a positive odd integer of at most channels.
    """

    def __init__(self, channels, kernel_size):
        super().__init__(channels)
        check_kernel_size(kernel_size, channels)
        self.weight = nn.Parameter(torch.empty(channels, kernel_size))
        nn.init.uniform_(self.weight, -(kernel_size**-0.5), kernel_size**-0.5)

    @property
    def kernel_size(self):
        return self.weight.shape[1]

    @property
    def spec(self):
        return f"eca_ns(k={self.kernel_size})"

    def score(self, y):
        half = self.kernel_size // 2
        windows = F.pad(y, (half, half)).unfold(1, self.kernel_size, 1)  # (N, C, k)
        return (windows * self.weight).sum(2)


class SEVar1(LinearAttention):
    """SE-Var1: sigmoid(y), no weights (Table 2)."""

    spec = "se_var1"

    def score(self, y):
        return y


class SEVar2(LinearAttention):
    """SE-Var2: sigmoid(w * y), one weight per channel, C in all (Table 2)."""

    spec = "se_var2"

    def __init__(self, channels):
        super().__init__(channels)
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-1, 1))

    def score(self, y):
        return self.weight * y


class SEVar3(LinearAttention):
    """SE-Var3: sigmoid(W y) with a full W, C^2 weights (Table 2)."""

    spec = "se_var3"

    def __init__(self, channels):
        super().__init__(channels)
        self.fc = nn.Linear(channels, channels, bias=False)

    def score(self, y):
        return self.fc(y)


class SEGroup(LinearAttention):
    """SE-GC: sigmoid(GC_g(y)), a block-diagonal W of g blocks, C^2 / g weights (Table 2).

    The paper has g = 16 (SE-GC1), C/16 (SE-GC2) and C/8 (SE-GC3); a spec string gives the last two
    for any number of channels as "se_gc(group_size=16)" and "se_gc(group_size=8)".

    Raises:
        TypeError, ValueError: groups not a positive integer that divides channels.
    """

    def __init__(self, channels, groups):
        super().__init__(channels)
        check_positive_integer("groups", groups)
        if channels % groups:
            raise ValueError(f"groups={groups}: accepted are divisors of channels={channels}")
        self.conv = nn.Conv1d(channels, channels, 1, groups=groups, bias=False)

    @property
    def spec(self):
        return f"se_gc(groups={self.conv.groups})"

    def score(self, y):
        return self.conv(y.unsqueeze(2)).squeeze(2)


class SE(ChannelAttention):
    """Squeeze-and-Excitation: sigmoid(W2 ReLU(W1 y)) over C // r hidden units, 2 C^2 / r weights.

    Raises:
        TypeError, ValueError: reduction not a positive integer, or larger than channels, which
            would leave no hidden unit.
    """

    def __init__(self, channels, reduction=16):
        super().__init__(channels)
        check_positive_integer("reduction", reduction)
        if reduction > channels:
            raise ValueError(
                f"reduction={reduction}: leaves no hidden unit; accepted are at most "
                f"channels={channels}"
            )
        self.reduction = reduction
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)

    @property
    def spec(self):
        return f"se(r={self.reduction})"

    def score(self, y):
        return self.fc2(F.relu(self.fc1(y)))


class CBAM(SE):
    """CBAM: SE's perceptron on the mean and on the maximum, then a spatial map (7x7 convolution).

    `squeeze` gives the mean; `weights` adds the logits of mean and maximum before the sigmoid.
    98 weights more than SE. Without the BatchNorm that CBAM's authors put behind the spatial
    convolution, as the parameter count of the ECA paper's Table 3 implies.
    """

    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction)
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    @property
    def spec(self):
        return f"cbam(r={self.reduction})"

    def weights(self, x):
        return torch.sigmoid(self.score(self.squeeze(x)) + self.score(x.amax((2, 3))))

    def spatial_weights(self, x):
        """Weights of the positions in (0, 1), (N, C, H, W) -> (N, 1, H, W)."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(summary))

    def forward(self, x):
        x = super().forward(x)
        return x * self.spatial_weights(x).to(x.dtype)


@dataclass(frozen=True)
class Spec:
    """A parsed spec string; ``str`` gives it back in its canonical form.

    arguments maps the names of the grammar to int, float or str; a kernel size is an int, or a
    tuple of one int per stage.
    """

    name: str
    arguments: dict

    def __str__(self):
        if not self.arguments:
            return self.name
        written = {
            key: "-".join(map(str, value)) if isinstance(value, tuple) else value
            for key, value in self.arguments.items()
        }
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in written.items())})"


# name -> class and, for each argument of the spec string, the constructor's name for it.
_GRAMMAR = {
    "none": (nn.Identity, {}),
    "se": (SE, {"r": "reduction"}),
    "cbam": (CBAM, {"r": "reduction"}),
    "se_var1": (SEVar1, {}),
    "se_var2": (SEVar2, {}),
    "se_var3": (SEVar3, {}),
    "se_gc": (SEGroup, {"groups": "groups", "group_size": "group_size"}),
    "eca_ns": (ECANS, {"k": "kernel_size"}),
    "eca": (
        ECA,
        {"k": "kernel_size", "gamma": "gamma", "b": "b", "padding": "padding", "order": "order"},
    ),
}
# name -> arguments of which exactly one is to be given.
_REQUIRED = {"se_gc": ("groups", "group_size"), "eca_ns": ("k",)}
NAMES = tuple(_GRAMMAR)


def parse_spec(text):
    """Read a spec string such as "none", "se(r=8)", "eca", "eca(k=5)" or "eca(k=3-5-5-7)".

    Returns:
        Spec, its arguments in the order of the grammar.

    Raises:
        ValueError: an unknown name or argument, an argument twice or missing, or a value that is
            not accepted. The message says what is.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    if match is None or match[1] not in _GRAMMAR:
        raise ValueError(
            f"attention {text!r}: accepted are {', '.join(NAMES)}, with arguments as in "
            "se(r=8), eca(k=5) or eca(k=3-5-5-7)"
        )
    name = match[1]
    known = _GRAMMAR[name][1]
    given = {}
    for argument in match[2].split(",") if match[2] and match[2].strip() else []:
        key, equals, value = (part.strip() for part in argument.partition("="))
        if key not in known or not equals:
            accepted = ", ".join(f"{each}=..." for each in known) or "no arguments"
            raise ValueError(f"attention {text!r}: {argument.strip()!r}: accepted are {accepted}")
        if key in given:
            raise ValueError(f"attention {text!r}: {key} is given twice")
        try:
            given[key] = _parse_value(key, value)
        except ValueError as error:
            raise ValueError(f"attention {text!r}: {error}") from None
    required = _REQUIRED.get(name, ())
    if required and not given.keys() & required:
        missing = " or ".join(f"{key}=..." for key in required)
        raise ValueError(f"attention {text!r}: {missing} is missing")
    if len(given.keys() & required) > 1:
        raise ValueError(f"attention {text!r}: accepted is one of {' and '.join(required)}")
    return Spec(name, {key: given[key] for key in known if key in given})


def make_attention(spec, channels, stage=None):
    """Make the attention module that a spec string names, ``nn.Identity()`` for "none".

    Args:
        spec: a spec string, see `parse_spec`.
        channels: C of the feature map that it is to scale.
        stage: index of the stage, needed where the spec gives a kernel size per stage.

    Raises:
        ValueError: a spec that cannot be parsed, or that does not fit the number of channels.
    """
    parsed = parse_spec(spec)
    check_channels(channels)
    make, names = _GRAMMAR[parsed.name]
    if parsed.name == "none":
        return make()
    arguments = {names[key]: value for key, value in parsed.arguments.items()}
    group_size = arguments.pop("group_size", None)
    if group_size is not None:
        if channels % group_size:
            raise ValueError(
                f"attention {spec!r}: group_size={group_size}: accepted are divisors of "
                f"channels={channels}"
            )
        arguments["groups"] = channels // group_size
    kernel_size = arguments.get("kernel_size")
    if isinstance(kernel_size, tuple):
        if stage is None or not 0 <= stage < len(kernel_size):
            raise ValueError(
                f"attention {spec!r} gives {len(kernel_size)} kernel sizes, one per stage: "
                f"accepted are stages 0 to {len(kernel_size) - 1}, not stage={stage}"
            )
        arguments["kernel_size"] = kernel_size[stage]
    try:
        return make(channels, **arguments)
    except ValueError as error:
        raise ValueError(f"attention {spec!r}: {error}") from None


def _parse_value(key, value):
    if key == "k":
        sizes = tuple(_number(int, key, size, "an odd integer") for size in value.split("-"))
        for size in sizes:
            check_kernel_size(size)
        return sizes if len(sizes) > 1 else sizes[0]
    if key in ("r", "groups", "group_size"):
        number = _number(int, key, value, "a positive integer")
        check_positive_integer(key, number)
        return number
    if key in ("gamma", "b"):
        number = _number(float, key, value, "a number")
        check_mapping(**({"gamma": 2, "b": 1} | {key: number}))
        return int(number) if number.is_integer() else number
    _check_choice(key, value, {"padding": PADDINGS, "order": ORDERS}[key])
    return value


def _number(kind, key, text, accepted):
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{key}={text!r}: accepted is {accepted}") from None


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}={value!r}: accepted are {' and '.join(map(repr, choices))}")
