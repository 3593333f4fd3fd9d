"""Arms: short specs of an attention, such as "se(r=8)" or "eca(k=3-5-5-7)"; names of backbones
and data sets.

What takes a `Spec` takes its text as well, which is parsed once. Needs no torch.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from eca_lab.attention.architectures import ARCHITECTURES
from eca_lab.attention.kernel_size import GAMMA, B, check_kernel_size, check_mapping
from eca_lab.checks import check_choice, check_integer, shown

if TYPE_CHECKING:  # what has no table needs no pandas
    from pandas import Series

Number = TypeVar("Number", int, float)

PADDINGS = ("zeros", "circular")
ORDERS = ("identity", "shuffled")

# name -> for each argument of the spec string, what the module calls it. An attention without
# parameters has no "decay": it has nothing that could decay.
_DECAY = {"decay": "decay"}
_KERNEL = {"k": "kernel_size", "gamma": "gamma", "b": "b", "padding": "padding", "order": "order"}
GRAMMAR: dict[str, dict[str, str]] = {
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

BACKBONES = ("tiny", *ARCHITECTURES)
# How a function is named that makes a network, anybody's: package.module:function.
_FUNCTION = re.compile(r"(?:[^\W\d]\w*\.)*[^\W\d]\w*:[^\W\d]\w*")
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
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    def __reduce__(self) -> tuple[type["Spec"], tuple[str, dict[str, Any]]]:
        return Spec, (self.name, dict(self.arguments))  # a proxy cannot be pickled

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        written = []
        for key, value in self.arguments.items():
            text = "-".join(map(str, value)) if isinstance(value, tuple) else value
            written.append(f"{key}={text}")
        return f"{self.name}({', '.join(written)})"

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def kernel_sizes(self) -> int | tuple[int, ...] | None:
        """k as it is given: None, an int, or a tuple of one int per stage.

        >>> parse_spec("eca(k=3-5-5-7)").kernel_sizes
        (3, 5, 5, 7)
        """
        return self.arguments.get("k")

    @property
    def fixed_kernel_size(self) -> int | None:
        """k of an arm that fixes one k for all layers and nothing else, as eca(k=3); else None.

        >>> parse_spec("eca(k=3)").fixed_kernel_size
        3
        """
        k = self.kernel_sizes
        return k if str(self) == f"eca(k={k})" and isinstance(k, int) else None

    @property
    def order(self) -> tuple[int, int, tuple[int, ...], tuple[str, ...]]:
        """Sort key: none, static, SE and its kin, then ECA, adaptive first, then by kernel size.

        >>> arms = ["eca(k=3)", "eca", "se(r=8)", "none"]
        >>> sorted(arms, key=lambda arm: parse_spec(arm).order)
        ['none', 'se(r=8)', 'eca', 'eca(k=3)']
        """
        sizes = self.arguments.get("k", 0)
        if not isinstance(sizes, tuple):
            sizes = (sizes,)
        rest = tuple(f"{key}={value}" for key, value in self.arguments.items() if key != "k")
        return NAMES.index(self.name), len(rest), sizes, rest

    @property
    def slug(self) -> str:
        """The spec as part of a file name, unlike that of any other spec.

        >>> parse_spec("eca(k=3-5-5-7)").slug
        'eca_k_3_5_5_7'
        >>> parse_spec("eca(b=-0.5)").slug
        'eca_b_m0p5'
        """
        parts = [self.name]
        for key, value in self.arguments.items():
            parts.append(key)
            for number in value if isinstance(value, tuple) else (value,):
                parts.append(_in_file_name(str(number)))
        return "_".join(parts)


def _in_file_name(value: str) -> str:
    for sign, word in {"-": "m", ".": "p", "+": ""}.items():
        value = value.replace(sign, word)
    return value


@cache  # among 10,000 trials there are few different specs
def parse_spec(text: str | Spec) -> Spec:
    """The `Spec` of a text such as "none", "se(r=8)", "eca", "eca(k=5)" or "eca(k=3-5-5-7)".

    A `Spec` is given back as it is. TypeError for what is neither; ValueError for an unknown name
    or argument, one that is given twice or missing, or a value that is not accepted.

    >>> spec = parse_spec("eca( padding=circular, k=5 )")
    >>> spec.name, dict(spec.arguments)
    ('eca', {'k': 5, 'padding': 'circular'})
    >>> str(spec)
    'eca(k=5, padding=circular)'
    >>> parse_spec("se(r=0)")
    Traceback (most recent call last):
        ...
    ValueError: attention 'se(r=0)': r=0: accepted is a positive integer
    """
    if isinstance(text, Spec):
        return text
    if not isinstance(text, str):
        raise TypeError(f"attention {shown(text)}: accepted is a spec string such as 'eca(k=3)'")
    try:
        return Spec(*_read(text))
    except ValueError as error:
        raise ValueError(f"attention {shown(text)}: {error}") from None


def is_function(backbone: str) -> bool:
    """Whether a backbone is a function that makes a network, package.module:function.

    >>> is_function("torchvision.models:resnet18"), is_function("resnet18")
    (True, False)
    """
    return _FUNCTION.fullmatch(backbone) is not None


def check_backbone(backbone: object) -> None:
    """Raise ValueError unless it is one of `BACKBONES`, or the name of a function."""
    if not isinstance(backbone, str) or not (backbone in BACKBONES or is_function(backbone)):
        accepted = f"accepted are {', '.join(BACKBONES)}, or package.module:function"
        raise ValueError(f"backbone={shown(backbone)}: {accepted}")


def arm_order(arms: "Series") -> "Series":
    """The `Spec.order` of a column of arms: the key by which a DataFrame is sorted."""
    return arms.map(lambda arm: parse_spec(arm).order)


def _read(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a spec string, the arguments in the order of the grammar."""
    # Blanks before the end would be tried in two places: quadratic in their number.
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", text.strip())
    if match is None or match[1] not in GRAMMAR:
        examples = "se(r=8), eca(k=5) or eca(k=3-5-5-7)"
        raise ValueError(f"accepted are {', '.join(NAMES)}, with arguments as in {examples}")
    name, inside = match.groups()
    known = GRAMMAR[name]
    values: dict[str, Any] = {}
    written = inside.split(",") if inside and inside.strip() else []
    for argument in written:
        key, equals, value = (part.strip() for part in argument.partition("="))
        if key not in known or not equals:
            accepted = ", ".join(f"{option}=..." for option in known) or "no arguments"
            raise ValueError(f"{shown(argument.strip())}: accepted are {accepted}")
        if key in values:
            raise ValueError(f"{key} is given twice")
        values[key] = _value(key, value)
    required = _REQUIRED.get(name, ())
    if required and len(values.keys() & required) != 1:
        raise ValueError(f"accepted is one of {' and '.join(f'{key}=...' for key in required)}")
    return name, {key: values[key] for key in known if key in values}


def _value(key: str, text: str) -> Any:
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
        gamma, b = (number, B) if key == "gamma" else (GAMMA, number)
        check_mapping(gamma, b)
        return int(number) if number.is_integer() else number
    if key in ("padding", "order"):
        check_choice(key, text, {"padding": PADDINGS, "order": ORDERS}[key])
        return text
    if key == "decay":
        if text != "0":
            accepted = "0, no weight decay for its parameters"
            raise ValueError(f"decay={shown(text)}: accepted is {accepted}")
        return 0
    count = _number(int, key, text, "a positive integer")
    check_integer(key, count)
    return count


def _number(kind: Callable[[str], Number], key: str, text: str, accepted: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{key}={shown(text)}: accepted is {accepted}") from None
