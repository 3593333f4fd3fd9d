"""Arms: short specs of an attention, such as "se(r=8)" or "eca(k=3-5-5-7)"; names of backbones
and data sets.

What takes a `Spec` takes its text as well, which is parsed once. Needs no torch.
"""

import re
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from eca_lab.attention.kernel_size import GAMMA, B, check_kernel_size, check_mapping
from eca_lab.checks import check_choice, check_integer, shown

PADDINGS = ("zeros", "circular")
ORDERS = ("identity", "shuffled")

# name -> for each argument of the spec string, what the module calls it. An attention without
# parameters has no "decay": it has nothing that could decay.
_DECAY = {"decay": "decay"}
_KERNEL = {"k": "kernel_size", "gamma": "gamma", "b": "b", "padding": "padding", "order": "order"}
GRAMMAR = {
    "none": {},
    "static": {**_DECAY},
    "se": {"r": "reduction", **_DECAY},
    "cbam": {"r": "reduction", **_DECAY},
    "se_var1": {},
    "se_var2": {**_DECAY},
    "se_var3": {**_DECAY},
    "se_gc": {"groups": "groups", "group_size": "group_size", **_DECAY},
    "eca_ns": {"k": "kernel_size", **_DECAY},
    "eca": {**_KERNEL, **_DECAY},
}
NAMES = tuple(GRAMMAR)

# Blocks of torchvision's ResNets: their kind, and how many each stage has.
RESNETS = {
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
BACKBONES = ("tiny", *RESNETS, "mobilenet_v2")
# Data sets that have a name, and how many classes each has.
DATASETS = {"shapes": 10, "cifar10": 10, "cifar100": 100, "imagenette": 10}
# name -> arguments of which exactly one is to be given.
_REQUIRED = {"se_gc": ("groups", "group_size"), "eca_ns": ("k",)}


@dataclass(frozen=True)
class Spec:
    """A parsed spec; ``str`` gives its canonical text, the label of the arm wherever it is shown.

    arguments has the names of the grammar, in its order; k is an int, or a tuple of one per stage.
    It cannot be changed: `parse_spec` gives one object to all who ask.
    """

    name: str
    arguments: MappingProxyType

    def __post_init__(self):
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    def __reduce__(self):  # a proxy cannot be pickled
        return Spec, (self.name, dict(self.arguments))

    def __str__(self):
        if not self.arguments:
            return self.name
        sizes = self.kernel_sizes
        k = {"k": "-".join(map(str, sizes))} if isinstance(sizes, tuple) else {}
        written = (f"{key}={value}" for key, value in {**self.arguments, **k}.items())
        return f"{self.name}({', '.join(written)})"

    def __hash__(self):
        return hash(str(self))

    @property
    def kernel_sizes(self):
        """k as it is given: None, an int, or a tuple of one int per stage."""
        return self.arguments.get("k")

    @property
    def fixed_kernel_size(self):
        """k of an arm that fixes one k for all layers and nothing else, as eca(k=3); else None."""
        k = self.kernel_sizes
        return k if str(self) == f"eca(k={k})" and isinstance(k, int) else None

    @property
    def order(self):
        """Sort key: none, static, SE and its kin, then ECA, adaptive first, then by kernel size."""
        sizes = self.arguments.get("k", 0)
        sizes = sizes if isinstance(sizes, tuple) else (sizes,)
        rest = tuple(f"{key}={value}" for key, value in self.arguments.items() if key != "k")
        return NAMES.index(self.name), len(rest), sizes, rest

    @property
    def slug(self):
        """The spec as part of a file name, unlike that of any other spec: "eca_k_3_5_5_7"."""
        words = {"-": "m", ".": "p", "+": ""}  # of numbers: -0.5 is m0p5
        parts = [self.name]
        for key, value in self.arguments.items():
            values = value if isinstance(value, tuple) else (value,)
            parts += [key, *(re.sub(r"\W", lambda sign: words[sign[0]], str(v)) for v in values)]
        return "_".join(parts)


@cache  # among 10,000 trials there are few different specs
def parse_spec(text):
    """The `Spec` of a text such as "none", "se(r=8)", "eca", "eca(k=5)" or "eca(k=3-5-5-7)".

    A `Spec` is given back as it is. TypeError for what is neither; ValueError for an unknown name
    or argument, one that is given twice or missing, or a value that is not accepted.
    """
    if isinstance(text, Spec):
        return text
    if not isinstance(text, str):
        raise TypeError(f"attention {shown(text)}: accepted is a spec string such as 'eca(k=3)'")
    try:
        return Spec(*_read(text))
    except ValueError as error:
        raise ValueError(f"attention {shown(text)}: {error}") from None


def arm_order(arms):
    """The `Spec.order` of a column of arms: the key by which a DataFrame is sorted."""
    return arms.map(lambda arm: parse_spec(arm).order)


def _read(text):
    """Name and arguments of a spec string, the arguments in the order of the grammar."""
    # Blanks before the end would be tried in two places: quadratic in their number.
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", text.strip())
    if match is None or match[1] not in GRAMMAR:
        examples = "se(r=8), eca(k=5) or eca(k=3-5-5-7)"
        raise ValueError(f"accepted are {', '.join(NAMES)}, with arguments as in {examples}")
    name, known, given = match[1], GRAMMAR[match[1]], {}
    for argument in match[2].split(",") if match[2] and match[2].strip() else []:
        key, equals, value = (part.strip() for part in argument.partition("="))
        if key not in known or not equals:
            accepted = ", ".join(f"{each}=..." for each in known) or "no arguments"
            raise ValueError(f"{shown(argument.strip())}: accepted are {accepted}")
        if key in given:
            raise ValueError(f"{key} is given twice")
        given[key] = _value(key, value)
    required = _REQUIRED.get(name, ())
    if required and len(given.keys() & required) != 1:
        raise ValueError(f"accepted is one of {' and '.join(f'{key}=...' for key in required)}")
    return name, {key: given[key] for key in known if key in given}


def _value(key, text):
    if key == "k":
        accepted = "an odd integer, or one for each stage as in 3-5-5-7"
        parts = [part.strip() for part in text.split("-")]
        if not all(part.isascii() and part.isdecimal() for part in parts):
            raise ValueError(f"{key}={shown(text)}: accepted is {accepted}")
        sizes = tuple(_number(int, key, part, accepted) for part in parts)
        for size in sizes:
            check_kernel_size(size)
        return sizes if len(sizes) > 1 else sizes[0]
    if key in ("gamma", "b"):
        number = _number(float, key, text, "a number")
        check_mapping(**{"gamma": GAMMA, "b": B, key: number})
        return int(number) if number.is_integer() else number
    if key in ("padding", "order"):
        check_choice(key, text, {"padding": PADDINGS, "order": ORDERS}[key])
        return text
    if key == "decay":
        if text != "0":
            accepted = "0, no weight decay for its parameters"
            raise ValueError(f"decay={shown(text)}: accepted is {accepted}")
        return 0
    number = _number(int, key, text, "a positive integer")
    check_integer(key, number)
    return number


def _number(kind, key, text, accepted):
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{key}={shown(text)}: accepted is {accepted}") from None
