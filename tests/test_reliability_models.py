"""Models that change, break and come back while callers ask.

Short by default; JAXNN_SOAK=1 (`make soak`) reloads a hundred times.
"""

import asyncio
import json
import logging
import os
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import grpc
import jax
import numpy as np
import pytest
from hostile import LIMIT_S, SOAK, counted, put, resident, stub_of

from jaxnn import answers, checkpoint, compiled, data
from jaxnn.answers import Answers
from jaxnn.checkpoint import ModelFile
from jaxnn.mlp import Layer
from jaxnn.models import Spec
from service import repository
from service.config import ServiceConfig
from service.pb import digits_pb2
from service.pb import open_inference_grpc_pb2 as pb
from service.predictor import Predictor
from service.repository import Found, ServedModel, load_model
from service.server import Running, running_server

RELOADS = 100 if SOAK else 10
SPEC = Spec(sizes=(784, 10))
SCORES = 2e-5  # what `service.predictor.Predictor` says of rows in batches of other sizes
V1, V2 = "/jaxnn.v1.DigitClassifier", "/inference.GRPCInferenceService"


class Network(NamedTuple):
    """A model file, and what it says of `images` offline."""

    file: bytes
    offline: Answers


@cache
def images() -> np.ndarray:
    """uint8 [100, 784]."""
    return data.load("embedded").test_images[:100].reshape(-1, 784)


def fitted(start: int) -> tuple[Layer, ...]:
    """A network without hidden layers that reads most digits: least squares on 1,000 of them."""
    digits = data.load("embedded")
    some = digits.train_images[start : start + 1000].reshape(-1, 784) / 255
    wanted = 4 * np.eye(10)[digits.train_labels[start : start + 1000]] - 2
    normal = some.T @ some + 10 * np.eye(784)
    weights = np.linalg.solve(normal, some.T @ wanted).T
    return (Layer(weights.astype(np.float32), np.zeros(10, np.float32)),)


def network(path: Path, start: int) -> Network:
    """One of two networks of the same shape."""
    checkpoint.save(path, fitted(start), SPEC)
    return Network(path.read_bytes(), answers.answer(checkpoint.load(path), images()))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Network]:
    """Two that differ in the scores of every picture."""
    path = tmp_path_factory.mktemp("networks") / "model.safetensors"
    first, second = network(path, 0), network(path, 1000)
    apart = np.abs(first.offline.scores - second.offline.scores).max(axis=1)
    assert apart.min() > 100 * SCORES
    return first, second


class Shared(Predictor):
    """Compiles once for all networks of a shape, for tests that are not about compiling."""

    programs: ClassVar[dict[int, Any]] = {}

    def _compiled(self, file: ModelFile, rejection: bool, bucket: int) -> Any:
        params, function = compiled.program(file, rejection=rejection)
        program = self.programs.setdefault(bucket, jax.jit(function))
        return lambda images: np.asarray(program(params, images))


@pytest.fixture
def quick_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads cost milliseconds."""
    monkeypatch.setattr(repository, "Predictor", Shared)


def read(found: Found) -> ServedModel:
    """As the server reads a file, with one program only."""
    return load_model(found.path, found.name, found.version, proof=0.5, buckets=(16,))


@asynccontextmanager
async def serving_folder(
    folder: Path, load: Callable[[Found], ServedModel] = read, **settings: Any
) -> AsyncIterator[tuple[Running, grpc.aio.Channel]]:
    """A server of a repository, and a connection to it."""
    config = ServiceConfig(
        repository=folder, port=0, shutdown_delay_s=0.0, model_control=True, **settings
    )
    async with (
        asyncio.timeout(LIMIT_S),
        running_server(config, load) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, channel


class Told(NamedTuple):
    """An answer."""

    labels: list[int]
    scores: np.ndarray  # [N, 10]
    version: str

    def agrees(self, rows: np.ndarray, with_one: Network) -> bool:
        """Whether the whole answer is that of one network."""
        offline = with_one.offline
        same = self.labels == np.asarray(offline.labels)[rows].tolist()
        return bool(same and np.abs(self.scores - np.asarray(offline.scores)[rows]).max() <= SCORES)


async def ask(channel: grpc.aio.Channel, rows: np.ndarray, by_v1: bool = True) -> Told:
    """One request for some rows of `images`, by one of the two APIs."""
    blob = images()[rows].tobytes()
    if by_v1:
        request = digits_pb2.ClassifyRequest(pixels=blob)
        method = channel.unary_unary(f"{V1}/Classify")
        answer = await method(request.SerializeToString(), timeout=LIMIT_S)
        response = digits_pb2.ClassifyResponse.FromString(answer)
        scores = np.array(response.scores, np.float32).reshape(-1, 10)
        return Told(list(response.labels), scores, response.model_version)
    asked = pb.ModelInferRequest(raw_input_contents=[blob])
    asked.inputs.add(name="images", datatype="UINT8", shape=[len(rows), 784])
    method = channel.unary_unary(f"{V2}/ModelInfer")
    found = pb.ModelInferResponse.FromString(
        await method(asked.SerializeToString(), timeout=LIMIT_S)
    )
    labels, scores = found.raw_output_contents[:2]
    return Told(
        np.frombuffer(labels, "<i8").tolist(),
        np.frombuffer(scores, "<f4").reshape(-1, 10),
        found.model_version,
    )


@asynccontextmanager
async def callers(
    channel: grpc.aio.Channel, check: Callable[[np.ndarray, Told], None]
) -> AsyncIterator[list[float]]:
    """Six who ask again and again while the block runs; how long each request took, in seconds."""
    took: list[float] = []
    stop = asyncio.Event()

    async def caller(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stop.is_set():
            rows = random.integers(0, 100, random.choice([1, 3, 16, 40, 90]))
            began = time.monotonic()
            check(rows, await ask(channel, rows, by_v1=bool(seed % 2)))
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.01)  # the loads need some of the time

    tasks = [asyncio.create_task(caller(seed)) for seed in range(6)]
    try:
        yield took
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def index_of(channel: grpc.aio.Channel) -> dict[str, tuple[str, str]]:
    """By version its state and its reason, as RepositoryIndex tells."""
    answer = await channel.unary_unary(f"{V2}/RepositoryIndex")(b"")
    models = pb.RepositoryIndexResponse.FromString(answer).models
    return {model.version: (model.state, model.reason) for model in models}


class Compilations:
    """Counts what XLA compiles in this process, in loads and outside of them."""

    def __init__(self) -> None:
        self.loading, self.others = dict[str, int](), 0  # by version
        self._now: str | None = None
        self._thread = 0
        self._on = True
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_: Any) -> None:
        if not self._on or "backend_compile" not in event:
            return
        if self._now is not None and threading.get_ident() == self._thread:
            self.loading[self._now] += 1
        else:
            self.others += 1

    def load(self, found: Found) -> ServedModel:
        """As `read`."""
        self._now, self._thread = found.version, threading.get_ident()
        self.loading[found.version] = 0
        model = read(found)
        self._now = None
        assert isinstance(model.predictor.compile_count, int)  # type: ignore[attr-defined]
        return model

    def end(self) -> None:
        """Listens no longer."""
        self._on = False


def test_reloads_under_load_fail_no_request_and_mix_no_versions(
    tmp_path: Path, networks: tuple[Network, Network], capsys: pytest.CaptureFixture[str]
) -> None:
    answered: set[int] = set()
    compilations = Compilations()

    def check(rows: np.ndarray, told: Told) -> None:
        version = int(told.version)
        answered.add(version)
        assert told.agrees(rows, networks[version % 2])
        assert not told.agrees(rows, networks[1 - version % 2])

    async def main() -> list[float]:
        put(tmp_path, "digits", 1, networks[1].file)
        async with serving_folder(tmp_path, compilations.load) as (server, channel):
            ready, before = compilations.others, 0
            async with callers(channel, check) as took:
                for version in range(2, RELOADS + 2):
                    if version == RELOADS // 2:
                        before = resident()
                    put(tmp_path, "digits", version, networks[version % 2].file)
                    load = pb.RepositoryModelLoadRequest(model_name="digits")
                    path = f"{V2}/RepositoryModelLoad"
                    await channel.unary_unary(path)(load.SerializeToString(), timeout=LIMIT_S)
                    told = await ask(channel, np.arange(3))
                    assert told.version == str(version)  # from the next request on
            growth = resident() - before
            assert growth < 100 * 2**20, f"{growth / 2**20:.1f} MiB"
            assert compilations.others == ready
            assert counted(server.telemetry, "compiles") == RELOADS + 1
            assert list(await index_of(channel)) == [str(RELOADS + 1)]
            assert counted(server.telemetry, "model_loads", result="ok") == RELOADS + 1
            assert counted(server.telemetry, "requests", code="OK") >= len(took)
            assert {labels[-1] for labels in _requests(server)} == {"OK"}
            return took

    try:
        took = asyncio.run(main())
    finally:
        compilations.end()
    assert len(answered) > RELOADS / 2
    # One bucket, without rejection: one program a load; the first also warms what loads share.
    assert list(compilations.loading.values())[1:] == [1] * RELOADS
    if SOAK:
        middle, high, longest = np.quantile(took, [0.5, 0.99, 1])
        with capsys.disabled():
            print(f"\n{len(took)} requests over {RELOADS} reloads: p50 {1e3 * middle:.1f} ms, ")
            print(f"p99 {1e3 * high:.1f} ms, longest {1e3 * longest:.1f} ms")


def _requests(server: Running) -> list[list[str]]:
    return [
        labels for name, labels, _ in server.telemetry.snapshot()["counters"] if name == "requests"
    ]


# Files that are no models -----------------------------------------------------------------------


def forged(path: Path, layer: Layer, spec: dict[str, Any], kind: str = "model") -> None:
    """A file whose checksum is right, whatever else is wrong."""
    full = {**SPEC._asdict(), **spec}
    header = {"spec": full, "training": {}, "data": {}, "metrics": {}}
    checkpoint.write(path, kind, (layer,), header)


def header_of(path: Path, length: int, content: bytes) -> None:
    path.write_bytes(struct.pack("<Q", length) + content)


_DEEP = b"[" * 100_000
_NAN = Layer(np.full((10, 784), np.nan, np.float32), np.zeros(10, np.float32))
_ONES = Layer(np.ones((10, 784), np.float32), np.zeros(10, np.float32))
_OF_16 = Layer(np.ones((10, 16), np.float32), np.zeros(10, np.float32))
DAMAGES: dict[str, Callable[[Path, bytes], Any]] = {
    "empty": lambda path, good: path.write_bytes(b""),
    "noise": lambda path, good: path.write_bytes(np.random.default_rng(0).bytes(40_000)),
    "half": lambda path, good: path.write_bytes(good[: len(good) // 2]),
    "cut": lambda path, good: path.write_bytes(good[:-1]),
    "longer": lambda path, good: path.write_bytes(good + b"\0"),
    "flipped": lambda path, good: path.write_bytes(good[:-9] + b"\x01" + good[-8:]),
    "header of 4 EiB": lambda path, good: header_of(path, 2**62, good),
    "header of 90 MB": lambda path, good: header_of(path, 90_000_000, good),
    "header too deep": lambda path, good: header_of(path, len(_DEEP), _DEEP),
    "header of spaces": lambda path, good: header_of(path, 2**20, b" " * 2**20),
    "no header": lambda path, good: header_of(path, 2, b"{}"),
    "another program's": lambda path, good: header_of(path, 20, b'{"__metadata__":{}}  '),
    "JSON": lambda path, good: path.write_text(json.dumps({"spec": SPEC._asdict()})),
    "a state of training": lambda path, good: forged(path, _ONES, {}, "state"),
    "wrong shape": lambda path, good: forged(path, _OF_16, {}),
    "of 16 pixels": lambda path, good: forged(path, _OF_16, {"sizes": [16, 10]}),
    "enormous": lambda path, good: forged(path, _ONES, {"sizes": [784, 10**12, 10]}),
    "sizes of words": lambda path, good: forged(path, _ONES, {"sizes": ["784", None]}),
    "unknown family": lambda path, good: forged(path, _ONES, {"family": "forest"}),
    "wrong family": lambda path, good: forged(
        path, _ONES, {"family": "ensemble", "members": 10**9}
    ),
    "not a number": lambda path, good: forged(path, _NAN, {}),
    "reads nothing": lambda path, good: forged(path, _ONES, {}),
    "folder": lambda path, good: path.mkdir(),
    "link to itself": lambda path, good: path.symlink_to(path.name),
    "pipe": lambda path, good: os.mkfifo(path),
    "link to nothing": lambda path, good: path.symlink_to("nowhere"),
    "link to a device": lambda path, good: path.symlink_to("/dev/zero"),
}


def swapped(path: Path) -> None:
    """Takes away what is there."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def test_files_that_are_no_models_are_told_of_and_the_old_one_goes_on(
    tmp_path: Path,
    networks: tuple[Network, Network],
    quick_loads: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = networks[1].file

    async def told_of(
        server: Running, channel: grpc.aio.Channel, what: str, version: str, state: str
    ) -> None:
        """After a look the index, the log and the metric say what is wrong, and answers go on."""
        failed = counted(server.telemetry, "model_loads", result="failed")
        caplog.clear()
        await server.registry.refresh()
        assert (await ask(channel, np.arange(5))).agrees(np.arange(5), networks[0])
        found, reason = (await index_of(channel))[version]
        assert found == state, what
        assert str(tmp_path) in reason and len(reason) < 1000, what
        assert "the log says why" not in reason, what  # it is a fault that was thought of
        assert reason in caplog.text, what
        assert counted(server.telemetry, "model_loads", result="failed") == failed + 1, what
        caplog.clear()
        await server.registry.refresh()  # the same bad file is not read again
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    async def main() -> None:
        put(tmp_path, "digits", 1, networks[0].file)
        new = put(tmp_path, "digits", 2)
        async with serving_folder(tmp_path) as (server, channel):
            for what, damage in DAMAGES.items():  # as a new version
                swapped(new)
                damage(new, good)
                await told_of(server, channel, what, "2", "UNAVAILABLE")
                health = await channel.unary_unary(f"{V2}/ServerReady")(b"")
                assert pb.ServerReadyResponse.FromString(health).ready
            swapped(new)
            aside = tmp_path / "store"
            aside.write_bytes(networks[0].file)
            new.symlink_to(aside)  # a link to a good file is a good file
            await server.registry.refresh()
            assert await index_of(channel) == {"2": ("READY", "")}
            for what, damage in DAMAGES.items():  # in the place of what serves
                swapped(new)
                damage(new, good)
                await told_of(server, channel, what, "2", "READY")
            swapped(new)
            new.write_bytes(good)
            await server.registry.refresh()
            assert await index_of(channel) == {"2": ("READY", "")}
            assert (await ask(channel, np.arange(5))).agrees(np.arange(5), networks[1])

    asyncio.run(main())


def test_a_file_that_is_written_slowly_in_place_serves_when_it_is_whole(
    tmp_path: Path, networks: tuple[Network, Network], quick_loads: None
) -> None:
    seen: list[int] = []  # which network answered

    def check(rows: np.ndarray, told: Told) -> None:
        seen.append([told.agrees(rows, one) for one in networks].index(True))

    async def main() -> None:
        path = put(tmp_path, "digits", 1, networks[0].file)
        async with serving_folder(tmp_path, watch_s=0.03) as (server, channel):
            blob, step = networks[1].file, len(networks[1].file) // 8 + 1
            async with callers(channel, check):
                with path.open("wb", buffering=0) as file:  # which empties it
                    for start in range(0, len(blob), step):
                        await asyncio.sleep(0.06)
                        told = (await index_of(channel))["1"]
                        assert told[0] == "READY"
                        file.write(blob[start : start + step])
                half = len(seen)
                while (await index_of(channel))["1"][1] or not seen[-1]:
                    await asyncio.sleep(0.01)
            assert half and not any(seen[: half // 2])
            assert seen == sorted(seen) and seen[-1] == 1  # never back
            assert counted(server.telemetry, "model_loads", result="failed") > 0

    asyncio.run(main())


def test_a_load_whose_caller_leaves_is_finished_all_the_same(tmp_path: Path) -> None:
    free, entered = threading.Event(), threading.Event()

    def slow(found: Found) -> ServedModel:
        entered.set()
        assert free.wait(LIMIT_S)
        return stub_of(found)

    async def main() -> None:
        free.set()
        put(tmp_path, "digits", 1)
        async with serving_folder(tmp_path, slow) as (server, channel):
            for version, leave in ((2, True), (3, False)):
                entered.clear(), free.clear()
                put(tmp_path, "digits", version)
                load = pb.RepositoryModelLoadRequest(model_name="digits").SerializeToString()
                calling = channel.unary_unary(f"{V2}/RepositoryModelLoad")(
                    load, timeout=LIMIT_S if leave else 0.1
                )
                ended = asyncio.ensure_future(_ended(calling))
                assert await asyncio.to_thread(entered.wait, LIMIT_S)
                if leave:
                    calling.cancel()
                await asyncio.sleep(0.15)
                free.set()
                await server.registry.refresh()  # as the watch does
                assert await index_of(channel) == {str(version): ("READY", "")}
                assert server.registry.choose("digits").version == str(version)
                await ended

    asyncio.run(main())


async def _ended(calling: Any) -> None:
    try:
        await calling
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        return
