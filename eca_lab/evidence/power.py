"""What so many runs can show: the power of t-tests, two-sided and at 5%."""

import functools
import itertools
import math

from scipy import special

from eca_lab.checks import check_number

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
POWER = 0.8
DIFFERENCES = (0.1, 0.2, 0.3)  # for which `compare` gives the runs needed, in the metric's unit


def noncentrality(freedom: float) -> float:
    """The true value, in standard errors, that a t-test of these degrees of freedom shows with 80%.

    >>> round(noncentrality(11), 2)
    3.08
    """
    critical = special.stdtrit(freedom, 1 - LEVEL / 2)
    return float(special.nctdtrinc(freedom, 1 - POWER, critical))


@functools.cache
def detectable_effect(n: int) -> float:
    """The true mean difference, in standard deviations, that n pairs show with 80% probability.

    Of a two-sided t-test at 5%. n is at least 2.

    >>> round(detectable_effect(12), 2)
    0.89
    """
    return noncentrality(n - 1) / math.sqrt(n)


def needed_pairs(effect: float) -> int:
    """How many pairs show a true mean difference of so many standard deviations, as above.

    A whole number, rounded up, at least 2.

    >>> needed_pairs(0.5)
    34
    """
    check_number("effect", effect, above=0)
    return next(n for n in _from_fewest(effect) if detectable_effect(n) <= effect)


def needed_runs(difference: float, sd: float, other_sd: float) -> int:
    """How many runs of each of two arms show a true difference by Welch's t-test, as above.

    The arms have these standard deviations, of which one may be 0. A whole number, rounded up, at
    least 2.

    >>> needed_runs(1, 1, 1)
    17
    """
    check_number("difference", difference, above=0)
    spread = math.hypot(sd, other_sd)
    freedom = welch_freedom(sd**2, other_sd**2)  # that of two runs each, and grows with n - 1
    return next(
        n
        for n in _from_fewest(difference / spread)
        if noncentrality((n - 1) * freedom) * spread / math.sqrt(n) <= difference
    )


def can_be_needed(effect: float) -> bool:
    """Whether it would take fewer than some 10^13 runs to show it, which is as far as it counts."""
    return effect > 1e-6


def welch_freedom(square: float, other: float, n: int = 2, other_n: int = 2) -> float:
    """The degrees of freedom of a sum of two squared standard errors (Satterthwaite 1946).

    Each is of a mean of so many runs.

    >>> welch_freedom(0.1, 0.1, 10, 10)
    18.0
    """
    return (square + other) ** 2 / (square**2 / (n - 1) + other**2 / (other_n - 1))


def _from_fewest(effect: float) -> itertools.count:
    """Whole numbers, from what would be needed if the standard deviation were known."""
    fewest = ((special.ndtri(1 - LEVEL / 2) + special.ndtri(POWER)) / effect) ** 2
    return itertools.count(max(2, int(fewest)))
