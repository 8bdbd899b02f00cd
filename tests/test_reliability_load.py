"""Many callers at once: every answer right, every refusal told, every counter exact.

Short by default; JAXNN_SOAK=1 (`make soak`) makes the same tests long.
"""

import asyncio
import io
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from hostile import LIMIT_S, SOAK, Device, counted, gauge, resident
from PIL import Image
from serving import first_pixel, images_of, pixels, serving, stub_model

from jaxnn import answers, data
from jaxnn.checkpoint import SHIPPED
from jaxnn.data import preprocess
from service import access_log
from service.outputs import packed
from service.pb import digits_pb2
from service.pb import open_inference_grpc_pb2 as pb
from service.repository import ServedModel, load_model
from service.server import Running
from service.status import RETRY_HINT

CLIENTS = 64
REQUESTS = 400 if SOAK else 6  # of each client
OVERLOAD_S = 60.0 if SOAK else 2.0
# What `service.predictor.Predictor` says of rows in batches of other sizes.
SCORES, CONFIDENCE = 2e-5, 1e-4
V1, V2 = "/jaxnn.v1.DigitClassifier", "/inference.GRPCInferenceService"
AS_STATUS = (("triton_grpc_error", "true"),)  # errors of a stream end it with their status


class Told(NamedTuple):
    """An answer, whichever API it came by."""

    labels: np.ndarray  # [N]
    scores: np.ndarray  # [N, 10]
    confidences: np.ndarray  # [N]
    rejected: np.ndarray  # [N]
    version: str
    name: str  # the request's id


class Ended(NamedTuple):
    """How a call ended for its caller."""

    code: str
    hint: str | None  # in the trailing metadata
    told: list[Told]


def told_v1(answer: bytes) -> Told:
    response = digits_pb2.ClassifyResponse.FromString(answer)
    return Told(
        np.array(response.labels),
        np.array(response.scores, np.float32).reshape(-1, 10),
        np.array(response.confidences, np.float32),
        np.array(response.rejected),
        response.model_version,
        response.id,
    )


def told_v2(answer: bytes) -> Told:
    response = pb.ModelInferResponse.FromString(answer)
    found = {}
    for index, output in enumerate(response.outputs):
        if response.raw_output_contents:
            kind = {"INT64": "<i8", "FP32": "<f4", "BOOL": "?"}[output.datatype]
            values = np.frombuffer(response.raw_output_contents[index], kind)
        else:
            (values,) = (np.array(list(some)) for _, some in output.contents.ListFields())
        found[output.name] = values.reshape(list(output.shape))
    return Told(
        found["labels"], found["scores"], found["confidence"], found["rejected"],
        response.model_version, response.id,
    )  # fmt: skip


def told_stream(answer: bytes) -> Told:
    response = pb.ModelStreamInferResponse.FromString(answer)
    assert not response.error_message
    return told_v2(response.infer_response.SerializeToString())


READ: dict[str, Callable[[bytes], Told]] = {
    f"{V1}/Classify": told_v1,
    f"{V1}/ClassifyStream": told_v1,
    f"{V2}/ModelInfer": told_v2,
    f"{V2}/ModelStreamInfer": told_stream,
}
STREAMS = [path for path in READ if "Stream" in path]


async def call(
    channel: grpc.aio.Channel,
    path: str,
    messages: list[bytes],
    timeout: float = LIMIT_S,
    leave: float | None = None,
) -> Ended:
    """Calls a method with one message, or several of a stream, and perhaps leaves early.

    Args:
      channel: to the server.
      path: "/SERVICE/METHOD".
      messages: sent at once.
      timeout: the call's deadline in seconds.
      leave: seconds after which the caller cancels.
    """
    loop = asyncio.get_running_loop()
    told: list[Told] = []
    if path in STREAMS:
        calling: Any = channel.stream_stream(path)(
            iter(messages), timeout=timeout, metadata=AS_STATUS
        )
    else:
        calling = channel.unary_unary(path)(messages[0], timeout=timeout)
    if leave is not None:
        loop.call_later(leave, calling.cancel)
    try:
        if path in STREAMS:
            async for answer in calling:
                told.append(READ[path](answer))  # noqa: PERF401 - also those before an error
        else:
            told.append(READ[path](await calling))
    except grpc.aio.AioRpcError as error:
        hint = dict(error.trailing_metadata() or ()).get(RETRY_HINT)
        return Ended(error.code().name, None if hint is None else str(hint), told)
    except asyncio.CancelledError:
        if leave is None:
            raise
        return Ended("CANCELLED", None, told)
    return Ended("OK", None, told)


@asynccontextmanager
async def channels(server: Running, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """So many connections."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    opened = [grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", own) for _ in range(count)]
    try:
        yield opened
    finally:
        for channel in opened:
            await channel.close()


def tensor(
    kind: str, count: int, raw: bytes = b"", name: str = "images", **fields: Any
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(**fields)
    request.inputs.add(name=name, datatype=kind, shape=[count, 784][: 1 + (name == "images")])
    if raw:
        request.raw_input_contents.append(raw)
    return request


def wait_for(happened: Callable[[], bool]) -> Any:
    """Until something is so."""

    async def waiting() -> None:
        while not happened():
            await asyncio.sleep(0.005)

    return asyncio.wait_for(waiting(), LIMIT_S)


# 64 callers -----------------------------------------------------------------------------------


class Pool:
    """Digits, some noise and some picture files, and what the model says of them offline."""

    def __init__(self, model: ServedModel) -> None:
        digits = data.load("embedded").test_images[:400].reshape(-1, 784)
        noise = np.random.default_rng(1).integers(0, 256, (40, 784), np.uint8)
        self.files = [_png(255 - image.reshape(28, 28)) for image in digits[:6]]
        read = [preprocess.prepare(preprocess.decode(file, "a")) for file in self.files]
        self.images = np.concatenate([np.stack(read).reshape(-1, 784), digits, noise])
        self.offline = answers.answer(model.file, self.images)
        assert self.offline.rejected.any() and not self.offline.rejected.all()

    def check(self, rows: np.ndarray, told: Told, version: str) -> None:
        """Every row is answered as offline."""
        expected = [np.asarray(array)[rows] for array in self.offline]
        labels, scores, confidence, _, rejected = expected
        assert told.labels.tolist() == labels.tolist()
        assert np.abs(told.scores - scores).max() <= SCORES
        assert np.abs(told.confidences - confidence).max() <= CONFIDENCE
        assert told.rejected.tolist() == rejected.tolist()
        assert told.version == version


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


class Ask(NamedTuple):
    """A call to make, and what is to come of it."""

    path: str
    messages: list[bytes]
    rows: list[np.ndarray]  # of the pool, for each message
    code: str = "OK"
    leave: float | None = None


class Maker:
    """Calls of every kind: 10 % bad, 10 % left early."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool, self.random, self.numbers = pool, np.random.default_rng(seed), itertools.count()
        self.seed = seed

    def ask(self) -> Ask:
        lot = self.random.random()
        if lot < 0.1:
            return self.bad()
        path = str(self.random.choice(list(READ)))
        rows = [self.some() for _ in range(3 if path in STREAMS else 1)]
        if self.random.random() < 0.05:  # pictures
            rows = [self.random.integers(0, len(self.pool.files), 2) for _ in rows]
            messages = [self.pictures(path, some) for some in rows]
        else:
            messages = [self.message(path, some) for some in rows]
        leave = float(self.random.choice([0.0, 0.002, 0.01, 0.03])) if lot < 0.2 else None
        return Ask(path, messages, rows, leave=leave)

    def some(self) -> np.ndarray:
        count = int(self.random.choice([1, 2, 3, 10, 60, 64, 65, 150]))
        return self.random.integers(0, len(self.pool.images), count)

    def name(self) -> str:
        return f"{self.seed}-{next(self.numbers)}"

    def message(self, path: str, rows: np.ndarray) -> bytes:
        images = self.pool.images[rows]
        if path.startswith(V1):
            message = digits_pb2.ClassifyRequest(pixels=images.tobytes(), id=self.name())
            return message.SerializeToString()
        kind = self.random.choice(["raw", "typed", "FP32"])
        if kind == "FP32":
            grey = (images / np.float32(255)).astype("<f4")
            return tensor("FP32", len(rows), grey.tobytes(), id=self.name()).SerializeToString()
        if kind == "raw":
            return tensor("UINT8", len(rows), images.tobytes(), id=self.name()).SerializeToString()
        request = tensor("UINT8", len(rows), id=self.name())
        request.inputs[0].contents.uint_contents.extend(images.ravel().tolist())
        return request.SerializeToString()

    def pictures(self, path: str, rows: np.ndarray) -> bytes:
        files = [self.pool.files[row] for row in rows]
        if path.startswith(V1):
            encoded = digits_pb2.EncodedImages(images=files)
            return digits_pb2.ClassifyRequest(encoded=encoded, id=self.name()).SerializeToString()
        request = tensor("BYTES", len(rows), packed(files), "pictures", id=self.name())
        return request.SerializeToString()

    def bad(self) -> Ask:
        image = bytes(784)
        bad: list[tuple[str, Any, str]] = [
            (f"{V1}/Classify", pixels(1).SerializeToString()[:300], "INVALID_ARGUMENT"),
            (f"{V1}/Classify", digits_pb2.ClassifyRequest(pixels=bytes(783)), "INVALID_ARGUMENT"),
            (f"{V1}/Classify", digits_pb2.ClassifyRequest(), "INVALID_ARGUMENT"),
            (
                f"{V1}/Classify",
                digits_pb2.ClassifyRequest(pixels=bytes(784 * 301)),
                "INVALID_ARGUMENT",
            ),
            (
                f"{V1}/Classify",
                digits_pb2.ClassifyRequest(encoded=digits_pb2.EncodedImages(images=[b"no"])),
                "INVALID_ARGUMENT",
            ),
            (
                f"{V1}/Classify",
                digits_pb2.ClassifyRequest(pixels=image, model_name="no"),
                "NOT_FOUND",
            ),
            (f"{V1}/ClassifyStream", digits_pb2.ClassifyRequest(), "INVALID_ARGUMENT"),
            (f"{V2}/ModelInfer", tensor("UINT8", 2, image), "INVALID_ARGUMENT"),
            (f"{V2}/ModelInfer", tensor("INT8", 1, image), "INVALID_ARGUMENT"),
            (f"{V2}/ModelInfer", tensor("FP32", 1, b"\xff" * 784 * 4), "INVALID_ARGUMENT"),
            (f"{V2}/ModelInfer", tensor("UINT8", 1, image, model_version="9"), "NOT_FOUND"),
            (f"{V2}/ModelStreamInfer", tensor("UINT8", -1, image), "INVALID_ARGUMENT"),
        ]
        path, message, code = bad[self.random.integers(len(bad))]
        blob = message if isinstance(message, bytes) else message.SerializeToString()
        return Ask(path, [blob], [], code)


@pytest.fixture(scope="module")
def shipped() -> ServedModel:
    """The network itself, as the server compiles it; batches of other sizes are padded or cut."""
    return load_model(SHIPPED, "digits", "1", buckets=(64,))


class Line(NamedTuple):
    """What the access log says of a call."""

    api: str
    method: str
    model: str
    version: str
    code: str


def test_64_callers_get_the_offline_answers_and_the_counters_add_up(
    shipped: ServedModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "FAILURES_PER_SECOND", 10**9)
    monkeypatch.setattr(access_log, "WAITING_LINES", 10**9)
    pool = Pool(shipped)
    done: list[tuple[Ask, Ended]] = []

    async def client(channel: grpc.aio.Channel, seed: int) -> None:
        maker = Maker(pool, seed)
        for _ in range(REQUESTS):
            ask = maker.ask()
            done.append((ask, await call(channel, ask.path, ask.messages, leave=ask.leave)))

    async def main() -> tuple[dict[str, Any], pb.ModelStatistics]:
        async with (
            asyncio.timeout(LIMIT_S),
            serving(
                shipped, access_log=1.0, max_images_per_request=300, max_batch_size=128
            ) as server,
            channels(server, CLIENTS) as opened,
        ):
            await asyncio.gather(*(client(channel, seed) for seed, channel in enumerate(opened)))
            await wait_for(lambda: gauge(server.telemetry, "in_flight") == 0)
            snapshot = server.telemetry.snapshot()
            path = f"{V2}/ModelStatistics"
            answer = await opened[0].unary_unary(path)(b"")
            (model,) = pb.ModelStatisticsResponse.FromString(answer).model_stats
            return snapshot, model

    snapshot, model = asyncio.run(main())
    assert snapshot["gauges"]["queue_rows"] == 0

    # What the callers saw is right.
    for ask, ended in done:
        if ask.leave is None:
            assert ended.code == ask.code, ask.path
            assert len(ended.told) == len(ask.rows)
        else:
            assert ended.code in ("OK", "CANCELLED")
        for rows, told in zip(ask.rows, ended.told, strict=False):
            pool.check(rows, told, "1")
    ends = Counter((ask.leave is not None, ended.code) for ask, ended in done)
    assert ends[True, "CANCELLED"] > 0 and ends[False, "INVALID_ARGUMENT"] > 0

    # What the log says of each call is what its caller saw.
    lines = [json.loads(text) for text in capsys.readouterr().err.splitlines() if text[:1] == "{"]
    lines = [line for line in lines if line["method"] != "ModelStatistics"]
    assert not any("omitted" in line for line in lines)
    by_name = {line["request"]: line for line in lines if line["request"]}
    assert len(by_name) == sum(1 for line in lines if line["request"])  # one line a call
    for ask, ended in done:
        for rows, told in zip(ask.rows, ended.told, strict=False):
            line = by_name[told.name]
            assert (line["code"], line["images"]) == ("OK", len(rows))
    stayed = Counter(ended.code for ask, ended in done if ask.leave is None and not ask.rows)
    assert (
        Counter(line["code"] for line in lines if line["code"] not in ("OK", "CANCELLED")) == stayed
    )

    # The counters are the log, added up.
    logged = Counter(Line(*(line[name] for name in Line._fields)) for line in lines)
    requests = {
        Line(*labels): value
        for name, labels, value in snapshot["counters"]
        if name == "requests" and labels[1] != "ModelStatistics"
    }
    assert requests == dict(logged)
    images = Counter[str]()
    for line in lines:
        images[line["api"]] += line["images"] * (line["code"] == "OK")
    assert {
        labels[0]: value for name, labels, value in snapshot["counters"] if name == "images"
    } == dict(images)
    well = [line for line in lines if line["code"] == "OK"]
    assert model.inference_stats.success.count == len(well)
    assert model.inference_count == images.total()
    assert model.inference_stats.fail.count == sum(
        1 for line in lines if line["code"] != "OK" and line["version"]
    )
    computed = sum(batch.batch_size * batch.compute_infer.count for batch in model.batch_stats)
    left = sum(line["images"] for line in lines if line["code"] == "CANCELLED")
    assert images.total() <= computed <= images.total() + left
    assert computed == sum(
        numbers[-1] for name, _, numbers in snapshot["histograms"] if name == "batch_rows"
    )


# A full queue, time that is over, callers that leave -------------------------------------------


def message(path: str, *labels: int, **fields: Any) -> bytes:
    """A request for images of these first pixels."""
    images = images_of(labels).tobytes()
    if path.startswith(V1):
        return digits_pb2.ClassifyRequest(pixels=images, **fields).SerializeToString()
    return tensor("UINT8", len(labels), images, **fields).SerializeToString()


def held(scenario: Callable[[Running, Device, grpc.aio.Channel], Any], **settings: Any) -> Device:
    """A server that computes one image and does not end with it while the scenario runs."""
    device = Device()

    async def main() -> None:
        async with (
            asyncio.timeout(LIMIT_S),
            serving(stub_model(device), inline_images=0, **settings) as server,
            channels(server, 1) as (channel,),
        ):
            device.free.clear()
            path = f"{V1}/Classify"
            try:
                first = asyncio.create_task(call(channel, path, [message(path, 100)]))
                await device.busy()
                await scenario(server, device, channel)
                device.free.set()
                assert (await first).code == "OK"
                last = await call(channel, path, [message(path, 3)])
                assert last.told[0].labels.tolist() == [3]
            finally:
                device.free.set()

    asyncio.run(main())
    return device


@pytest.mark.parametrize("paths", [[path] for path in READ] + [list(READ)])
def test_a_full_queue_refuses_exactly_the_surplus(paths: list[str]) -> None:
    room = 16

    async def scenario(server: Running, device: Device, channel: grpc.aio.Channel) -> None:
        asked = [paths[number % len(paths)] for number in range(40)]
        tasks = [asyncio.create_task(call(channel, path, [message(path, 7, 7)])) for path in asked]
        await wait_for(lambda: sum(task.done() for task in tasks) >= 32)
        assert gauge(server.telemetry, "queue_rows") == room
        device.free.set()
        ends = await asyncio.gather(*tasks)
        assert Counter(ended.code for ended in ends) == {"OK": 8, "RESOURCE_EXHAUSTED": 32}
        for ended in ends:
            if ended.code == "OK":
                assert ended.told[0].labels.tolist() == [7, 7]
            else:
                assert ended.hint and 10 <= int(ended.hint) <= 5000
        assert counted(server.telemetry, "refused") == 32
        assert counted(server.telemetry, "requests", code="RESOURCE_EXHAUSTED") == 32

    device = held(scenario, max_queue_size=room, max_images_per_request=room)
    assert Counter(device.seen) == {100: 1, 7: 16, 3: 1}


def test_what_is_over_or_left_in_the_queue_is_never_computed() -> None:
    async def scenario(server: Running, device: Device, channel: grpc.aio.Channel) -> None:
        def start(path: str, label: int, **options: Any) -> "asyncio.Task[Ended]":
            sent = [message(path, *[label] * 5)]
            return asyncio.create_task(call(channel, path, sent, **options))

        late = [start(path, 201, timeout=0.5) for path in READ]
        gone = [start(path, 202, leave=0.5) for path in READ]
        timed = pb.ModelInferRequest.FromString(message(V2, 203))
        timed.parameters["timeout"].int64_param = 500_000
        asked = [
            asyncio.create_task(call(channel, path, [timed.SerializeToString()]))
            for path in READ
            if path.startswith(V2)
        ]
        good = [start(path, 5) for path in READ]
        await wait_for(lambda: gauge(server.telemetry, "queue_rows") == 5 * 12 + 2)
        assert {(await task).code for task in late} == {"DEADLINE_EXCEEDED"}
        assert {(await task).code for task in gone} == {"CANCELLED"}
        # gRPC tells the server a little later; a parameter's time is looked at when a turn comes.
        await wait_for(lambda: gauge(server.telemetry, "queue_rows") <= 5 * 4 + 2)
        await asyncio.sleep(0.55)
        device.free.set()
        assert {(await task).code for task in asked} == {"DEADLINE_EXCEEDED"}
        assert {(await task).code for task in good} == {"OK"}
        await wait_for(lambda: gauge(server.telemetry, "in_flight") == 0)
        telemetry = server.telemetry
        assert counted(telemetry, "expired") + counted(telemetry, "cancelled") == 4 + 4 + 2
        assert counted(telemetry, "images") == 1 + 5 * 4  # what was answered, and nothing else

    device = held(scenario)
    assert Counter(device.seen) == {100: 1, 5: 20, 3: 1}


def test_a_stream_that_is_left_counts_no_message_twice() -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(LIMIT_S),
            serving(stub_model(), access_log=0.0) as server,
            channels(server, 1) as (channel,),
        ):
            for path in STREAMS:
                calling = channel.stream_stream(path)(metadata=AS_STATUS)
                await calling.write(message(path, 1, 2, 3))
                assert READ[path](await calling.read()).labels.tolist() == [1, 2, 3]
                calling.cancel()
            await wait_for(lambda: gauge(server.telemetry, "in_flight") == 0)
            assert counted(server.telemetry, "images") == 6
            assert counted(server.telemetry, "requests", code="OK") == 2
            answer = await channel.unary_unary(f"{V2}/ModelStatistics")(b"")
            (model,) = pb.ModelStatisticsResponse.FromString(answer).model_stats
            assert model.inference_stats.success.count == 2
            assert model.inference_stats.fail.count == 0

    asyncio.run(main())


def test_a_stream_that_the_server_ends_counts_no_message_twice() -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as ending:
            async with serving(stub_model()) as server, channels(server, 1) as (channel,):
                for path in STREAMS:
                    calling = channel.stream_stream(path)(metadata=AS_STATUS)
                    await calling.write(message(path, 1, 2, 3))
                    assert READ[path](await calling.read()).labels.tolist() == [1, 2, 3]
                    ending.create_task(_unavailable(calling))
            telemetry = server.telemetry
            assert counted(telemetry, "requests", code="UNAVAILABLE") == 2
            assert counted(telemetry, "images") == 6

    asyncio.run(main())


async def _unavailable(calling: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await calling.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# Too much to do -------------------------------------------------------------------------------

BATCH, BATCH_S, ROOM, ROWS = 32, 0.1, 160, 16  # so 20 requests a second
CALLERS = 120  # who ask again at once when they are refused


@pytest.mark.parametrize("connections", [1, 8] if SOAK else [8])
def test_ten_times_too_much_is_refused_and_soon_forgotten(
    connections: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[int] = []  # of each batch
    depths: list[float] = []
    waits: list[float] = []  # s, of what was accepted
    refused = 0

    def slow(images: np.ndarray) -> np.ndarray:
        rows.append(len(images))
        time.sleep(BATCH_S)
        return first_pixel(images)

    async def caller(server: Running, channel: grpc.aio.Channel, until: float, path: str) -> None:
        nonlocal refused
        blob = message(path, *[7] * ROWS)
        while time.monotonic() < until:
            began = time.monotonic()
            ended = await call(channel, path, [blob])
            depths.append(gauge(server.telemetry, "queue_rows"))
            if ended.code == "OK":
                waits.append(time.monotonic() - began)
                assert ended.told[0].labels.tolist() == [7] * ROWS
            else:
                refused += 1
                assert ended.code == "RESOURCE_EXHAUSTED" and ended.hint
                assert 10 <= int(ended.hint) <= 5000

    async def main() -> None:
        settings = {
            "max_batch_size": BATCH,
            "max_queue_size": ROOM,
            "max_images_per_request": ROOM,
        }
        async with (
            asyncio.timeout(LIMIT_S),
            serving(stub_model(slow), inline_images=0, **settings) as server,
            channels(server, connections) as opened,
        ):

            async def load(seconds: float) -> None:
                until = time.monotonic() + seconds
                paths = itertools.cycle(READ)
                some = zip(itertools.cycle(opened), paths, range(CALLERS), strict=False)
                await asyncio.gather(
                    *(caller(server, channel, until, path) for channel, path, _ in some)
                )

            await load(0.3)  # what gRPC sets up for its connections stays
            before = resident()
            rows.clear(), waits.clear()
            await load(OVERLOAD_S)
            growth = resident() - before
            assert growth < 24 * 2**20, f"{growth / 2**20:.1f} MiB"
            assert gauge(server.telemetry, "queue_rows") == 0
            ended = await call(opened[0], f"{V1}/Classify", [message(V1, 4)])
            assert ended.told[0].labels.tolist() == [4]
            await wait_for(lambda: gauge(server.telemetry, "in_flight") == 0)
            assert counted(server.telemetry, "refused") == refused

    asyncio.run(main())
    assert refused > 9 * len(waits), "the callers did not ask for ten times what there is"
    assert max(depths) <= ROOM and max(depths) > ROOM / 2
    assert sum(rows) == ROWS * len(waits) + 1  # no work but for what was answered
    if SOAK:
        p50, p99, longest = np.quantile(waits, [0.5, 0.99, 1])
        bound = (ROOM / BATCH + 2) * BATCH_S  # all that can be before it, and itself
        with capsys.disabled():
            print(f"\n{connections} connections: {len(waits)} accepted, {refused} refused; p50")
            print(
                f"{p50:.3f} s, p99 {p99:.3f} s, longest {longest:.3f} s; a full queue {bound:.3f} s"
            )
        # Each connection is a caller of its own, and callers take turns: who has much in the queue
        # waits for those who have little, so that only one alone is sure of the queue's order.
        assert connections > 1 or p99 < 2 * bound
