"""How far apart two trees of arrays are."""

from typing import Any

import jax
import numpy as np


def relative_difference(found: Any, expected: Any, floor: float = 0.0) -> float:
    """The largest |found - expected| of any leaf, relative to the largest |expected| of that leaf.

    Leaves below `floor` are measured against it; a leaf of zeros counts as 1, so that exact zeros
    must be met to the same absolute size.
    """
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    worst = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        worst = max(worst, float(np.max(np.abs(a - b)) / (max(np.max(np.abs(b)), floor) or 1.0)))
    return worst


def same_bytes(a: Any, b: Any) -> bool:
    """Whether two trees hold the same numbers, bit for bit."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves
    )
