"""Trees of arrays by name: as a file holds them, and fitted to the tree that is expected."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnn.errors import CheckpointError


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by name, such as 0.weights; array leaves as NumPy arrays."""
    return {
        jax.tree_util.keystr(where, simple=True, separator="."): (
            leaf if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf, order="C")
        )
        for where, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def halved(tree: Any) -> Any:
    """The tree's arrays as float16: rounded to 11 significant bits, and infinite beyond 65,504."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float16), tree)


def widened(tree: Any) -> Any:
    """The tree with float32 where it has float16."""

    def wide(leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf

    return jax.tree.map(wide, tree)


def fit(tensors: dict[str, np.ndarray], like: Any, path: Path) -> Any:
    """The arrays as a tree like `like`, whose leaves need only a shape and a dtype.

    Where it has float32, they may be float16.

    Raises:
      CheckpointError: a name, shape or dtype differs; it names the file, `path`.
    """
    expected = flatten(like)
    if expected.keys() != tensors.keys():
        extra, missing = tensors.keys() - expected.keys(), expected.keys() - tensors.keys()
        raise CheckpointError(
            f"{path} does not hold the arrays of its network: {some(extra)} too much, "
            f"{some(missing)} missing"
        )
    wide = widened(tensors)
    for name, leaf in expected.items():
        found = wide[name]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise CheckpointError(
                f"{path}: {name} is {found.dtype} {found.shape}, expected {leaf.dtype} {leaf.shape}"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [wide[name] for name in expected])


def some(names: set[str]) -> str:
    """At most five of the names, for a message."""
    return ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "") or "none"
