"""Where digits come from: the package itself, the user's cache directory, or a directory.

A directory holds MNIST's four IDX files under their usual names, gzipped or not. What a file
declares is checked before it is believed: nothing is decompressed beyond the declared size.
"""

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs

from jaxnn.data import idx
from jaxnn.errors import DataError

SIDE = 28  # pixels
MAX_EXAMPLES = 1_000_000  # in one file: 784 MB of pixels
EMBEDDED = Path(__file__).parent / "embedded" / "digits.npz"
# Printed by scripts/embed_digits.py, which checks the content.
EMBEDDED_SHA256 = "0c60e9cc58268284d33ca19d4492713726841c11d5a9ac1d199ef4e978640657"
# What `checksum` gives for the sets that everybody has; the tests hold it to them.
NAMES = {
    "5bdee674ac503cdf42fc4f5630e691eb589666bf3d9a0c2736e2f9b653178bf4": "MNIST, embedded part",
    "00415534e29c77dab10a64ba8324a990a3256f25e144eb40e0cb111fc355edbf": "MNIST, whole",
}


class Dataset(NamedTuple):
    """Digits to learn from and digits held out; 0 is background and 255 is ink."""

    train_images: np.ndarray  # uint8 [N, 28, 28]
    train_labels: np.ndarray  # uint8 [N], 0 to 9
    test_images: np.ndarray  # uint8 [M, 28, 28]
    test_labels: np.ndarray  # uint8 [M], 0 to 9


def load(source: str | Path | None = None) -> Dataset:
    """The digits of one source.

    Args:
      source: "embedded" for the package's own 10,000 digits; "mnist" for the whole of MNIST in
        the user's cache directory, where `jaxnn data download` puts it; anything else, or any
        `Path`, is a directory of the four IDX files. None means what the environment variable
        JAXNN_DATA says, or "embedded" where it is not set.

    Returns:
      Arrays that may be read-only.

    Raises:
      DataError: a source that is missing, incomplete, damaged, inconsistent or empty.
    """
    if source is None:
        source = os.environ.get("JAXNN_DATA") or "embedded"
    if source == "embedded":
        return _embedded()
    if source == "mnist":
        try:
            return _directory(cache_directory())
        except DataError as error:
            raise DataError(f"{error}; run `jaxnn data download` to fetch MNIST") from None
    try:
        return _directory(Path(source).expanduser())
    except RuntimeError:  # of expanduser
        raise DataError(f"{source} names the home of a user who is not here") from None


def checksum(dataset: Dataset) -> str:
    """SHA-256 of the four arrays' names, shapes and bytes, 64 hex digits: says what was trained on.

    Each array adds the line "name shape", such as "train_labels 8000", and then its bytes.
    """
    digest = hashlib.sha256()
    for name, array in dataset._asdict().items():
        digest.update(f"{name} {' '.join(map(str, array.shape))}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def cache_directory() -> Path:
    """Where the downloaded MNIST lies, for this user."""
    return Path(platformdirs.user_cache_dir("jaxnn")) / "mnist"


def held_out(labels: np.ndarray) -> np.ndarray:
    """Which examples are kept for testing: the last fifth of each digit, rounded to the nearest.

    Args:
      labels: uint8 [N].

    Returns:
      bool [N]. Of the 10,000 embedded digits, exactly 2,000.
    """
    mask = np.zeros(len(labels), bool)
    for digit in range(10):
        at = np.flatnonzero(labels == digit)
        mask[at[len(at) - (len(at) + 2) // 5 :]] = True
    return mask


def _embedded() -> Dataset:
    try:
        blob = EMBEDDED.read_bytes()
    except OSError as error:
        raise DataError(
            f"the embedded digits {EMBEDDED} cannot be read ({error.strerror}): install jaxnn again"
        ) from None
    found = hashlib.sha256(blob).hexdigest()
    if found != EMBEDDED_SHA256:
        raise DataError(
            f"the embedded digits {EMBEDDED} are damaged: their SHA-256 is {found[:12]}..., "
            f"expected {EMBEDDED_SHA256[:12]}...: install jaxnn again"
        )
    with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    test = held_out(labels)
    return Dataset(images[~test], labels[~test], images[test], labels[test])


def _directory(directory: Path) -> Dataset:
    try:
        there = directory.is_dir()
    except OSError as error:  # a name too long, or a folder that may not be searched
        raise DataError(f"{str(directory)[:80]} cannot be read: {error.strerror}") from None
    if not there:
        raise DataError(
            f"{directory} is not a directory: give one that holds the four IDX files of MNIST, "
            f'or "embedded", or "mnist"'
        )
    train = _pair(directory, "train")
    test = _pair(directory, "t10k")
    return Dataset(*train, *test)


def _pair(directory: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels uint8 [N] that fit each other."""
    labels_path = _find(directory, part, "labels", 1)
    images_path = _find(directory, part, "images", 3)
    labels = _read(labels_path, 1)
    images = _read(images_path, 3)
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{images_path} holds images of {images.shape[1]} x {images.shape[2]} pixels, "
            f"expected {SIDE} x {SIDE}"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images):,} images, but {labels_path.name} holds "
            f"{len(labels):,} labels: take both from the same set"
        )
    if len(labels) == 0:
        raise DataError(f"{images_path} holds 0 images, expected at least 1")
    if labels.max() > 9:
        raise DataError(f"{labels_path} holds a label {labels.max()}, expected digits from 0 to 9")
    return images, labels


def _find(directory: Path, part: str, kind: str, ndim: int) -> Path:
    names = [f"{part}-{kind}{mark}idx{ndim}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise DataError(
        f"{directory} lacks the {kind} of the {part} set: looked for {', '.join(names)}"
    )


def _read(path: Path, ndim: int) -> np.ndarray:
    """The array in an IDX file, gzipped or not; its size is checked before it is read."""
    what = str(path)
    try:
        with open_plain_or_gzip(path) as file:
            dims = idx.dimensions(file.read(idx.MAX_HEADER), what)
            if len(dims) != ndim:
                raise DataError(f"{what} has {len(dims)} dimensions, expected {ndim}")
            limit = MAX_EXAMPLES * (SIDE * SIDE if ndim == 3 else 1)
            if idx.file_size(dims) > limit + idx.MAX_HEADER:
                shape = " x ".join(map(str, dims))
                raise DataError(f"{what} declares {shape} bytes, expected at most {limit:,}")
            file.seek(0)
            return idx.decode(file.read(idx.file_size(dims) + 1), what)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{what} is not a whole gzip file ({error}): fetch it again") from None
    except OSError as error:
        raise DataError(f"{what} cannot be read ({error.strerror})") from None


def open_plain_or_gzip(path: Path) -> io.BufferedIOBase:
    """The file's content as a stream; its first bytes, not its name, say whether it is gzipped.

    Closing the stream closes the file. Reading may raise OSError, EOFError or zlib.error.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")
