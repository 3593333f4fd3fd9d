"""Checks of arguments, with one form of message: the name, the value, and what is accepted."""

import math
import reprlib
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60
_SHORT.maxother = 60
_SHORT.maxlong = 60


def shown(value: Any) -> str:
    """repr of a value for a message, cut where it is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"<a number of {value.bit_length()} bits>"


def check_integer(name: str, value: Any, *, least: int = 1, most: float = math.inf) -> None:
    """Raise unless value is an integer within limits.

    Args:
        name: of the argument, for the message.
        value: what was given for it.
        least: the smallest that is accepted.
        most: the largest that is accepted.

    Raises:
        TypeError: no integer. A bool is none.
        ValueError: outside the limits.
    """
    if most < math.inf:
        accepted = f"an integer from {least} to {most}"
    else:
        accepted = "a positive integer" if least == 1 else f"an integer of at least {least}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={shown(value)}: accepted is {accepted}")
    if not least <= value <= most:
        raise ValueError(f"{name}={shown(value)}: accepted is {accepted}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Raise unless value is a finite real number within limits.

    Args:
        name: of the argument, for the message.
        value: what was given for it.
        least: the smallest that is accepted.
        most: the largest that is accepted.
        above: what it must be larger than.
        below: what it must be smaller than.

    Raises:
        TypeError: no real number. A bool is none.
        ValueError: not finite, or outside the limits.
    """
    limits = [("from", least), ("to", most), ("above", above), ("below", below)]
    words = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
    accepted = " ".join(["a finite number", *words])
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={shown(value)}: accepted is {accepted}")
    try:
        number = float(value)
    except OverflowError:  # a large integer
        number = math.inf
    if not (math.isfinite(number) and least <= number <= most and above < number < below):
        raise ValueError(f"{name}={shown(value)}: accepted is {accepted}")


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise ValueError, naming the value, unless it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={shown(value)}: accepted are {', '.join(map(str, choices))}")
