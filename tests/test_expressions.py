"""Expressions mean what NumPy means by them, and nothing else has a meaning."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.errors import ConfigError
from jaxnn.expressions import FUNCTIONS, MAX_LENGTH, parse

X, Y = 0.37, -1.6
x, y = np.float64(X), np.float64(Y)

MEANING = {
    "y*cos(x) + 0.6*x": y * np.cos(x) + 0.6 * x,
    "x - y - 1": x - y - 1,
    "x/y/2": x / y / 2,
    "-x**2": -(x**2),
    "2**x**2": 2 ** (x**2),
    "y**3": y**3,
    "y**-2": y**-2,
    "x**0.5": x**0.5,
    "x**y": x**y,
    "+x*(y + 1e-3)": x * (y + 1e-3),
    "pi*e": np.pi * np.e,
    " x ": x,
    "7": 7.0,
    "0x10 + 1_000": 1016.0,
    "tan(x) + asin(x) + acos(x) + atan(y)": np.tan(x) + np.arcsin(x) + np.arccos(x) + np.arctan(y),
    "sinh(x) + cosh(y) + tanh(y)": np.sinh(x) + np.cosh(y) + np.tanh(y),
    "sin(exp(y)) + log(x)": np.sin(np.exp(y)) + np.log(x),
    "sqrt(x) * abs(y)": np.sqrt(x) * np.abs(y),
    "+".join(["x"] * 90): 90 * x,
}  # fmt: skip


@pytest.mark.parametrize("text", MEANING)
def test_an_expression_has_the_value_that_numpy_gives_it(text: str, x64: None) -> None:
    """Float64; the two libraries' functions may differ by a few roundings of 1e-16."""
    value = parse(text)(jax.numpy.array(X), jax.numpy.array(Y))
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, MEANING[text], rtol=1e-14)


def test_every_function_stands_in_a_test() -> None:
    assert all(any(f"{name}(" in text for text in MEANING) for name in FUNCTIONS)


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "__import__('os').system('true')": "__import__",
        "z + 1": "'z'",
        "foo(x)": "'foo(x)'",
        "sin": "'sin'",
        "sin(x, y)": "'sin(x, y)'",
        "sin(x=x)": "sin(x=x)",
        "sin(*x)": "'*x'",
        "x.real": "'x.real'",
        "lambda: x": "'lambda: x'",
        "[x][0]": "'[x][0]'",
        "x if y else 1": "if",
        "x < y": "x < y",
        "x and y": "and",
        "not x": "not",
        "~x": "~x",
        "x ^ 2": "** (power)",
        "x // y": "//",
        "x % y": "%",
        "x @ y": "@",
        "(x := 3)": "x := 3",
        "f'{x}'": "f'{x}'",
        "'text'": "'text'",
        "True": "True",
        "x**True": "True",
        "1j": "1j",
        "None": "None",
        "...": "...",
        "1e999": "number above",
        "9" * 150: "number above",
        "x**65": "power 65, at most 64",
        "x**-65": "power -65, at most 64",
        "x**999999999": "at most 64",
        "-" * 150 + "x": "deep",
        "2x": "not an expression",
        "x y": "not an expression",
        "": "not an expression",
        "x = 1": "not an expression",
        "import os": "not an expression",
        "(" * 99 + "x": "not an expression",
        "x\0": "not an expression",
        "x" * (MAX_LENGTH + 1): f"{MAX_LENGTH + 1} characters",
        "(" * 100_000 + ")" * 100_000: "characters",
    }.items(),
)
def test_anything_else_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_tower_of_powers_is_infinity_at_once(x64: None) -> None:
    """As whole numbers it would have 370 million digits."""
    assert parse("9**9**9")(jax.numpy.array(X), jax.numpy.array(Y)) == np.inf


signs = "xy0123456789.+-*/()[]{}:,='\"\\ \t_@!<>&|^~%#\0é"
words = st.sampled_from([*signs, "sin", "exp", "pi", "e", "**", "lambda", "if"])


@given(st.lists(words, max_size=60).map("".join))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_function_or_refused(text: str) -> None:
    try:
        assert callable(parse(text))
    except ConfigError as refused:
        assert str(refused)
