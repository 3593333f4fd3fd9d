"""Checks of arguments, with one form of message: the name, the value, and what is accepted."""

import math
import reprlib
from numbers import Integral, Real

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def shown(value):
    """repr of a value for a message, cut where it is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"<a number of {value.bit_length()} bits>"


def check_integer(name, value, least=1, most=math.inf):
    """Raise TypeError unless value is an integer (a bool is none), ValueError outside limits."""
    if most < math.inf:
        accepted = f"an integer from {least} to {most}"
    else:
        accepted = "a positive integer" if least == 1 else f"an integer of at least {least}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={shown(value)}: accepted is {accepted}")
    if not least <= value <= most:
        raise ValueError(f"{name}={shown(value)}: accepted is {accepted}")


def check_number(name, value, least=-math.inf, most=math.inf, above=-math.inf, below=math.inf):
    """Raise TypeError unless value is a real number, ValueError if not finite or outside limits."""
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


def check_choice(name, value, choices):
    """Raise ValueError, naming the value, unless it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={shown(value)}: accepted are {', '.join(map(str, choices))}")
