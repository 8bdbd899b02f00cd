"""The service over real connections: what it answers and what it refuses."""

import io
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import jax
import numpy as np
import pytest
from PIL import Image
from serving import (
    LIMIT_S,
    ROOT,
    first_pixel,
    pixels,
    serve_sync,
    server_process,
    stub_model,
)

from jaxnn import answers, checkpoint, data, mlp, models, novelty
from jaxnn.models import Spec
from service.pb import digits_pb2, digits_pb2_grpc
from service.repository import load_model

Request = digits_pb2.ClassifyRequest
SMALL = Spec(sizes=(784, 8, 10))
DIGIT = np.pad(np.full((20, 4), 255, np.uint8), ((4, 4), (12, 12)))  # a finished one


def encoded(*blobs: bytes) -> Request:
    return Request(encoded=digits_pb2.EncodedImages(images=blobs))


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    # Louder than usual and without biases, so that random images get many labels.
    layers = mlp.init(jax.random.key(3), SMALL.sizes)
    params = tuple(mlp.Layer(2 * layer.weights, 0 * layer.biases) for layer in layers)
    checkpoint.save(path, params, SMALL, metrics={"test_accuracy": 0.25})
    return path


# A stranger's program: gRPC, the generated stubs and the standard library.
STRANGER = """
import sys
import grpc
from service.pb import digits_pb2, digits_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = digits_pb2_grpc.DigitClassifierStub(channel)
    request = digits_pb2.ClassifyRequest(pixels=sys.stdin.buffer.read())
    print(*stub.Classify(request, timeout=30).labels)
"""


SERVE = """
import sys
from service.config import ServiceConfig
from service.server import serve
serve(ServiceConfig(port=0, model=sys.argv[1], proof=0))
"""


def test_a_strangers_program_gets_the_offline_labels(model_file: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (1000, 4, 4), np.uint8)
    images = coarse.repeat(7, axis=1).repeat(7, axis=2).reshape(1000, 784)
    file = checkpoint.load(model_file)
    forward = jax.vmap(models.build(file.spec).forward, in_axes=(None, 0))
    offline = np.argmax(forward(file.params, images.astype(np.float32) / 255), axis=1)
    with server_process(SERVE, str(model_file)) as (server, target):
        found = subprocess.run(
            [sys.executable, "-c", STRANGER, target],
            cwd=ROOT,
            input=images.tobytes(),
            capture_output=True,
            check=True,
            timeout=LIMIT_S,
        )
        server.send_signal(signal.SIGTERM)
        rest, errors = server.communicate(timeout=LIMIT_S)
    assert [int(label) for label in found.stdout.split()] == offline.tolist()
    assert len(set(offline.tolist())) >= 5
    assert (server.returncode, rest) == (0, "")
    assert [line.split()[2] for line in errors.splitlines()] == ["INFO", "INFO"]


def test_the_model_is_described(model_file: Path) -> None:
    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            model = stub.GetModel(digits_pb2.GetModelRequest(), timeout=LIMIT_S)
            answer = stub.Classify(pixels(1, 2, name="mine"), timeout=LIMIT_S)
        assert model == digits_pb2.GetModelResponse(
            name="digits",
            version=checkpoint.load(model_file).digest[:12],
            family="mlp",
            layer_sizes=(784, 8, 10),
            activation="sigmoid",
            output="sigmoid",
            cost="quadratic",
            parameter_count=784 * 8 + 8 + 8 * 10 + 10,
            input_shape=(28, 28),
            classes=10,
            max_images_per_request=77,
            max_message_bytes=100_000,
            metrics={"test_accuracy": 0.25},
            members=1,
            rejects=False,
            sha256=checkpoint.load(model_file).digest,
            inputs=("pixels", "encoded"),
        )
        assert (answer.model_name, answer.model_version) == (model.name, model.version)
        assert (answer.id, answer.classes, len(answer.scores)) == ("mine", 10, 20)

    model = load_model(model_file, "digits", buckets=(4,))
    serve_sync(model, scenario, max_images_per_request=77, max_message_bytes=100_000)


def test_an_ensemble_says_how_many_networks_it_is() -> None:
    model = stub_model(members=3)

    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            assert stub.GetModel(digits_pb2.GetModelRequest(), timeout=LIMIT_S).members == 3

    serve_sync(model, scenario)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("embedded")


@pytest.fixture(scope="module", params=["knows digits", "of old"])
def shipped_network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits: data.Dataset
) -> Path:
    """A file of the shipped network that says what digits look like, and one that does not."""
    file = checkpoint.load(checkpoint.SHIPPED)
    familiar = None
    if request.param == "knows digits":
        images, labels = digits.train_images[:300], digits.train_labels[:300]
        familiar = novelty.fit(images, labels, np.eye(10)[labels])
    path = tmp_path_factory.mktemp("model") / "shipped.safetensors"
    temperature = 0.7 * file.temperature  # a wrong one, which the answers must go by
    checkpoint.save(path, file.params, file.spec, temperature=temperature, familiar=familiar)
    return path


def test_noise_is_rejected_and_digits_are_not(shipped_network: Path, digits: data.Dataset) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 28, 28), np.uint8)
    scribble = np.full((60, 60), 255, np.uint8)
    scribble[rng.random((60, 60)) < 0.3] = 0
    images = np.concatenate([digits.test_images[:40], noise])
    file = checkpoint.load(shipped_network)
    offline = answers.answer(file, images)

    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            model = stub.GetModel(digits_pb2.GetModelRequest(), timeout=LIMIT_S)
            answer = stub.Classify(Request(pixels=images.tobytes()), timeout=LIMIT_S)
            pictures = encoded(*map(png, [*digits.test_images[:40], scribble]))
            drawn = stub.Classify(pictures, timeout=LIMIT_S)
        assert model.rejects == (file.familiar is not None)
        np.testing.assert_array_equal(answer.rejected, offline.rejected)
        # A batch of another size adds up in another order: scores differ by 1e-7.
        np.testing.assert_allclose(answer.confidences, offline.confidence, atol=1e-4)
        np.testing.assert_array_equal(answer.labels, offline.labels)
        for found in (answer, drawn):
            assert len(found.confidences) == len(found.rejected) == len(found.labels)
            # A limit of so few digits rejects 8 % of others, where 5 % are asked for.
            assert np.mean(found.rejected[:40]) <= 0.2
            assert all(found.rejected[40:]) == model.rejects == any(found.rejected)

    model = load_model(shipped_network, "digits", buckets=(64,))
    serve_sync(model, scenario)


BAD_REQUESTS = {
    "pixels is empty: send N x 784": Request(pixels=b""),
    "pixels has 785 bytes, which is no multiple of 784": Request(pixels=bytes(785)),
    "the request has 6 images, over this server's limit of 5": Request(pixels=bytes(6 * 784)),
    "the request has no input: set pixels or encoded": Request(id="x"),
    "encoded holds no image": encoded(),
    "encoded image 1 is not a whole PNG": encoded(png(DIGIT), b"no picture"),
    "encoded image 2: ": encoded(png(DIGIT), png(DIGIT), png(0 * DIGIT)),
    "encoded image 0 has 8000 x 8000 pixels": encoded(png(np.zeros((8000, 8000), np.uint8))),
    "the request has 7 images, over this server's limit of 5": encoded(*[b"a"] * 7),
}


def test_every_invalid_request_is_refused_with_its_sentence() -> None:
    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            for sentence, request in BAD_REQUESTS.items():
                with pytest.raises(grpc.RpcError) as refused:
                    stub.Classify(request, timeout=LIMIT_S)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert sentence in refused.value.details()
                assert list(stub.Classify(pixels(3, 4), timeout=LIMIT_S).labels) == [3, 4]

    serve_sync(stub_model(), scenario, max_images_per_request=5)


def test_bytes_that_are_no_message_are_refused_like_any_bad_request() -> None:
    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            for method in ("Classify", "GetModel"):
                raw = channel.unary_unary(f"/jaxnn.v1.DigitClassifier/{method}")
                with pytest.raises(grpc.RpcError) as refused:
                    raw(b"\xff\xff\xff", timeout=LIMIT_S)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert f"3 bytes are no jaxnn.v1.{method}Request" in refused.value.details()

    serve_sync(stub_model(), scenario)


def test_encoded_pictures_are_prepared_and_answered_in_order() -> None:
    digits = np.stack([DIGIT] * 3)
    digits[:, 14, 13] = [1, 2, 3]

    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            answer = stub.Classify(encoded(*map(png, digits)), timeout=LIMIT_S)
        assert list(answer.labels) == [1, 2, 3]

    serve_sync(
        stub_model(lambda images: first_pixel(images[:, 14 * 28 + 13 :])),
        scenario,
    )


def test_a_stream_is_answered_in_order_until_a_bad_request() -> None:
    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            good = [pixels(*[n % 10] * (n % 3 + 1), name=str(n)) for n in range(50)]
            answers = list(stub.ClassifyStream(iter(good), timeout=LIMIT_S))
            assert [answer.id for answer in answers] == [str(n) for n in range(50)]
            assert [list(a.labels) for a in answers] == [[n % 10] * (n % 3 + 1) for n in range(50)]

            bad = [*good[:2], Request(pixels=b"123"), *good[:2]]
            stream = stub.ClassifyStream(iter(bad), timeout=LIMIT_S)
            assert [next(stream).id, next(stream).id] == ["0", "1"]
            with pytest.raises(grpc.RpcError) as refused:
                next(stream)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details().startswith("message 2: pixels has 3 bytes")
            assert list(stub.Classify(pixels(5), timeout=LIMIT_S).labels) == [5]

    serve_sync(stub_model(), scenario)


def test_a_failure_of_the_server_tells_the_caller_a_number_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        if images[0, 0]:
            raise ZeroDivisionError("secret text of the server")
        return first_pixel(images)

    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            calls: list[Callable[[], object]] = [
                lambda: stub.Classify(pixels(1), timeout=LIMIT_S),
                lambda: list(stub.ClassifyStream(iter([pixels(1)]), timeout=LIMIT_S)),
            ]
            for call in calls:
                with pytest.raises(grpc.RpcError) as failed:
                    call()
                assert failed.value.code() is grpc.StatusCode.INTERNAL
                assert "its log says why under failure" in failed.value.details()
                assert "secret" not in repr(failed.value)
            assert list(stub.Classify(pixels(0), timeout=LIMIT_S).labels) == [0]

    with caplog.at_level(logging.ERROR):
        serve_sync(stub_model(broken), scenario)
    assert caplog.text.count("ZeroDivisionError: secret text of the server") == 2


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_an_oversize_message_is_refused_plain_and_compressed(
    compression: grpc.Compression | None,
) -> None:
    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            bomb = Request(pixels=bytes(784 * 50_000))  # 39 MB; 38 kB compressed
            with pytest.raises(grpc.RpcError) as refused:
                stub.Classify(bomb, timeout=LIMIT_S, compression=compression)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert list(stub.Classify(pixels(5), timeout=LIMIT_S).labels) == [5]

    serve_sync(
        stub_model(),
        scenario,
        max_images_per_request=10**6,
        max_queue_size=10**6,
        max_message_bytes=2**20,
    )
