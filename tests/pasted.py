"""Channel attention as people paste it into their networks, each form written out in its own way.

`FORMS` maps a name to a function that makes a network of maps with it, the shape of its images and
the names of the sites in it. The network keeps the weights that it computes in its list `applied`.
`LEFT_OUT` maps a name likewise to what is like channel attention and is none, and to the reason.
"""

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = 12


class Keeping(nn.Module):
    """A network, or a module of one, that keeps what weights it applies, as (N, C)."""

    def __init__(self):
        super().__init__()
        self.applied = []

    def keep(self, weights):
        self.applied.append(weights.detach().float().flatten(1).clone())
        return weights


class AuthorsECA(Keeping):
    def __init__(self, k_size=3):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, k_size, padding=k_size // 2, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        y = self.avg_pool(x)
        y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * self.keep(self.sigmoid(y)).expand_as(x)


class SELayer(Keeping):
    def __init__(self, channels=CHANNELS):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels))

    def forward(self, x):
        n, c, *spatial = x.shape
        weights = torch.sigmoid(self.fc(x.flatten(2).mean(2)))
        return x * self.keep(weights).view(n, c, *[1] * len(spatial)).expand_as(x)


class Gate(Keeping):
    """As CBAM's channel part: it gives the weights, and the block multiplies."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), nn.ReLU(), nn.Conv2d(4, CHANNELS, 1))

    def forward(self, x):
        average = self.fc(F.adaptive_avg_pool2d(x, 1))
        return self.keep(torch.sigmoid(average + self.fc(F.adaptive_max_pool2d(x, 1))))


class CBAMBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.ca = Gate()
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        out = self.conv(x)
        out = self.ca(out) * out
        summary = torch.cat([out.mean(1, keepdim=True), out.amax(1, keepdim=True)], 1)
        return x + torch.sigmoid(self.spatial(summary)) * out


class Written(Keeping):
    """A block in whose forward the attention is written out, by a function of it and the map."""

    def __init__(self, forward, conv=nn.Conv2d):
        super().__init__()
        self.conv = conv(CHANNELS, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(CHANNELS, CHANNELS)
        self.written = forward

    def forward(self, x):
        return self.written(self, self.conv(x))


def gates(block, x):
    return block.fc(x.mean((2, 3)))[:, :, None, None]


def residual(block, x):
    return x + x * block.keep(gates(block, x).sigmoid())


def one_plus(block, x):
    return x * block.keep(1 + gates(block, x).tanh())


def in_place(block, x):
    return x.mul_(block.keep(gates(block, x).sigmoid()))


def hard_by_hand(block, x):
    return x * block.keep(F.relu6(gates(block, x) + 3) / 6)


def sigmoid_by_hand(block, x):
    return block.keep(1 / (1 + torch.exp(-gates(block, x)))) * x


def softmax(block, x):
    return x * block.keep(CHANNELS * gates(block, x).softmax(1))


def twice_written(block, x):
    x = x * block.keep(gates(block, x).sigmoid())
    return x * block.keep(gates(block, x).sigmoid())


def channel_and_space(block, x):
    channels = x * block.keep(gates(block, x).sigmoid())
    return channels + x * x.mean(1, keepdim=True).sigmoid()


def standardised(block, x):
    """With a swish by hand on the averages, where maps of one position are multiplied, too."""
    y = x.mean((2, 3), keepdim=True)
    y = y * y.sigmoid()
    return x * block.keep(block.fc(y.flatten(1)).sigmoid())[:, :, None, None]


def as_one_long_map(block, x):
    n, c, h, w = x.shape
    flat = x.view(n, c, h * w)
    return (flat * block.keep(block.fc(flat.mean(2)).sigmoid()).unsqueeze(2)).view(n, c, h, w)


def channels_last(block, x):
    x = x.permute(0, 2, 3, 1)
    weights = block.fc(x.mean((1, 2))).sigmoid()
    return (x * block.keep(weights)[:, None, None, :]).permute(0, 3, 1, 2)


def tokens(block, x):
    x = x.flatten(2).transpose(1, 2)  # (N, T, C)
    return x * block.keep(block.fc(x.mean(1)).sigmoid()).unsqueeze(1)


def polarized(block, x):
    attention = x.mean(1).flatten(1).softmax(1)  # over the positions
    pooled = torch.bmm(x.flatten(2), attention.unsqueeze(2)).squeeze(2)
    return x * block.keep(torch.sigmoid(block.fc(pooled)))[:, :, None, None]


def to_one_position(block, x):
    x = F.adaptive_avg_pool2d(x, 1)
    return block.keep(gates(block, x).sigmoid()) * x


IMAGES = (CHANNELS, 8, 8)
FORMS = {
    "the authors' eca_layer": (lambda: nn.Sequential(AuthorsECA()), IMAGES, ["0"]),
    "SELayer": (lambda: nn.Sequential(SELayer()), IMAGES, ["0"]),
    "in 1-D": (lambda: nn.Sequential(nn.Conv1d(CHANNELS, CHANNELS, 1), SELayer()), (12, 9), ["1"]),
    "in 3-D": (lambda: nn.Sequential(SELayer()), (CHANNELS, 3, 4, 5), ["0"]),
    "CBAM in a block": (lambda: nn.Sequential(CBAMBlock()), IMAGES, ["0"]),
    **{
        form.__name__: (lambda form=form: nn.Sequential(Written(form)), IMAGES, ["0"])
        for form in (
            residual,
            one_plus,
            in_place,
            hard_by_hand,
            sigmoid_by_hand,
            softmax,
            channel_and_space,
            standardised,
            as_one_long_map,
            channels_last,
            tokens,
            polarized,
            to_one_position,
        )
    },
    "twice_written": (lambda: nn.Sequential(Written(twice_written)), IMAGES, ["0", "0#1"]),
    "the whole network": (lambda: Written(residual), IMAGES, [""]),
}


# --- What is like it, and is none ---


def in_groups(block, x):
    n, c, h, w = x.shape
    x = x.reshape(4 * n, c // 4, h, w)  # as ShuffleAttention and SGE have it
    return (x * x.mean((2, 3), keepdim=True).sigmoid()).reshape(n, c, h, w)


def selective_kernel(block, x):
    both = torch.stack([x, x.relu()], 1)  # (N, 2, C, H, W)
    return (both * both.mean((3, 4), keepdim=True).softmax(1)).sum(1)


def coordinate(block, x):
    return x * x.mean(3, keepdim=True).sigmoid()  # a number for every row


def token_gate(block, x):
    x = x.flatten(2).transpose(1, 2)  # (N, 64, C)
    return x * x.mean(2, keepdim=True).sigmoid()


def spatial_in_one_row(block, x):
    x = x.flatten(2)[:, :, :CHANNELS]  # (N, C, 12): as many positions as channels
    return x * x.mean(1, keepdim=True).sigmoid()


def constant(block, x):
    return x * block.fc.bias.sigmoid().expand(len(x), CHANNELS).clone()[:, :, None, None]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.se = SELayer()

    def forward(self, x):
        return self.se(self.se(x))


class Additive(nn.Module):
    """A context that is added: named as attention is, and no product."""

    def forward(self, x):
        return x + x.mean((2, 3), keepdim=True)


class OnePixel(nn.Module):
    def forward(self, x):
        return x * (x - x.mean((2, 3), keepdim=True)).square().sigmoid()  # as SimAM: every pixel


class GlobalContextAttention(Additive):
    pass


LEFT_OUT = {
    "in_groups": (
        lambda: nn.Sequential(Written(in_groups)),
        "0",
        "its rows are 20, and the images 5",
    ),
    "selective_kernel": (
        lambda: nn.Sequential(Written(selective_kernel)),
        "0",
        r"its weights are \(N, 2, 12\): accepted is one number a channel, \(N, C\)",
    ),
    "coordinate": (lambda: nn.Sequential(Written(coordinate)), "0", r"\(N, 12, 8\)"),
    "token_gate": (
        lambda: nn.Sequential(Written(token_gate)),
        "0",
        "weights are of channels cannot",
    ),
    "spatial_in_one_row": (
        lambda: nn.Sequential(Written(spatial_in_one_row)),
        "0",
        "whether its 12 weights are of channels cannot be told",
    ),
    "constant": (lambda: nn.Sequential(Written(constant)), "0", "constants, which no image moves"),
    "twice": (lambda: nn.Sequential(Twice()), "0.se", "it runs more than once in a pass"),
    "additive": (
        lambda: nn.Sequential(GlobalContextAttention()),
        "0",
        "a GlobalContextAttention in which there is no such product",
    ),
    "one pixel": (
        lambda: nn.Sequential(nn.ModuleDict({"attn": OnePixel()})["attn"]),
        None,
        "no channel attention that could be found",
    ),
}


# --- Products that no one would take for attention ---


def rms_norm(block, x):
    x = x.flatten(2).transpose(1, 2)
    return x * torch.rsqrt(x.square().mean(2, keepdim=True) + 1e-6)


def rms_norm_by_a_power(block, x):
    x = x.flatten(2).transpose(1, 2)
    return x * (x.square().mean(2, keepdim=True) + 1e-6).pow(-0.5)


def instance_norm(block, x):
    scale = block.fc.bias[:, None, None] * torch.rsqrt(x.var((2, 3), keepdim=True) + 1e-5)
    return x * scale


def layer_scale(block, x):
    return x * block.fc.bias.view(1, CHANNELS, 1, 1)


def frozen_batch_norm(block, x):
    scale = block.fc.bias * (block.fc.weight[0].square() + 1e-5).rsqrt()
    return x * scale.reshape(1, -1, 1, 1)


def drop_path(block, x):
    keep = torch.ones(len(x), 1, 1, 1, dtype=x.dtype)
    return x * keep


def spatial(block, x):
    return x * x.mean(1, keepdim=True).sigmoid()


def swish(block, x):
    return x * x.sigmoid()


def swish_of_averages(block, x):
    y = x.mean((2, 3), keepdim=True)
    return x + y * y.sigmoid()


def spatial_in_one_column(block, x):
    x = x.flatten(2).unsqueeze(3)  # (N, C, 64, 1)
    return x * x.mean(1, keepdim=True).sigmoid()


NONE = (
    rms_norm,
    rms_norm_by_a_power,
    instance_norm,
    layer_scale,
    frozen_batch_norm,
    drop_path,
    spatial,
    swish,
    swish_of_averages,
    spatial_in_one_column,
)
