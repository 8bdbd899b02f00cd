"""A model, compiled ahead for a few batch sizes: nothing compiles while requests wait.

Knows neither gRPC nor files. XLA compiles one program for each shape, so batches are cut and
padded to a few sizes, the buckets, whose programs are all made before the first request.
"""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Model

BUCKETS = (1, 8, 64, 512, 1024)


class Predictor:
    """Scores of batches of any size, through one executable a bucket.

    Rows differ by about 1e-7 between buckets, since XLA may sum in another order.
    """

    def __init__(self, model: Model, params: Any, buckets: tuple[int, ...] = BUCKETS) -> None:
        """Compile and warm one executable a bucket; takes about a second.

        Args:
          model: the network's pure functions; `forward` takes one example.
          params: its tree of arrays.
          buckets: batch sizes to compile for, growing.

        Raises:
          ConfigError: the buckets do not grow from 1 or more.
        """
        if not buckets or buckets[0] < 1 or any(b <= a for a, b in pairwise(buckets)):
            raise ConfigError(f"buckets are {buckets}: give growing sizes, each at least 1")
        self.inputs = model.spec.sizes[0]
        self.classes = model.spec.sizes[-1]
        self.compile_count = 0
        self._params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)

        def forward(params: Any, images: Array) -> Array:  # uint8 [B, inputs] -> [B, classes]
            x = images.astype(jnp.float32) / 255
            return jax.vmap(model.forward, in_axes=(None, 0))(params, x)

        self._executables = {bucket: self._compiled(forward, bucket) for bucket in buckets}
        for bucket in buckets:  # the first run of a program allocates its buffers
            self(np.zeros((bucket, self.inputs), np.uint8))

    def _compiled(self, forward: Any, bucket: int) -> Any:
        images = jax.ShapeDtypeStruct((bucket, self.inputs), jnp.uint8)
        executable = jax.jit(forward).lower(self._params, images).compile()
        self.compile_count += 1
        return executable

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scores float32 [N, classes] of images uint8 [N, inputs], for any N of 1 or more.

        The images go through in chunks of the largest bucket; only the last chunk is padded, to
        the smallest bucket that holds it.

        Raises:
          ShapeError: the images do not fit the network.
        """
        if images.ndim != 2 or images.shape[1] != self.inputs or images.dtype != np.uint8:
            raise ShapeError(
                f"images are {images.dtype} {images.shape}, expected uint8 (N, {self.inputs})"
            )
        largest = max(self._executables)
        scores = np.empty((len(images), self.classes), np.float32)
        for start in range(0, len(images), largest):
            chunk = images[start : start + largest]
            rows = len(chunk)
            bucket = min(bucket for bucket in self._executables if bucket >= rows)
            if rows < bucket:
                padded = np.zeros((bucket, self.inputs), np.uint8)
                padded[:rows] = chunk
                chunk = padded
            found = np.asarray(self._executables[bucket](self._params, chunk))  # [bucket, classes]
            scores[start : start + rows] = found[:rows]  # cut in NumPy: JAX would compile a slice
        return scores
