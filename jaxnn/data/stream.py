"""Training images read from disk as they are needed: for sets that do not fit into memory.

    seen = stream.open_stream(folder)          # headers and labels are checked, nothing is kept
    with closing(stream.chunks(seen, seed=0, epoch=0, batch_size=100, chunk_images=8_000)) as some:
        for images, labels, order in some:     # images[order[0]] is the first mini-batch
            ...

An epoch goes through the file in blocks of neighbouring images, in random order, and every chunk
of them is shuffled in memory: the disk reads long pieces, and yet each epoch has its own batches.
A thread reads the next chunks while the caller computes.
"""

import hashlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnn.data.rows import Rows, Span, find, open_rows, pieces, take
from jaxnn.data.sources import Dataset
from jaxnn.errors import ConfigError, DataError

BLOCK = 256  # neighbouring images that are read together
AHEAD = 2  # chunks that are read before they are asked for


class Stream(NamedTuple):
    """Images and labels on disk. An epoch sees the first `examples`: `_replace` it by fewer."""

    images: Rows
    labels: Rows
    examples: int
    largest_label: int


class Chunk(NamedTuple):
    """A part of an epoch; its arrays are the caller's own, no later chunk is written to them."""

    images: np.ndarray  # uint8 [n, n_in]
    labels: np.ndarray  # uint8 [n]
    order: np.ndarray  # int32 [steps, B]: every index below n, once


def open_stream(folder: str | Path, part: str = "train") -> Stream:
    """Finds and checks the images and labels of a folder; reads the labels once, the images never.

    Args:
      folder: holds, for images and labels each, an IDX file under its usual name, such as
        train-images-idx3-ubyte, or NumPy's train-images.npy (uint8 [N, n_in] or [N, height,
        width]) and train-labels.npy (uint8 [N]). IDX goes before NumPy.
      part: "train", or "t10k" for the test images.

    Raises:
      DataError: files that are missing, gzipped, of another type, cut short, empty, or that do
        not fit each other.
    """
    try:
        folder = Path(folder).expanduser()
        images = find(folder, part, "images")
        labels = find(folder, part, "labels")
    except RuntimeError:  # of expanduser
        raise DataError(f"{folder} names the home of a user who is not here") from None
    except OSError as error:
        raise DataError(f"{str(folder)[:80]} cannot be read: {error.strerror}") from None
    if images.shape[0] != labels.shape[0]:
        raise DataError(
            f"{images.path} holds {images.shape[0]:,} images, but {labels.path.name} holds "
            f"{labels.shape[0]:,} labels: take both from the same set"
        )
    if 0 in images.shape:
        raise DataError(
            f"{images.path} holds {images.shape[0]} images of {images.width} pixels, "
            "expected at least 1 of each"
        )
    open_rows(images).close()  # checks the size
    return Stream(images, labels, images.shape[0], max(int(p.max()) for p in pieces(labels)))


def chunks(
    stream: Stream, *, seed: int, epoch: int, batch_size: int, chunk_images: int
) -> Generator[Chunk, None, None]:
    """One epoch: every image once, but for `examples % batch_size`, which differ by epoch.

    What comes depends on these arguments and the files only, so that going on from a saved epoch
    is exact. All chunks but the last have `chunk_images // batch_size` steps and as many images as
    these use; the last has the rest. At most `AHEAD + 2` chunks are in memory at once, the one
    that the caller lets go of among them.

    Close the iterator, as by `contextlib.closing`, to end its thread and close the files before
    the epoch is over; going to the end, an error, or dropping it does so too.

    Args:
      stream: what `open_stream` gave. A chunk takes `chunk_images * stream.images.width` bytes:
        see that the width is what the network expects.
      seed: of the whole training, 0 or more.
      epoch: which shuffle, 0 or more.
      batch_size: images a step, 1 to `stream.examples`.
      chunk_images: the most images in a chunk, `batch_size` or more.

    Raises:
      ConfigError: `batch_size` or `chunk_images` out of its range.
      DataError: while iterating, where a file has gone, has changed its size or cannot be read.
    """
    if not 1 <= batch_size <= stream.examples:
        raise ConfigError(
            f"batch_size is {batch_size}, expected 1 to {stream.examples}, the number of images"
        )
    if chunk_images < batch_size:
        raise ConfigError(
            f"chunk_images is {chunk_images}, expected at least the batch_size, {batch_size}"
        )
    return _chunks(stream, (seed, epoch), batch_size, chunk_images // batch_size)


def read(stream: Stream, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [last - first, n_in] and labels uint8 [last - first], in the files' order.

    For what is to stay in memory, such as a validation part: 0 <= first < last.

    Raises:
      DataError: a file has gone, has changed its size or cannot be read.
    """
    with open_rows(stream.images) as images, open_rows(stream.labels) as labels:
        spans = [(first, last - first)]
        return take(images, stream.images, spans), take(labels, stream.labels, spans)[:, 0]


def checksum(train: Stream, test: Stream) -> str:
    """What `jaxnn.data.checksum` gives for the same arrays in memory; reads the files once.

    Raises:
      DataError: a file has gone, has changed its size or cannot be read.
    """
    digest = hashlib.sha256()
    files = (train.images, train.labels, test.images, test.labels)
    for name, rows in zip(Dataset._fields, files, strict=True):
        digest.update(f"{name} {' '.join(map(str, rows.shape))}\n".encode())
        for piece in pieces(rows):
            digest.update(piece.data)
    return digest.hexdigest()


def _chunks(
    stream: Stream, seed: tuple[int, int], batch_size: int, steps: int
) -> Generator[Chunk, None, None]:
    starts = np.random.default_rng(seed).permutation(-(-stream.examples // BLOCK)) * BLOCK
    sizes = np.minimum(BLOCK, stream.examples - starts)  # only the file's last block is shorter
    ends = np.cumsum(sizes)  # of the blocks, in the epoch's sequence of images
    begins = ends - sizes

    def spans(first: int, last: int) -> Iterator[Span]:
        """The rows of images first to last of the epoch's sequence; blocks may be cut in two."""
        for k in range(np.searchsorted(ends, first, "right"), np.searchsorted(begins, last)):
            low, high = max(first, begins[k]), min(last, ends[k])
            yield int(starts[k] + low - begins[k]), int(high - low)

    with open_rows(stream.images) as images, open_rows(stream.labels) as labels:

        def chunk(first: int, last: int) -> Chunk:
            here = sorted(spans(first, last))  # as they lie on the disk: they are shuffled below
            # Not (*seed, first): with a zero at its end, a seed gives the numbers of the blocks.
            rng = np.random.default_rng((*seed, first + 1))
            order = rng.permutation(last - first).astype(np.int32)
            return Chunk(
                take(images, stream.images, here),
                take(labels, stream.labels, here)[:, 0],
                order.reshape(-1, batch_size),
            )

        used = stream.examples // batch_size * batch_size
        thread = ThreadPoolExecutor(1, "jaxnn-stream")
        coming: deque[Future[Chunk]] = deque()
        try:
            for first in range(0, used, steps * batch_size):
                last = min(first + steps * batch_size, used)
                coming.append(thread.submit(chunk, first, last))
                if len(coming) > AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)  # before the files are closed
