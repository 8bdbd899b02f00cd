"""Streaming: each epoch holds every image once, from bounded memory, and its thread always ends."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import folders
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import data
from jaxnn.data import idx, stream
from jaxnn.errors import ConfigError, DataError


def digits(count: int, width: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 1, width] whose first two bytes are their own number, and labels from it."""
    images = np.zeros((count, 1, width), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(count), 256)
    return images, (np.arange(count) % 10).astype(np.uint8)


def numbers(images: np.ndarray) -> np.ndarray:
    """Which images these are: int [n]."""
    return images[:, 0].astype(int) * 256 + images[:, 1]


def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> stream.Stream:
    (folder / "train-images-idx3-ubyte").write_bytes(idx.encode(images))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx.encode(labels))
    return stream.open_stream(folder)


def epoch(some: stream.Stream, batch=10, chunk=100, seed=0, number=0) -> list[stream.Chunk]:
    return list(stream.chunks(some, seed=seed, epoch=number, batch_size=batch, chunk_images=chunk))


def seen(chunks: list[stream.Chunk]) -> np.ndarray:
    """Which images an epoch trains on, in order."""
    return np.concatenate([numbers(images[order.ravel()]) for images, _, order in chunks])


def threads() -> list[str]:
    return [it.name for it in threading.enumerate() if it.name.startswith("jaxnn-stream")]


@pytest.fixture
def small(tmp_path) -> stream.Stream:
    return write(tmp_path, *digits(1_000))


@given(
    st.integers(1, 70), st.integers(1, 20), st.integers(0, 40), st.integers(1, 30), st.integers(0)
)
def test_every_image_once_in_chunks_of_one_shape(count, batch, more, block, seed):
    batch = min(batch, count)
    chunk = batch + more
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(stream, "BLOCK", block):
        some = write(Path(folder), *digits(count))
        chunks = epoch(some, batch, chunk, seed)
    found = seen(chunks)
    assert len(found) == count - count % batch
    assert len(set(found)) == len(found)
    assert set(found) <= set(range(count))
    steps = [len(order) for _, _, order in chunks]
    assert set(steps[:-1]) <= {chunk // batch}
    assert 1 <= steps[-1] <= chunk // batch
    for images, labels, order in chunks:
        assert (images.dtype, labels.dtype, order.dtype) == (np.uint8, np.uint8, np.int32)
        assert images.shape == (order.size, 2)
        assert np.array_equal(labels, numbers(images) % 10)
        assert order.shape[1] == batch
        assert np.array_equal(np.sort(order.ravel()), np.arange(order.size))
        # Blocks: n images lie in n // block whole ones at most, in two that a neighbour chunk
        # shares, and in the file's short one.
        steps_on = np.diff(numbers(images))
        assert np.all(steps_on > 0)  # as on the disk
        pieces = 1 + np.count_nonzero(steps_on > 1)
        assert pieces <= order.size // block + 3


def test_an_epoch_depends_on_seed_and_number_alone(small, monkeypatch):
    first, again = epoch(small), epoch(small)
    assert [a.tobytes() for c in first for a in c] == [a.tobytes() for c in again for a in c]
    for ahead in (0, 1, 20):  # as many as there are, and more
        monkeypatch.setattr(stream, "AHEAD", ahead)
        assert np.array_equal(seen(epoch(small)), seen(first))
    orders = [seen(epoch(small, seed=s, number=n)) for s in (0, 1) for n in (0, 1, 2)]
    for a in range(6):
        for b in range(a):
            # Two shuffles of 1,000 agree in one place on average, in 20 practically never.
            assert np.count_nonzero(orders[a] == orders[b]) < 20


def test_an_epoch_is_shuffled_within_chunks_and_between(small, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK", 20)
    chunks = epoch(small)
    for images, _, order in chunks:
        assert np.count_nonzero(order.ravel() == np.arange(100)) < 20
        assert np.ptp(numbers(images)) > 300  # five to six blocks of fifty
    orders = {order.tobytes() for _, _, order in chunks}
    assert len(orders) == len(chunks)


def test_what_an_epoch_leaves_out_differs(small):
    left = [set(range(1_000)) - set(seen(epoch(small, 70, 100, number=n))) for n in range(5)]
    assert {len(some) for some in left} == {1_000 % 70}
    assert len({frozenset(some) for some in left}) > 1


def test_a_validation_part_is_kept_out(small):
    found = seen(epoch(small._replace(examples=700)))
    assert np.array_equal(np.sort(found), np.arange(700))
    images, labels = stream.read(small, 700, 1_000)
    assert np.array_equal(numbers(images), np.arange(700, 1_000))
    assert np.array_equal(labels, np.arange(700, 1_000) % 10)


def test_numpy_files_give_what_idx_files_give(tmp_path, small):
    folder = tmp_path / "numpy"
    folder.mkdir()
    images, labels = digits(1_000)
    np.save(folder / "train-images.npy", images.reshape(1_000, 2))
    np.save(folder / "train-labels.npy", labels)
    pairs = zip(epoch(stream.open_stream(folder)), epoch(small), strict=True)
    assert all(np.array_equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


def test_checksum_is_that_of_the_arrays_in_memory(tmp_path):
    dataset = folders.make(train=3_000, test=7)  # more than a piece
    folder = folders.write(tmp_path, dataset)
    train, test = (stream.open_stream(folder, part) for part in ("train", "t10k"))
    assert stream.checksum(train, test) == data.checksum(dataset)


def test_reads_ahead_in_bounded_memory(tmp_path, monkeypatch):
    some = write(tmp_path, *digits(400, width=10_000))
    done = []
    take = stream.take
    monkeypatch.setattr(stream, "take", lambda *a: [take(*a), done.append(1)][0])
    chunk = 20 * 10_000  # bytes
    tracemalloc.start()
    with contextlib.closing(
        stream.chunks(some, seed=0, epoch=0, batch_size=10, chunk_images=20)
    ) as chunks:
        for number, it in enumerate(chunks, 1):
            ready = min(number + stream.AHEAD, 20)
            deadline = time.monotonic() + 20
            while len(done) < 2 * ready and time.monotonic() < deadline:
                time.sleep(0.001)
            assert len(done) == 2 * ready  # images and labels: so many chunks and no more
            assert it.images.nbytes == chunk
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 20
    # Half a chunk covers labels, orders, files' buffers and the interpreter's own.
    assert (stream.AHEAD + 1) * chunk < peak < (stream.AHEAD + 2.5) * chunk


def test_opening_does_not_read_the_images(tmp_path):
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(bytes.fromhex("00000803 00050000 0000001c 0000001c"))
    os.truncate(images, 16 + 5 * 2**16 * 784)  # 257 MB, a hole
    labels = np.zeros(5 * 2**16, np.uint8)
    labels[-1] = 7
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx.encode(labels))
    tracemalloc.start()
    some = stream.open_stream(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (some.examples, some.largest_label, some.images.width) == (327_680, 7, 784)
    assert peak < 4 * 2**20


def test_the_thread_starts_late_and_ends_with_the_epoch(small):
    chunks = stream.chunks(small, seed=0, epoch=0, batch_size=10, chunk_images=100)
    assert threads() == []
    next(chunks)
    assert threads() == ["jaxnn-stream_0"]
    assert len(list(chunks)) == 9
    assert threads() == []


def test_the_thread_ends_when_the_caller_stops(small):
    def start():
        chunks = stream.chunks(small, seed=0, epoch=0, batch_size=10, chunk_images=100)
        next(chunks)
        assert threads() == ["jaxnn-stream_0"]
        return chunks

    start().close()
    assert threads() == []
    chunks = start()
    del chunks
    assert threads() == []
    with pytest.raises(ZeroDivisionError), contextlib.closing(start()) as chunks:
        for _ in chunks:
            1 / 0  # noqa: B018
    assert threads() == []


def test_closing_calls_off_what_waits_and_waits_for_what_is_read(small, monkeypatch):
    entered, go = threading.Event(), threading.Event()
    taken = []
    take = stream.take

    def slow(*args):
        taken.append(args)
        if len(taken) > 2:  # after the images and labels of the first chunk
            entered.set()
            assert go.wait(20)
        return take(*args)

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            go.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(stream, "take", slow)
    monkeypatch.setattr(stream, "ThreadPoolExecutor", Pool)
    chunks = stream.chunks(small, seed=0, epoch=0, batch_size=10, chunk_images=100)
    next(chunks)
    assert entered.wait(20)
    chunks.close()
    assert (len(taken), threads()) == (4, [])  # two chunks; the third was called off


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_file_that_changes_between_epochs(small, tmp_path, name):
    os.truncate(tmp_path / name, 900)
    with pytest.raises(DataError, match=f"{name} has 900 bytes, but its header declares"):
        epoch(small)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read: No such file"):
        epoch(small)
    assert threads() == []


def test_a_file_that_is_cut_short_during_an_epoch(tmp_path):
    some = write(tmp_path, *digits(4_000, width=784))
    chunks = stream.chunks(some, seed=0, epoch=0, batch_size=10, chunk_images=100)
    next(chunks)
    os.truncate(tmp_path / "train-images-idx3-ubyte", 1_000)
    with pytest.raises(DataError, match="train-images-idx3-ubyte was cut short while it was read"):
        list(chunks)
    assert threads() == []


def test_a_process_ends_with_an_epoch_unfinished(small):
    code = (
        "import sys; from jaxnn.data import stream; some = stream.open_stream(sys.argv[1]); "
        "it = stream.chunks(some, seed=0, epoch=0, batch_size=10, chunk_images=20); "
        "print(len(next(it).images))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, small.images.path.parent],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(stream.__file__).parents[2])},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "20\n", "")


@pytest.mark.parametrize(
    ("batch", "chunk", "message"),
    [
        (0, 100, "batch_size is 0, expected 1 to 1000, the number of images"),
        (1_001, 2_000, "batch_size is 1001, expected 1 to 1000"),
        (10, 9, "chunk_images is 9, expected at least the batch_size, 10"),
    ],
)
def test_settings_that_cannot_be(small, batch, chunk, message):
    with pytest.raises(ConfigError, match=message):
        stream.chunks(small, seed=0, epoch=0, batch_size=batch, chunk_images=chunk)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (5, 4, "images-idx3-ubyte holds 5 images, but train-labels-idx1-ubyte holds 4 labels"),
        (5, 6, "holds 5 images, but train-labels-idx1-ubyte holds 6 labels: take both from the"),
        (0, 0, "images-idx3-ubyte holds 0 images of 2 pixels, expected at least 1 of each"),
    ],
)
def test_images_and_labels_that_do_not_fit(tmp_path, images, labels, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path, digits(images)[0], digits(labels)[1])


def test_images_without_pixels(tmp_path):
    with pytest.raises(DataError, match="holds 3 images of 0 pixels, expected at least 1 of each"):
        write(tmp_path, np.zeros((3, 28, 0), np.uint8), np.zeros(3, np.uint8))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_file_of_another_size_than_its_header_says(small, tmp_path, name):
    os.truncate(tmp_path / name, 900)
    with pytest.raises(DataError, match=f"{name} has 900 bytes, but its header declares"):
        stream.open_stream(tmp_path)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "nowhere lacks the images of the train set"),
        ("x" * 5_000, "xxx cannot be read: File name too long"),
        ("~nobody-of-that-name/digits", "names the home of a user who is not here"),
        ("a\0b", "lacks the images of the train set"),
    ],
)
def test_folders_that_cannot_be(folder, message):
    with pytest.raises(DataError, match=message):
        stream.open_stream(folder)
