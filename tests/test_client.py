"""Both clients against real servers: splitting, joining, retries, and errors in one sentence."""

import asyncio
import io
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from serving import LIMIT_S, ROOT, first_pixel, images_of, serve_async, stub_model

from jaxnn.errors import ConfigError
from service import calls
from service.client import AsyncDigitClient, DigitClient
from service.config import ServiceConfig
from service.errors import InvalidRequest, ServiceError
from service.pb import digits_pb2, digits_pb2_grpc
from service.server import running_server

LABELS = np.arange(23) % 10


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


Use = Callable[..., Awaitable[Any]]  # (target, method, *arguments, **options of the client)


@pytest.fixture(params=["DigitClient", "AsyncDigitClient"])
def use(request: pytest.FixtureRequest) -> Use:
    """Calls one method of one of the two clients."""

    def blocking(target: str, method: str, *arguments: Any, **options: Any) -> Any:
        with DigitClient(target, **options) as client:
            return getattr(client, method)(*arguments)

    async def in_thread(*arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(blocking, *arguments, **options)

    async def awaited(target: str, method: str, *arguments: Any, **options: Any) -> Any:
        async with AsyncDigitClient(target, **options) as client:
            return await getattr(client, method)(*arguments)

    return in_thread if request.param == "DigitClient" else awaited


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that do not wait."""
    monkeypatch.setattr(calls, "FIRST_DELAY_S", 0.001)


@pytest.mark.parametrize(
    ("server", "client", "parts"),
    [
        ({}, {}, [23]),
        ({"max_images_per_request": 10}, {}, [10, 10, 3]),
        ({}, {"max_message_bytes": 8 * 784 + 1024}, [8, 8, 7]),
        ({"max_message_bytes": 12 * 784 + 1500}, {}, [12, 11]),
    ],
    ids=["whole", "server's images", "client's bytes", "server's bytes"],
)
def test_a_long_array_is_split_under_the_limits_and_joined_in_order(
    use: Use, server: dict[str, Any], client: dict[str, Any], parts: list[int]
) -> None:
    seen: list[int] = []

    def predictor(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return first_pixel(images)

    async def scenario(target: str) -> None:
        images = images_of(LABELS).reshape(-1, 28, 28)
        labels, scores, confidences, rejected = await use(target, "classify", images, **client)
        np.testing.assert_array_equal(labels, LABELS)
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, np.eye(10)[LABELS])
        assert confidences.dtype == np.float32 and rejected.dtype == bool
        np.testing.assert_allclose(confidences, 1, atol=1e-6)  # of scores 1 and 0
        np.testing.assert_array_equal(rejected, [False] * len(LABELS))

    serve_async(stub_model(predictor), scenario, **server)
    assert seen == parts


def test_picture_files_are_split_and_joined_in_order(use: Use) -> None:
    files = []
    for label in range(7):
        digit = np.pad(np.full((20, 4), 255, np.uint8), ((4, 4), (12, 12)))
        digit[14, 13] = label
        file = io.BytesIO()
        Image.fromarray(digit).save(file, "PNG")
        files.append(file.getvalue())

    async def scenario(target: str) -> None:
        assert (await use(target, "classify_encoded", files)).labels.tolist() == list(range(7))
        with pytest.raises(InvalidRequest, match="encoded image 1 is not a whole"):
            await use(target, "classify_encoded", [files[0], b"no picture"])
        assert (await use(target, "model")).name == "stub"

    model = stub_model(lambda images: first_pixel(images[:, 14 * 28 + 13 :]))
    serve_async(model, scenario, max_images_per_request=3)


def test_a_refusal_is_bad_input_and_a_failure_is_not(use: Use) -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("secret")

    async def scenario(target: str) -> None:
        with pytest.raises(InvalidRequest, match="encoded image 0 is not a whole") as refused:
            await use(target, "classify_encoded", [b"no picture"])
        assert refused.value.exit_code == 2
        with pytest.raises(ServiceError, match=f"{target} answered Classify with INTERNAL") as e:
            await use(target, "classify", images_of([1]))
        assert (e.value.exit_code, e.value.code) == (1, "INTERNAL")
        assert "secret" not in str(e.value)

    serve_async(stub_model(broken), scenario)


def test_a_slow_server_is_given_up_after_the_timeout(use: Use) -> None:
    release = threading.Event()

    def slow(images: np.ndarray) -> np.ndarray:
        assert release.wait(LIMIT_S)
        return first_pixel(images)

    async def scenario(target: str) -> None:
        with pytest.raises(ServiceError, match=r"did not answer within 0\.2 s") as late:
            await use(target, "classify", images_of([1]), timeout=0.2)
        assert late.value.code == "DEADLINE_EXCEEDED"
        release.set()

    serve_async(stub_model(slow), scenario)


class Shy(digits_pb2_grpc.DigitClassifierServicer):
    """Refuses twice, then answers."""

    def __init__(self) -> None:
        self.asked = 0

    async def GetModel(  # noqa: N802 - the protocol's name
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> Any:
        self.asked += 1
        if self.asked < 3:
            await context.abort(UNAVAILABLE, "not yet")
        return digits_pb2.GetModelResponse(name="shy")


async def with_servicer(servicer: Any, scenario: Callable[[str], Awaitable[None]]) -> None:
    server = grpc.aio.server()
    if servicer is not None:
        digits_pb2_grpc.add_DigitClassifierServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.timeout(LIMIT_S):
        await scenario(f"127.0.0.1:{port}")
    await server.stop(None)


def test_a_server_that_refuses_twice_is_asked_three_times(use: Use, quick: None) -> None:
    shy = Shy()

    async def scenario(target: str) -> None:
        assert (await use(target, "model")).name == "shy"

    asyncio.run(with_servicer(shy, scenario))
    assert shy.asked == 3


def test_another_kind_of_server_is_no_reason_to_retry(use: Use) -> None:
    async def scenario(target: str) -> None:
        with pytest.raises(ServiceError, match="answered GetModel with UNIMPLEMENTED"):
            await use(target, "model")

    asyncio.run(with_servicer(None, scenario))


def test_a_server_that_starts_late_is_reached(use: Use) -> None:
    async def scenario() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        asked = asyncio.ensure_future(use(f"127.0.0.1:{port}", "classify", images_of([4])))
        await asyncio.sleep(0.3)
        assert not asked.done()
        async with running_server(ServiceConfig(port=port), stub_model()):
            assert (await asked).labels.tolist() == [4]

    asyncio.run(scenario())


def test_no_server_is_one_sentence(use: Use, quick: None) -> None:
    async def scenario() -> None:
        with socket.socket() as closed:  # bound but not listening: refuses every connection
            closed.bind(("127.0.0.1", 0))
            target = f"127.0.0.1:{closed.getsockname()[1]}"
            with pytest.raises(ServiceError, match=f"no server answers at {target}: start") as e:
                await use(target, "model")
        assert (e.value.exit_code, e.value.code) == (1, "UNAVAILABLE")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 784)), "float64, expected uint8"),
        (np.zeros((28, 28), np.uint8), r"shape \(28, 28\), expected"),
        (np.zeros(784, np.uint8), r"shape \(784,\), expected"),
        (np.zeros((2, 28, 28, 1), np.uint8), "expected"),
        (np.uint8(3), "expected"),
        (np.zeros((0, 784), np.uint8), "give at least one image"),
    ],
)
def test_arrays_are_checked_before_anything_is_sent(images: np.ndarray, sentence: str) -> None:
    with DigitClient("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match=sentence):
        client.classify(images)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        DigitClient("localhost")
    with pytest.raises(ConfigError, match="max_message_bytes is 784"):
        DigitClient("localhost:1", max_message_bytes=784)
    with DigitClient("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="files is"):
        client.classify_encoded([])


def test_the_client_imports_no_jax() -> None:
    program = "import sys, service.client; print(sorted({'jax', 'jaxlib'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
