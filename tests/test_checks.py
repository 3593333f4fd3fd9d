import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eca_lab.checks import check_choice, check_integer, check_number, shown


@given(st.integers(), st.integers(-5, 5), st.integers(0, 9))
def test_integers_within_limits(value, least, width):
    most = least + width
    if least <= value <= most:
        check_integer("n", value, least=least, most=most)
    else:
        with pytest.raises(ValueError, match=f"accepted is an integer from {least} to {most}"):
            check_integer("n", value, least=least, most=most)


@pytest.mark.parametrize("value", [True, 2.0, "2", None, [2]])
def test_what_is_no_integer(value):
    with pytest.raises(TypeError, match="accepted is a positive integer"):
        check_integer("n", value)


def test_integers_of_numpy_are_integers():
    check_integer("n", np.int64(3))
    check_number("x", np.float32(0.5), least=0)


@given(st.floats() | st.integers())
def test_numbers_within_limits(value):
    if math.isnan(value) or not 0 < value <= 5:
        with pytest.raises(ValueError, match="accepted is a finite number to 5 above 0"):
            check_number("x", value, above=0, most=5)
    else:
        check_number("x", value, above=0, most=5)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400, -(10**400)])
def test_numbers_are_finite(value):
    with pytest.raises(ValueError, match="accepted is a finite number"):
        check_number("x", value)


@pytest.mark.parametrize("value", [False, "1", None, 1j])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="accepted is a finite number above 0 below 1"):
        check_number("x", value, above=0, below=1)


def test_choices():
    check_choice("x", "a", ("a", "b"))
    with pytest.raises(ValueError, match="x='c': accepted are a, b"):
        check_choice("x", "c", ("a", "b"))


def test_long_values_are_cut():
    for value in (10**400, 10**5000, "x" * 1000, list(range(1000)), {"a": "b" * 1000}):
        assert len(shown(value)) < 100
