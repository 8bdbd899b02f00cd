"""A model, compiled ahead for a few batch sizes: nothing compiles while requests wait.

Knows neither gRPC nor files. XLA compiles one program for each shape, so batches are cut and
padded to a few sizes, the buckets, whose programs are all made before the first request. Sequences
have buckets of lengths besides: a batch is computed as far as its longest row goes.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import bytes_product, compiled
from jaxnn.checkpoint import ModelFile
from jaxnn.errors import ConfigError, ShapeError
from service.inputs import kind_of

BUCKETS = (1, 8, 32, 128, 1024)
CONSTANT_TO = 1  # rows: a third of such a call goes to handing over the parameters, if they are not
# part of the program; but then each model has to be compiled, where others find theirs in the cache
# JAX computes here and now on memory that begins at a multiple of this. Any other is copied first,
# and where it is large in another thread, which takes longer than to copy it here.
ALIGNMENT = 64  # bytes
COPIED_FROM = 2**18  # bytes
QUICK = 2e-6  # seconds an image, at most, of a network as small as the one that ships
INTEGERS_FROM = 32  # rows: below, products of integers gain nothing
# Rows at once, at most, of networks larger than an mlp: what they compute with stays in the cache,
# and fewer are added to fill a bucket. Sequences, sorted by length, end earlier besides.
LARGER = 32
# Parts of a sequence's steps. A spoken digit of 40 steps has 18 on average, so half of it is not
# computed; each further length takes off little, and some seconds of compiling.
LENGTHS = (0.5, 0.75, 1.0)

Run = Callable[[np.ndarray], np.ndarray]


class Predictor:
    """The answers to batches of any size, through one executable a bucket.

    May be called from several threads at once: nothing changes after the start.

    Rows differ a little between buckets, since XLA may sum in another order, and large buckets may
    multiply integers: scores by 2e-5, confidence by 1e-4; labels do not, but where two scores are
    as close as that.
    """

    inputs: int
    classes: int
    compile_count: int
    weight: int  # how many images of the network that ships take as long as one of this, at least 1

    def __init__(self, file: ModelFile, buckets: tuple[int, ...] = BUCKETS) -> None:
        """Compile and warm one executable a bucket, or two: with rejection and without.

        For sequences, one for each length; of a file that knows what is familiar, for the whole
        rows only, as it looks at these.

        Takes some seconds; less from JAX's cache, which a model of the same shape fills.

        Args:
          file: the model.
          buckets: batch sizes to compile for, growing; above `compiled.CHUNK`, multiples of it are
            quickest.

        Raises:
          ConfigError: the buckets do not grow from 1 or more.
        """
        if not buckets or buckets[0] < 1 or any(b <= a for a, b in pairwise(buckets)):
            raise ConfigError(f"buckets are {buckets}: give growing sizes, each at least 1")
        self.inputs, self.classes = file.spec.sizes[0], file.spec.sizes[-1]
        self.compile_count = 0
        self._step = 0 if file.familiar is not None else kind_of(file.spec).step
        if file.spec.family != "mlp":
            buckets = tuple(b for b in buckets if b <= LARGER) or (min(buckets),)
        self._buckets = buckets
        kinds = (False,) if file.familiar is None else (False, True)
        self._executables = {
            rejection: {bucket: self._compiled(file, rejection, bucket) for bucket in buckets}
            for rejection in kinds
        }
        # A file that does not say what is familiar rejects nothing.
        self._executables.setdefault(True, self._executables[False])
        self.weight = self._weighed(buckets[-1])

    def _weighed(self, rows: int) -> int:
        """How slow an image is; the best of a few, since other programs may be busy meanwhile."""
        images, seconds = np.ones((rows, self.inputs), np.uint8), []  # of no step 0
        for _ in range(3):
            began = time.perf_counter()
            self(images, rejection=False)
            seconds.append(time.perf_counter() - began)
        # A call costs what it costs, whatever it holds: few rows say nothing of an image.
        return max(1, round(min(seconds) / rows / QUICK)) if rows >= INTEGERS_FROM else 1

    def _compiled(self, file: ModelFile, rejection: bool, bucket: int) -> Run:
        """A function: images uint8 [bucket, inputs] -> [bucket, classes + 3]."""
        if not self._step:
            return self._program(file, rejection, bucket, self.inputs)
        steps = self.inputs // self._step
        lengths = sorted({max(1, round(part * steps)) for part in LENGTHS})
        programs = {n: self._program(file, rejection, bucket, n * self._step) for n in lengths}

        def as_far_as_needed(rows: np.ndarray) -> np.ndarray:
            longest = max(1, lengths_of(rows, self._step).max())
            length = next(n for n in lengths if n >= longest)
            return programs[length](np.ascontiguousarray(rows[:, : length * self._step]))

        return as_far_as_needed

    def _program(self, file: ModelFile, rejection: bool, bucket: int, n_in: int) -> Run:
        """A function: images uint8 [bucket, n_in] -> [bucket, classes + 3], compiled."""
        integers = bucket >= INTEGERS_FROM and bytes_product.quick_integers()
        params, answers = compiled.program(file, rejection=rejection, integers=integers)
        params = jax.tree.map(jnp.asarray, params)
        images = jax.ShapeDtypeStruct((bucket, n_in), jnp.uint8)
        arguments: tuple[Any, ...] = (params,)
        if bucket <= CONSTANT_TO and not self._step:
            answers, arguments = partial(answers, params), ()
        executable = jax.jit(answers).lower(*arguments, images).compile()
        self.compile_count += 1

        def run(images: np.ndarray) -> np.ndarray:
            return np.asarray(executable(*arguments, images))

        run(np.zeros((bucket, n_in), np.uint8))  # the first time it allocates its buffers
        return run

    def __call__(self, images: np.ndarray, rejection: bool = True) -> np.ndarray:
        """The answers to images uint8 [N, inputs], for any N of 1 or more.

        The images go through in chunks of the largest bucket that they fill; what is left is
        padded where that fills half a bucket or more.

        Args:
          images: rows of bytes; nothing is copied where they fill buckets.
          rejection: False saves the time that it takes, and rejects nothing.

        Returns:
          float32 [N, classes + 3] to be read, not written: of every image the scores, the label,
          the confidence, and 1 where it is rejected; see `scores` and so on. It stays as it is
          when the predictor is called again.

        Raises:
          ShapeError: the images do not fit the network.
        """
        executables = self._executables[rejection]
        exact = executables.get(len(images))
        if exact and images.shape[1:] == (self.inputs,) and images.dtype == np.uint8:
            return exact(_aligned(images))
        fit = images.ndim == 2 and images.shape[1] == self.inputs and len(images) > 0
        if not fit or images.dtype != np.uint8:
            raise ShapeError(
                f"images are {images.dtype} {images.shape}, expected uint8 (N, {self.inputs}), "
                "N at least 1"
            )
        found = []
        start, total = 0, len(images)
        order = None
        if self._step and total > self._buckets[-1]:  # those of like length go together
            order = np.argsort(lengths_of(images, self._step))
            images = images[order]
        while start < total:
            bucket = self._bucket(total - start)
            chunk = images[start : start + bucket]
            rows = len(chunk)
            if rows < bucket:  # what comes of the other rows is never looked at
                padded = np.zeros((bucket, self.inputs), np.uint8)
                padded[:rows] = chunk
                chunk = padded
            # Cut in NumPy: JAX would compile a slice.
            found.append(executables[bucket](_aligned(chunk))[:rows])
            start += rows
        if len(found) == 1:
            return found[0]
        joined = np.concatenate(found)
        if order is None:
            return joined
        result = np.empty_like(joined)
        result[order] = joined
        return result

    def _bucket(self, rows: int) -> int:
        """The smallest that holds the rows, unless half of it were empty and a smaller one full."""
        fits = self._buckets[0]
        for bucket in self._buckets:
            if bucket >= rows:
                return bucket if 2 * rows >= bucket or rows < self._buckets[0] else fits
            fits = bucket
        return fits


def lengths_of(rows: np.ndarray, step: int) -> np.ndarray:
    """Int [N]: where the last step ends that is none of padding, 0 where there is none.

    Args:
      rows: uint8 [N, T * step]; a step whose first byte is 0 is padding.
      step: bytes of a step.
    """
    real = rows[:, ::step] > 0  # [N, T]
    return np.where(real.any(axis=1), real.shape[1] - real[:, ::-1].argmax(axis=1), 0)


def _aligned(images: np.ndarray) -> np.ndarray:
    """The images, copied if they are many and lie where JAX would have to copy them."""
    if images.nbytes < COPIED_FROM or images.ctypes.data % ALIGNMENT == 0:
        return images
    memory = np.empty(images.nbytes + ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % ALIGNMENT
    found = memory[skip : skip + images.nbytes].reshape(images.shape)
    found[:] = images
    return found


def scores(found: np.ndarray) -> np.ndarray:
    """float32 [N, C] of what a predictor gave: activations of the last layer, 0 to 1."""
    return found[:, :-3]


def labels(found: np.ndarray) -> np.ndarray:
    """int64 [N]: the class of the largest score, the lowest among equals."""
    return found[:, -3].astype(np.int64)


def confidence(found: np.ndarray) -> np.ndarray:
    """float32 [N]: the chance that the label is right, if it is a digit."""
    return found[:, -2]


def rejected(found: np.ndarray) -> np.ndarray:
    """Bool [N]: too unlike the digits of training for the answer to be trusted."""
    return found[:, -1] > 0
