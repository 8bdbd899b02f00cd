"""The main job as a stranger does it: the shipped model, served, asked over plain gRPC."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnn import checkpoint, data, metrics, models
from jaxnn.data import Dataset

# Nothing of jaxnn and nothing of the client: gRPC, the generated stubs, the standard library.
STRANGER = """
import sys
import grpc
from service.pb import digits_pb2, digits_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = digits_pb2_grpc.DigitClassifierStub(channel)
    request = digits_pb2.ClassifyRequest(pixels=sys.stdin.buffer.read())
    print(*stub.Classify(request, timeout=30).labels)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """`jaxnn serve` with the shipped model on a free port; it must stop in good order."""
    words = [sys.executable, "-m", "jaxnn", "serve", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:"), line
        yield line.split()[-1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("embedded")


def offline_scores(images: np.ndarray) -> np.ndarray:
    file = checkpoint.load(checkpoint.SHIPPED)
    return metrics.scores(file.params, images, model=models.build(file.spec))


def test_a_thousand_held_out_digits_over_plain_grpc(address: str, digits: Dataset) -> None:
    images = digits.test_images[:1000]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, address],
        input=images.tobytes(),
        capture_output=True,
        check=True,
    )
    served = [int(word) for word in done.stdout.split()]
    assert served == offline_scores(images).argmax(axis=1).tolist()


def test_the_command_asks_a_server(address: str, digits: Dataset, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path, image in zip(paths, digits.test_images[:5], strict=True):
        Image.fromarray(image).save(path)
    words = ["classify", *map(str, paths), "--server", address, "--json", "-"]
    script = (
        "import sys; from jaxnn import cli; code = cli.main(sys.argv[1:]);"
        "assert 'jax' not in sys.modules, 'asking a server needs no JAX'; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=True)
    results = json.loads(done.stdout)["results"]
    expected = offline_scores(digits.test_images[:5])
    assert [result["label"] for result in results] == expected.argmax(axis=1).tolist()
    # Batches of other sizes sum in another order.
    found = np.array([result["scores"] for result in results])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_shipped_model_is_the_classic_network_and_reads_digits(digits: Dataset) -> None:
    file = checkpoint.load(checkpoint.SHIPPED)
    assert file.spec.sizes == (784, 16, 16, 10)
    assert {file.spec.activation, file.spec.output} == {"sigmoid"}
    assert sum(leaf.size for layer in file.params for leaf in layer) == 13_002
    assert file.training["command"].startswith("jaxnn train --data mnist")
    assert checkpoint.SHIPPED.stat().st_size < 250_000
    found = metrics.accuracy(offline_scores(digits.test_images), digits.test_labels)
    assert found > 0.95  # seen in training: damage would show, merit would not


@pytest.mark.mnist
def test_the_shipped_model_reads_unseen_digits_as_its_header_says(mnist: Path) -> None:
    file = checkpoint.load(checkpoint.SHIPPED)
    dataset = data.load(mnist)
    found = metrics.accuracy(offline_scores(dataset.test_images), dataset.test_labels)
    # On another processor a few scores may fall on the other side.
    assert found == pytest.approx(file.metrics["test_accuracy"], abs=5e-4)
