"""How far two gradients lie apart, and at which parameter they lie farthest apart. Host only."""

import re
from typing import Any, NamedTuple

import jax
import numpy as np


class Bound(NamedTuple):
    """On |explicit - reference| / max(floor, largest |reference| in the same array).

    The floor is there because a small slope is what is left where terms near 1 cancel
    (activations, targets): its rounding is theirs.
    """

    relative: float
    floor: float


class Difference(NamedTuple):
    """How far explicit backprop lies from a reference, and where it lies farthest."""

    mode: str  # "one" example, "each" of a batch under vmap, or the "batch"'s mean cost
    reference: str  # "jax.grad" or "finite differences"
    relative: float  # the largest relative difference; nan where a side is not finite
    bound: float
    leaf: str  # the array of parameters, as Python reaches it from params: "[1].weights"
    at: tuple[int, ...]  # in that array: row (the neuron) and, for weights, column
    example: int | None  # of the batch, where mode is "each"
    explicit: float
    expected: float

    @property
    def passed(self) -> bool:
        """Whether the bound holds; never so for nan."""
        return self.relative <= self.bound

    @property
    def excess(self) -> float:
        """The difference in units of its bound; infinite for nan."""
        return float(np.nan_to_num(self.relative / self.bound, nan=np.inf))

    @property
    def place(self) -> str:
        """The parameter, for people and for Python: layer, row and column are counted from 1."""
        python = f"params{self.leaf}{list(self.at)}"
        of_layer = re.fullmatch(r"\[(\d+)\]\.(\w+)", self.leaf)
        if of_layer is None or len(self.at) > 2:
            return python
        words = [f"{of_layer[2]} of layer {int(of_layer[1]) + 1}", f"row {self.at[0] + 1}"]
        words += [f"column {column + 1}" for column in self.at[1:]]
        return f"{', '.join(words)} ({python})"


def flat(tree: Any, mode: str) -> np.ndarray:
    """A gradient as float64 [P], or [B, P] for each example, in the order of its leaves."""
    leading = 1 if mode == "each" else 0
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:leading], -1) for leaf in leaves], axis=-1)


def scale(expected: np.ndarray, params: Any, floor: float) -> np.ndarray:
    """[P]: for each parameter the largest |expected| in its array, but at least `floor`."""
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    largest = np.abs(expected).reshape(-1, expected.shape[-1]).max(axis=0)
    of_leaf = np.maximum.reduceat(largest, np.cumsum([0, *sizes[:-1]]))
    return np.repeat(np.maximum(of_leaf, floor), sizes)


def difference(
    params: Any,
    mode: str,
    reference: str,
    explicit: np.ndarray,
    expected: np.ndarray,
    bound: Bound,
    known: np.ndarray | None = None,
) -> Difference:
    """The largest relative difference, and its place.

    Args:
      params: the tree that both are gradients of, for names and shapes.
      mode: "one", "each" or "batch".
      reference: what `expected` comes from.
      explicit: [P], or [B, P] for each example, from `flat`.
      expected: the same shape.
      bound: what is allowed.
      known: the same shape, where `expected` is known; everywhere where not given.
    """
    relative = np.abs(explicit - expected) / scale(expected, params, bound.floor)
    if known is not None:
        relative = np.where(known, relative, 0)
    worst = np.unravel_index(int(np.argmax(relative)), relative.shape)  # nan is the largest
    leaves = jax.tree.leaves_with_path(params)
    ends = np.cumsum([leaf.size for _, leaf in leaves])
    number = int(np.searchsorted(ends, worst[-1], side="right"))
    path, leaf = leaves[number]
    index = np.unravel_index(worst[-1] - ends[number] + leaf.size, leaf.shape)
    return Difference(
        mode,
        reference,
        float(relative[worst]),
        bound.relative,
        jax.tree_util.keystr(path),
        tuple(int(i) for i in index),
        int(worst[0]) if mode == "each" else None,
        float(explicit[worst]),
        float(expected[worst]),
    )
