"""Gradient descent on functions of two variables: where a picture of the whole story fits a page.

All of it computes in float64: near a minimum the gradient has to shrink by many powers
of ten before descent may be said to have converged, and float32 would stop at its rounding
errors.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn.errors import ConfigError
from jaxnn.expressions import Function

MAX_STEPS = 100_000
FAR = 1e6  # a point this far out has run away
FLAT = 1e-6  # a gradient, and a step, this short: converged
TOO_LARGE = 8  # doublings of the learning rate that `too_large_a_step` tries


class Surface(NamedTuple):
    """A function worth descending, with what shows it well."""

    expression: str
    starts: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    learning_rate: float = 0.1
    steps: int = 200


SURFACES = {
    "bowl": Surface("0.5*x**2 + 2*y**2", ((-3.0, 1.2),)),
    "valleys": Surface("0.25*x**4 - x**2 + 0.3*x + 0.5*y**2", ((-0.2, 1.6), (0.6, 1.6))),
    "saddle": Surface("x**2 - y**2 + 0.25*y**4", ((2.0, 0.01), (2.0, 0.0))),
    "example": Surface("y*cos(x) + 0.6*x", ((1.0, 3.0),), steps=40),
    "rosenbrock": Surface("(1 - x)**2 + 100*(y - x**2)**2", ((-1.2, 1.0),), 0.001, 2000),
    "himmelblau": Surface(
        "(x**2 + y - 11)**2 + (x + y**2 - 7)**2", ((0.0, 0.5), (-1.0, 0.0)), 0.01
    ),
}


class Path(NamedTuple):
    """Where descent went: N moves, all numbers finite."""

    points: np.ndarray  # [N + 1, 2]: x and y, the start first
    values: np.ndarray  # [N + 1]: f there
    gradients: np.ndarray  # [N + 1, 2]: df/dx and df/dy there
    outcome: str  # "converged", "moving" or "diverged"
    note: str  # why, for a person

    @property
    def lengths(self) -> np.ndarray:
        """How long each of the N moves is, [N]."""
        return np.hypot(*np.diff(self.points, axis=0).T)

    @property
    def slopes(self) -> np.ndarray:
        """How long the gradient is at each point, [N + 1]."""
        return np.hypot(*self.gradients.T)


State = tuple[Array, Array]  # two running averages, [2] each


def _sgd(state: State, gradient: Array, step: Array) -> tuple[State, Array]:
    return state, gradient


def _momentum(state: State, gradient: Array, step: Array) -> tuple[State, Array]:
    velocity = 0.9 * state[0] + gradient
    return (velocity, state[1]), velocity


def _adam(state: State, gradient: Array, step: Array) -> tuple[State, Array]:
    mean = 0.9 * state[0] + 0.1 * gradient
    square = 0.999 * state[1] + 0.001 * gradient**2
    mean_now = mean / (1 - 0.9**step)
    square_now = square / (1 - 0.999**step)
    return (mean, square), mean_now / (jnp.sqrt(square_now) + 1e-8)


# (state, gradient [2], step counted from 1) -> (state, direction [2]); the point moves by minus
# the learning rate times the direction. Adam: Kingma and Ba, 2015, with its usual settings.
OPTIMIZERS = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}


@partial(jax.jit, static_argnames=("function", "optimizer", "steps"))
def _walk(
    function: Function, optimizer: str, steps: int, start: Array, learning_rate: Array
) -> tuple[Array, Array, Array]:
    """Points [steps + 1, 2], values [steps + 1] and gradients [steps + 1, 2], finite or not."""
    value_and_gradient = jax.value_and_grad(lambda point: function(point[0], point[1]))

    def move(carry: tuple[Array, State], step: Array) -> tuple[tuple[Array, State], tuple]:
        point, state = carry
        value, gradient = value_and_gradient(point)
        state, direction = OPTIMIZERS[optimizer](state, gradient, step)
        return (point - learning_rate * direction, state), (point, value, gradient)

    still = (jnp.zeros_like(start), jnp.zeros_like(start))
    counted = jnp.arange(1, steps + 2).astype(start.dtype)
    return jax.lax.scan(move, (start, still), counted)[1]


@partial(jax.jit, static_argnames="function")
def _hessian(function: Function, point: Array) -> Array:
    return jax.hessian(lambda point: function(point[0], point[1]))(point)


def descend(
    function: Function,
    start: tuple[float, float],
    *,
    learning_rate: float = 0.1,
    steps: int = 200,
    optimizer: str = "sgd",
) -> Path:
    """Walks downhill.

    Args:
      function: what to descend, made by `parse` or any JAX function of two scalars.
      start: x and y.
      learning_rate: positive; plain descent moves by this times the negative gradient.
      steps: how many moves at most, 1 to MAX_STEPS; fewer where it converges or diverges.
      optimizer: a name in OPTIMIZERS.

    Returns:
      The path, cut after the point where it converged or before it was no longer finite.

    Raises:
      ConfigError: a setting out of range, or a start where f or its gradient is not finite.
    """
    if optimizer not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer {optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
    if not 1 <= steps <= MAX_STEPS:
        raise ConfigError(f"steps is {steps}, expected 1 to {MAX_STEPS:,}")
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise ConfigError(f"learning rate is {learning_rate}, expected a positive number")
    if not all(abs(value) <= FAR for value in start):
        raise ConfigError(f"the start is {start}, expected x and y from -{FAR:g} to {FAR:g}")
    with jax.enable_x64(True):
        walked = _walk(
            function, optimizer, steps, jnp.array(start, float), jnp.array(learning_rate)
        )
        points, values, gradients = map(np.asarray, walked)
        near = np.all(np.abs(points) <= FAR, axis=1)
        usable = near & np.isfinite(values) & np.all(np.isfinite(gradients), axis=1)
        end = len(usable) if usable.all() else int(np.argmin(usable))
        if end == 0:
            raise ConfigError(
                f"the surface is not finite at the start ({start[0]:g}, {start[1]:g}): f is "
                f"{values[0]:g}, its gradient ({gradients[0, 0]:g}, {gradients[0, 1]:g}); "
                "start elsewhere"
            )
        slopes = np.hypot(*gradients[:end].T)
        with np.errstate(invalid="ignore"):  # of a move to infinity
            moves = np.hypot(*np.diff(points[: end + 1], axis=0).T)
        flat = (slopes[: len(moves)] <= FLAT) & (moves[: len(slopes)] <= FLAT)
        if flat.any():
            end = int(np.argmax(flat)) + 1
            kind = _flat_point(np.asarray(_hessian(function, jnp.array(points[end - 1]))))
            return Path(points[:end], values[:end], gradients[:end], "converged", kind)
    kept = (points[:end], values[:end], gradients[:end])
    last = min(end, len(usable) - 1)  # where it went too far, if it did
    falls = values[last] < values[0]  # not where it is not a number
    if end < len(usable) and near[end]:
        return Path(*kept, "diverged", "the next step leaves the surface: it is not finite there")
    if end < len(usable) and falls:
        return Path(*kept, "diverged", "f falls on and on: this way leads to no minimum")
    if end < len(usable) or (values[last] > values[0] and moves[-1] > moves[0]):
        return Path(*kept, "diverged", "the steps are too large: f is higher than at the start")
    return Path(*kept, "moving", f"the slope is still {slopes[-1]:.2g}")


def too_large_a_step(
    function: Function, start: tuple[float, float], *, learning_rate: float, steps: int
) -> tuple[float, Path]:
    """The first learning rate of r, 2 r, 4 r ... at which plain descent diverges, and its path.

    Where none of them does, the last one tried. Raises what `descend` raises.
    """
    for doublings in range(TOO_LARGE + 1):
        rate = learning_rate * 2**doublings
        path = descend(function, start, learning_rate=rate, steps=steps)
        if path.outcome == "diverged":
            break
    return rate, path


def heights(function: Function, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The surface on a grid, [len(y), len(x)]; NaN or infinity where it has no value."""
    with jax.enable_x64(True):
        grid = np.meshgrid(np.asarray(x, float), np.asarray(y, float))
        return np.asarray(jax.jit(jax.vmap(jax.vmap(function)))(*grid))


def _flat_point(hessian: np.ndarray) -> str:
    """What kind of point it is where the gradient is 0, from the curvatures [2, 2] there."""
    low, high = np.linalg.eigvalsh(hessian)
    if low > FLAT:
        return f"a minimum, where plain descent is stable below a learning rate of {2 / high:.3g}"
    if high < -FLAT:
        return "a maximum: nothing pushes away from exactly this point"
    if low < -FLAT and high > FLAT:
        return "a saddle, not a minimum: any push to the side would lead on down"
    return "a flat place"
