"""A batch spread over JAX's devices: each finds the gradient of its part, and they take the mean.

XLA shares single operations among the threads of a processor, and only large ones: of an LSTM's
scans and of much of a convolutional network it uses one core. JAX can look at a processor as
several devices instead. With JAX_NUM_CPU_DEVICES=2 and NPROC=1 in the environment, before JAX is
loaded, two cores take half of every batch each. docs/performance.md has what it gives.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

WHOLE, PART = PartitionSpec(), PartitionSpec("part")  # on each device: all of it, or its part
Gradient = Callable[[Any, Array, Array], tuple[Array, Any]]


def spread(cost_and_gradient: Gradient, count: int) -> Gradient:
    """(params, x [B, n_in], y [B, n_out]) -> (mean cost, mean gradient), of some devices together.

    Args:
      cost_and_gradient: of a batch, on one device.
      count: devices, or as many as there are; a batch that they cannot take equal parts of is
        computed whole by each.
    """

    def over_all(params: Any, x: Array, y: Array) -> tuple[Array, Any]:
        mesh = _mesh(count)
        if mesh.size == 1 or len(x) % mesh.size:
            return cost_and_gradient(params, x, y)
        return jax.shard_map(
            mean,
            mesh=mesh,
            in_specs=(WHOLE, PART, PART),
            out_specs=WHOLE,
            check_vma=False,  # the scans begin with zeros that are everywhere the same
        )(params, x, y)

    def mean(params: Any, x: Array, y: Array) -> tuple[Array, Any]:
        return jax.lax.pmean(cost_and_gradient(params, x, y), "part")

    return over_all if count > 1 else cost_and_gradient


def everywhere(tree: Any, count: int) -> Any:
    """A tree's arrays on all devices: as they come back from a program that spreads its batches.

    A program that is first given them on one device is compiled once more for the second call.
    """
    if count < 2 or _mesh(count).size == 1:
        return tree
    return jax.device_put(tree, NamedSharding(_mesh(count), WHOLE))


def _mesh(count: int) -> Mesh:
    return Mesh(np.array(jax.local_devices()[:count]), ("part",))
