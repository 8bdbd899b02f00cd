"""Both clients against servers that do as they are told, each test once for each client."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fakes import Fake, Refusal, answer

from jaxnn.errors import ConfigError
from service.calling import steps
from service.calling.parts import Classification
from service.client import AsyncDigitClient, DigitClient
from service.errors import InvalidRequest, NoSuchModel, ServiceError, Unauthenticated
from service.pb import digits_pb2

ROOT = Path(__file__).parent.parent
LIMIT_S = 20.0  # for what should end by itself in a fraction of it
LABELS = np.arange(23) % 10
Code = grpc.StatusCode

Use = Callable[..., Any]  # (target, method, *arguments, client={its options}, **options)


@pytest.fixture(params=["DigitClient", "AsyncDigitClient"])
def use(request: pytest.FixtureRequest) -> Use:
    """Calls one method of one of the two clients; of a stream, returns the list of its answers."""

    def blocking(target: str, method: str, *arguments: Any, client: Any, **options: Any) -> Any:
        with DigitClient(target, **client) as made:
            if method != "classify_stream":
                return getattr(made, method)(*arguments, **options)
            return [handed(part) for part in made.classify_stream(*arguments, **options)]

    async def awaited(
        target: str, method: str, *arguments: Any, client: Any, **options: Any
    ) -> Any:
        async with asyncio.timeout(LIMIT_S), AsyncDigitClient(target, **client) as made:
            if method != "classify_stream":
                return await getattr(made, method)(*arguments, **options)
            source = each(*arguments)
            return [handed(part) async for part in made.classify_stream(source, **options)]

    def handed(part: Classification) -> Classification:
        used.answers += 1  # type: ignore[attr-defined]
        return part

    def used(*arguments: Any, client: Any = None, **options: Any) -> Any:
        settings = {"timeout": LIMIT_S, **(client or {})}
        if request.param == "DigitClient":
            return blocking(*arguments, client=settings, **options)
        return asyncio.run(awaited(*arguments, client=settings, **options))

    used.answers = 0  # type: ignore[attr-defined]
    return used


async def each(source: Any) -> AsyncIterator[Any]:
    for item in source:
        yield item


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that do not wait longer than they are told to."""
    monkeypatch.setattr(steps, "FIRST_DELAY_S", 0.001)


def images_of(labels: Any) -> np.ndarray:
    images = np.zeros((len(labels), 784), np.uint8)
    images[:, 0] = labels
    return images


@pytest.mark.parametrize(
    ("server", "client", "parts"),
    [
        ({}, {}, [23]),
        ({"images": 10}, {}, [10, 10, 3]),
        ({}, {"max_message_bytes": 8 * 784 + 1024}, [8, 8, 7]),
        ({"message_bytes": 12 * 784 + 1500}, {}, [12, 11]),
    ],
    ids=["whole", "server's images", "client's bytes", "server's bytes"],
)
def test_a_long_array_is_split_under_the_limits_and_joined_in_order(
    use: Use, server: dict[str, Any], client: dict[str, Any], parts: list[int]
) -> None:
    told: list[tuple[int, int]] = []

    def slow_first(request: Any) -> Any:  # so that a later part is answered before it
        time.sleep(0.05 if request.pixels[0] == 0 else 0)
        return answer(request)

    with Fake(**server) as fake:
        fake.classify = slow_first
        found = use(
            fake.target,
            "classify",
            images_of(LABELS).reshape(-1, 28, 28),
            client=client,
            progress=lambda done, total: told.append((done, total)),
        )
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(found.scores, np.eye(10)[LABELS])
    np.testing.assert_array_equal(found.confidences, np.ones(23))
    np.testing.assert_array_equal(found.rejected, [False] * 23)
    kinds = [np.int64, np.float32, np.float32, bool]
    assert [field.dtype for field in found[:4]] == kinds
    assert found[4:] == ("fake", ("1",))
    sizes = [len(request.pixels) // 784 for request in fake.requests("Classify")]
    assert sorted(sizes, reverse=True) == parts
    assert told == [(done, 23) for done in np.cumsum(parts)]
    assert len(fake.requests("GetModel")) == 1


@pytest.mark.parametrize("in_flight", [1, 3])
def test_so_many_parts_are_in_flight_together(use: Use, in_flight: int) -> None:
    with Fake(images=2) as fake:
        fake.classify = lambda request: (time.sleep(0.02), answer(request))[1]
        found = use(fake.target, "classify", images_of(LABELS), client={"in_flight": in_flight})
    assert fake.most_busy == in_flight
    np.testing.assert_array_equal(found.labels, LABELS)


def test_the_first_part_that_fails_ends_the_rest(use: Use) -> None:
    def picky(request: Any) -> Any:
        if request.pixels[0] == 4:
            raise ValueError("image 0 is a four")
        return answer(request)

    with Fake(images=2) as fake:
        fake.classify = picky
        sentence = "^of images 4 to 5, sent together: image 0 is a four$"
        with pytest.raises(InvalidRequest, match=sentence):
            use(fake.target, "classify", images_of(range(200)))
    assert len(fake.requests("Classify")) < 12


def test_parts_that_wait_are_not_sent_again_once_another_has_failed() -> None:
    """Part 0 fails while the other two wait for their second try."""
    waiting = {1, 2}

    def respond(request: Any) -> Any:
        label = request.pixels[0]
        if label in waiting:
            waiting.discard(label)
            raise Refusal(Code.UNAVAILABLE, "150")
        time.sleep(0.05)
        raise ValueError("image 0 is a nought")

    async def scenario() -> None:
        async with AsyncDigitClient(fake.target, in_flight=3) as client:
            with pytest.raises(InvalidRequest, match="a nought"):
                await client.classify(images_of([0, 1, 2]))
            await asyncio.sleep(0.4)

    with Fake(images=1) as fake:
        fake.classify = respond
        with DigitClient(fake.target, in_flight=3) as client:
            with pytest.raises(InvalidRequest, match="a nought"):
                client.classify(images_of([0, 1, 2]))
            time.sleep(0.4)
        assert len(fake.requests("Classify")) == 3
        waiting.update({1, 2})
        asyncio.run(scenario())
        assert len(fake.requests("Classify")) == 6


def test_picture_files_are_split_and_joined_in_order(use: Use) -> None:
    with Fake(images=3) as fake:
        files = [bytes([label]) * 5 for label in range(7)]
        assert use(fake.target, "classify_encoded", files).labels.tolist() == list(range(7))
        assert use(fake.target, "model").name == "fake"
        (entry,) = use(fake.target, "models")
    assert (entry.name, entry.version, entry.state) == ("fake", "1", "READY")


def test_recordings_are_split_and_joined_in_order(use: Use) -> None:
    with Fake(images=3) as fake:
        fake.classify = lambda request: answer(
            digits_pb2.ClassifyRequest(encoded={"images": request.recordings.files})
        )
        files = [bytes([label]) * 5 for label in range(7)]
        assert use(fake.target, "classify_recordings", files).labels.tolist() == list(range(7))
        sizes = sorted(len(one.recordings.files) for one in fake.requests("Classify"))
        assert sizes == [1, 3, 3]
        with pytest.raises(InvalidRequest, match="give at least one recording file"):
            use(fake.target, "classify_recordings", [])
    words = "recording 1 has 1800 bytes, which do not fit"
    with Fake(message_bytes=2000) as fake, pytest.raises(InvalidRequest, match=words):
        use(fake.target, "classify_recordings", [b"1", bytes(1800)])


def test_the_question_says_which_model_and_how(use: Use) -> None:
    asking = {"model": "m", "version": "7", "skip_rejection": True, "priority": 2}
    with Fake() as fake:
        use(fake.target, "classify", images_of([1, 2]), **asking)
        use(fake.target, "classify_encoded", [b"1"], **asking)
        use(fake.target, "classify_stream", [images_of([1])], **asking)
        use(fake.target, "model", "m", "7")
        with pytest.raises(InvalidRequest, match="priority is -1, expected"):
            use(fake.target, "classify", images_of([1]), priority=-1)
        with pytest.raises(TypeError, match="modell"):
            use(fake.target, "classify", images_of([1]), modell="m")
    for request in fake.requests("Classify"):
        assert (request.model_name, request.model_version) == ("m", "7")
        assert (request.skip_rejection, request.priority) == (True, 2)
    assert [(request.name, request.version) for request in fake.requests("GetModel")] == [
        ("m", "7"), ("m", "7")
    ]  # fmt: skip


def test_every_version_that_answered_is_named(use: Use) -> None:
    with Fake(images=1) as fake:
        fake.classify = lambda request: answer(
            request, model_version="old" if request.pixels[0] < 2 else "new"
        )
        found = use(fake.target, "classify", images_of(range(4)))
    assert found.versions == ("old", "new")


# Retries


def test_a_server_that_says_when_is_asked_again_not_before(use: Use, quick: None) -> None:
    with Fake() as fake:
        fake.refusals = [(Code.RESOURCE_EXHAUSTED, "60"), (Code.UNAVAILABLE, "30")]
        assert use(fake.target, "classify", images_of([4])).labels.tolist() == [4]
    first, second, third = (asked.at for asked in fake.asked)
    assert second - first >= 0.06 and third - second >= 0.03


def test_unavailable_is_tried_again_and_too_large_is_not(use: Use, quick: None) -> None:
    with Fake() as fake:
        fake.refusals = [(Code.UNAVAILABLE, None)] * 2
        assert use(fake.target, "model").name == "fake"
        assert len(fake.asked) == 3
        for hint in (None, "-1", "soon"):
            fake.asked.clear()
            fake.refusals = [(Code.RESOURCE_EXHAUSTED, hint)]
            with pytest.raises(ServiceError, match="GetModel with RESOURCE_EXHAUSTED: refused"):
                use(fake.target, "model")
            assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (Code.INVALID_ARGUMENT, InvalidRequest, 2),
        (Code.NOT_FOUND, NoSuchModel, 2),
        (Code.UNAUTHENTICATED, Unauthenticated, 2),
        (Code.INTERNAL, ServiceError, 1),
        (Code.UNIMPLEMENTED, ServiceError, 1),
    ],
)
def test_a_refusal_is_bad_input_and_a_failure_is_not(
    use: Use, code: grpc.StatusCode, kind: type[Any], exit_code: int
) -> None:
    with Fake() as fake:
        fake.refusals = [(code, None)]
        with pytest.raises(kind, match="refused") as failed:
            use(fake.target, "classify", images_of([1]))
        assert len(fake.asked) == 1
    assert failed.value.exit_code == exit_code
    if kind is ServiceError:
        assert failed.value.code == code.name


def test_a_slow_server_is_given_up_after_the_timeout(use: Use) -> None:
    release = threading.Event()
    with Fake() as fake:
        fake.classify = lambda request: (release.wait(LIMIT_S), answer(request))[1]
        with pytest.raises(ServiceError, match=r"did not answer within 0\.2 s") as late:
            use(fake.target, "classify", images_of([1]), timeout=0.2)
        release.set()
    assert late.value.code == "DEADLINE_EXCEEDED"


def test_a_server_that_starts_late_is_reached(use: Use) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found: list[Classification] = []
    asking = threading.Thread(
        target=lambda: found.append(use(f"127.0.0.1:{port}", "classify", images_of([4])))
    )
    asking.start()
    time.sleep(0.3)
    assert not found
    with Fake(port=port):
        asking.join(LIMIT_S)
    assert found[0].labels.tolist() == [4]


def test_no_server_is_one_sentence(use: Use, quick: None) -> None:
    with socket.socket() as closed:  # bound but not listening: refuses every connection
        closed.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ServiceError, match=f"no server answers at {target}: start") as failed:
            use(target, "model")
    assert (failed.value.exit_code, failed.value.code) == (1, "UNAVAILABLE")


# Streams


def test_a_stream_is_answered_in_order_and_read_only_so_far_ahead(use: Use) -> None:
    ahead: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for index in range(30):
            ahead.append(index + 1 - use.answers)  # type: ignore[attr-defined]
            yield images_of([index % 10, 1])

    def slow_at_times(request: Any) -> Any:
        time.sleep(0.01 if request.pixels[0] % 3 == 0 else 0)
        return answer(request)

    with Fake() as fake:
        fake.classify = slow_at_times
        found = use(fake.target, "classify_stream", source(), client={"in_flight": 3})
    assert [part.labels.tolist() for part in found] == [[index % 10, 1] for index in range(30)]
    assert fake.most_busy == 3
    assert max(ahead) == 3


def test_a_stream_outlives_refusals(use: Use, quick: None) -> None:
    with Fake() as fake:
        fake.refusals = [(Code.UNAVAILABLE, None), (Code.RESOURCE_EXHAUSTED, "1")] * 2
        found = use(fake.target, "classify_stream", [images_of([index]) for index in range(8)])
    assert [part.labels[0] for part in found] == list(range(8))


def test_a_long_message_of_a_stream_is_split_as_well(use: Use) -> None:
    with Fake(images=5) as fake:
        (found,) = use(fake.target, "classify_stream", [images_of(LABELS)])
    np.testing.assert_array_equal(found.labels, LABELS)


def test_a_failed_message_is_named_after_the_answers_before_it() -> None:
    def source() -> Iterator[np.ndarray]:
        yield from (images_of([1]), images_of([2]), np.zeros(3), images_of([3]))

    async def scenario(target: str) -> None:
        async with AsyncDigitClient(target) as client:
            stream = client.classify_stream(each(source()))
            for label in (1, 2):
                assert (await anext(stream)).labels.tolist() == [label]
            with pytest.raises(InvalidRequest, match=r"^message 2: images are float64"):
                await anext(stream)

    with Fake() as fake:
        with DigitClient(fake.target) as client:
            stream = client.classify_stream(source())
            for label in (1, 2):
                assert next(stream).labels.tolist() == [label]
            with pytest.raises(InvalidRequest, match=r"^message 2: images are float64"):
                next(stream)
        asyncio.run(scenario(fake.target))
    with Fake() as fake:
        fake.refusals = [(Code.INTERNAL, None)]
        with DigitClient(fake.target) as client:
            stream = client.classify_stream([images_of([1])])
            with pytest.raises(
                ServiceError, match=r"^message 0: the server at .* INTERNAL"
            ) as error:
                next(stream)
        assert error.value.code == "INTERNAL"


def test_a_source_that_fails_does_so_after_the_answers_to_what_it_gave() -> None:
    def source() -> Iterator[np.ndarray]:
        yield from (images_of([1]), images_of([2]))
        raise OSError("unplugged")

    found: list[int] = []

    async def scenario(target: str) -> None:
        async with AsyncDigitClient(target) as client:
            async for part in client.classify_stream(each(source())):
                found.extend(part.labels.tolist())

    with Fake() as fake:
        with DigitClient(fake.target) as client, pytest.raises(OSError, match="unplugged"):
            for part in client.classify_stream(source()):
                found.extend(part.labels.tolist())
        with pytest.raises(OSError, match="unplugged"):
            asyncio.run(scenario(fake.target))
    assert found == [1, 2, 1, 2]


def test_an_answer_does_not_wait_for_a_slow_source() -> None:
    """The source gives its next array only once the one before has been answered."""
    answered = threading.Semaphore(1)

    def source() -> Iterator[np.ndarray]:
        for label in range(4):
            assert answered.acquire(timeout=LIMIT_S)
            yield images_of([label])

    async def slow(answered: asyncio.Semaphore) -> AsyncIterator[np.ndarray]:
        for label in range(4):
            await answered.acquire()
            yield images_of([label])

    async def scenario(target: str) -> list[int]:
        answered, found = asyncio.Semaphore(1), []
        async with asyncio.timeout(LIMIT_S), AsyncDigitClient(target, in_flight=4) as client:
            async for part in client.classify_stream(slow(answered)):
                found.append(int(part.labels[0]))
                answered.release()
        return found

    found = []
    with Fake() as fake:
        assert asyncio.run(scenario(fake.target)) == list(range(4))
        with DigitClient(fake.target) as client:
            for part in client.classify_stream(source(), in_flight=1):
                found.append(int(part.labels[0]))
                answered.release()
    assert found == list(range(4))


def test_an_endless_stream_can_be_left() -> None:
    pulled = []

    def source() -> Iterator[np.ndarray]:
        while True:
            pulled.append(1)
            yield images_of([7])

    async def scenario(target: str) -> None:
        async with AsyncDigitClient(target) as client:
            stream = client.classify_stream(each(source()))
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]

    with Fake() as fake:
        with DigitClient(fake.target, in_flight=2) as client:
            for _ in client.classify_stream(source()):
                break
        assert len(pulled) <= 3
        asyncio.run(scenario(fake.target))
        assert len(pulled) <= 8


# Arguments


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
    with pytest.raises(ConfigError, match="max_message_bytes is 784"):
        DigitClient("localhost:1", max_message_bytes=784)
    with pytest.raises(ConfigError, match="in_flight is 0"):
        DigitClient("localhost:1", in_flight=0)
    with pytest.raises(ConfigError, match="connections is 0"):
        DigitClient("localhost:1", connections=0)
    with DigitClient("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="files is"):
        client.classify_encoded([])


def test_the_client_imports_no_jax() -> None:
    program = "import sys, service.client; print(sorted({'jax', 'jaxlib'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
