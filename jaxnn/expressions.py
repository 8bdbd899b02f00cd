"""Expressions in x and y, as a person types them, made into functions.

Python's own grammar is read, but nothing of the text is ever run: only numbers, x, y and the
operations below have a meaning, and length, depth and powers are bounded.
"""

import ast
import warnings
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn.errors import ConfigError

Function = Callable[[Array, Array], Array]  # two scalars -> a scalar

MAX_LENGTH = 200  # characters
MAX_DEPTH = 100  # operations inside each other
MAX_NUMBER = 1e100
MAX_POWER = 64  # a whole exponent is multiplied out
CONSTANTS = {"pi": np.pi, "e": np.e}
_NAMES = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "sqrt")
FUNCTIONS = {name: getattr(jnp, name) for name in (*_NAMES, "abs")}
OPERATORS: dict[type, Callable[[Array, Array], Array]] = {
    ast.Add: jnp.add,
    ast.Sub: jnp.subtract,
    ast.Mult: jnp.multiply,
    ast.Div: jnp.divide,
    ast.Pow: jnp.power,
}
KNOWN = f"x, y, {', '.join(CONSTANTS)}, + - * / ** (power) and the functions {', '.join(FUNCTIONS)}"


def parse(text: str) -> Function:
    """The function of x and y that an expression names.

    Raises:
      ConfigError: too long, too deep, not an expression, or something that is not known.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"the expression has {len(text)} characters, at most {MAX_LENGTH} can be")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on style is for programs
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ConfigError(
            f"{text!r} is not an expression: write it like y*cos(x) + 0.6*x, each product with *"
        ) from None
    return _compile(tree.body, 0)


def _compile(node: ast.expr, depth: int) -> Function:
    inner = partial(_compile, depth=depth + 1)
    if depth > MAX_DEPTH:
        raise ConfigError(f"the expression is more than {MAX_DEPTH} operations deep: simplify it")
    match node:
        case ast.Name(id="x"):
            return lambda x, y: x
        case ast.Name(id="y"):
            return lambda x, y: y
        case ast.Name(id=name) if name in CONSTANTS:
            return _constant(CONSTANTS[name])
        case ast.Constant(value=int() | float() as value) if type(value) is not bool:
            if abs(value) > MAX_NUMBER:
                raise ConfigError(
                    f"the expression has a number above {MAX_NUMBER:g}: use a smaller"
                )
            return _constant(float(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            f = inner(operand)
            return lambda x, y: -f(x, y)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return inner(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right) if (
            power := _whole(right)
        ) is not None:
            if abs(power) > MAX_POWER:
                raise ConfigError(
                    f"the expression has the power {power}, at most {MAX_POWER} can be"
                )
            f = inner(left)
            return lambda x, y: f(x, y) ** power  # exact, and smooth at 0 and below
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            operator, f, g = OPERATORS[type(op)], inner(left), inner(right)
            return lambda x, y: operator(f(x, y), g(x, y))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            function, f = FUNCTIONS[name], inner(argument)
            return lambda x, y: function(f(x, y))
    found = ast.unparse(node)
    raise ConfigError(f"the expression has {found[:60]!r} in it, known are numbers, {KNOWN}")


def _constant(value: float) -> Function:
    return lambda x, y: jnp.full_like(x, value)


def _whole(node: ast.expr) -> int | None:
    """The whole number that an exponent is, such as 2 or -1; None for anything else."""
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))):
            return -value
    return None
