"""Loading: the three sources, and every directory that must be refused with one sentence."""

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import NAMES, make, write

from jaxnn import data
from jaxnn.data import idx, sources
from jaxnn.data.download import FILES
from jaxnn.errors import DataError


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def dotted(name):
    return name.replace("-idx", ".idx")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("rename", [str, dotted, "{}.gz".format, lambda name: f"{dotted(name)}.gz"])
def test_directory_under_every_name(tmp_path, rename, pack):
    # Also gzipped without saying so, and the other way round: browsers leave such files.
    dataset = make()
    write(tmp_path, dataset, rename, pack)
    loaded = data.load(tmp_path)
    assert same(loaded, dataset)
    assert [array.dtype for array in loaded] == [np.uint8] * 4
    assert same(data.load(str(tmp_path)), dataset)


def test_gzip_of_several_members(tmp_path):
    def in_two(blob):
        return gzip.compress(blob[:100]) + gzip.compress(blob[100:])

    write(tmp_path, make(train=50, test=150), pack=in_two)
    assert same(data.load(tmp_path), make(train=50, test=150))


def test_default_is_embedded():
    assert same(data.load(), data.load("embedded"))
    assert len(data.load().train_labels) == 8_000


def test_environment_names_the_default(tmp_path, monkeypatch):
    write(tmp_path, make())
    monkeypatch.setenv("JAXNN_DATA", str(tmp_path))
    assert same(data.load(), make())
    assert len(data.load("embedded").train_labels) == 8_000  # said outright, it wins
    monkeypatch.setenv("JAXNN_DATA", "embedded")
    assert len(data.load().train_labels) == 8_000
    monkeypatch.setenv("JAXNN_DATA", "")
    assert len(data.load().train_labels) == 8_000
    monkeypatch.setenv("JAXNN_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match="gone is not a directory"):
        data.load()


def test_mnist_is_the_downloaded_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "cache_directory", lambda: tmp_path / "cache")
    with pytest.raises(DataError, match=r"cache is not a directory.*run `jaxnn data download`"):
        data.load("mnist")
    write(tmp_path / "cache", make(), "{}.gz".format, gzip.compress)
    assert same(data.load("mnist"), make())
    (tmp_path / "cache" / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(DataError, match=r"lacks the images of the t10k.*run `jaxnn data download`"):
        data.load("mnist")


def test_names_are_strings_and_paths_are_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mnist", make())
    assert same(data.load(Path("mnist")), make())


def test_checksum_is_sha256_of_names_shapes_and_bytes():
    dataset = make()
    text = b"".join(
        f"{name} {shape}\n".encode() + array.tobytes()
        for name, shape, array in zip(
            data.Dataset._fields, ("5 28 28", "5", "3 28 28", "3"), dataset, strict=True
        )
    )
    assert data.checksum(dataset) == hashlib.sha256(text).hexdigest()
    assert data.checksum(make(seed=1)) != data.checksum(dataset)
    # The same bytes cut elsewhere are other data.
    flat = dataset._replace(train_images=dataset.train_images.reshape(5, 784))
    assert data.checksum(flat) != data.checksum(dataset)
    turned = dataset._replace(train_images=np.asfortranarray(dataset.train_images))
    assert data.checksum(turned) == data.checksum(dataset)


@pytest.mark.parametrize(
    ("modules", "unneeded"),
    [
        ("jaxnn.data, jaxnn.data.download", ("jax", "PIL", "scipy")),
        ("jaxnn.data, jaxnn.data.preprocess", ("jax", "PIL")),
    ],
)
def test_loading_imports_no_jax(modules, unneeded):
    code = (
        f"import sys, {modules};"
        "jaxnn.data.load('embedded');"
        f"print([name for name in {unneeded} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.mnist
def test_the_whole_of_mnist(mnist):
    dataset = data.load(mnist)
    assert [array.shape for array in dataset] == [
        (60_000, 28, 28),
        (60_000,),
        (10_000, 28, 28),
        (10_000,),
    ]
    assert sources.NAMES[data.checksum(dataset)] == "MNIST, whole"
    for file, array in zip(FILES, dataset, strict=True):
        blob = idx.encode(array)
        assert (len(blob), hashlib.sha256(blob).hexdigest()) == (file.size, file.sha256), file.name
    with np.load(sources.EMBEDDED, allow_pickle=False) as embedded:
        assert np.array_equal(embedded["images"], dataset.train_images[:10_000])
        assert np.array_equal(embedded["labels"], dataset.train_labels[:10_000])
