"""Messages that mean harm, an edge to send them to without a network, and what they may cost."""

import asyncio
import ctypes
import gc
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from serving import first_pixel, stub_model
from wires import Wire

from service.config import ServiceConfig
from service.dataplane import DataPlane
from service.digits import DigitClassifier
from service.edge import Edge
from service.gate import Gate
from service.inference import Inference
from service.registry import Registry
from service.repository import Found, ServedModel
from service.rpc import Api, Method
from service.status import Refused
from service.telemetry import Telemetry

SOAK = bool(os.environ.get("JAXNN_SOAK"))
LIMIT_S = 7200.0 if SOAK else 30.0  # for a test that hangs
PAGE = os.sysconf("SC_PAGE_SIZE")
FIELD = FieldDescriptor
_WIDTHS = {FIELD.CPPTYPE_INT32: 32, FIELD.CPPTYPE_INT64: 64}
_UNSIGNED = {FIELD.CPPTYPE_UINT32: 32, FIELD.CPPTYPE_UINT64: 64}
_FLOATS = (0.0, -1.0, 0.5, 1e38, float("inf"), float("nan"))
_WORDS = ("", "victim", "1", "images", "pictures", "UINT8", "FP32", "BYTES", "scores", "labels")
_TEXTS = (
    *_WORDS,
    *("speech", "features", "audio", "recordings", "INT16", "sample_rate"),
    "priority",
    "timeout",
    "classification",
    "report",
    "x" * 3000,
    "\0\n",
    "\U0001f600",
)


class Outcome(NamedTuple):
    """How a call ended."""

    code: str  # "OK", or that of a status
    sentence: str
    answers: list[bytes]  # one, or those of a stream


class Seam(NamedTuple):
    """Both APIs behind the edge, without what would carry them."""

    apis: tuple[Api, ...]
    edge: Edge
    plane: DataPlane
    telemetry: Telemetry

    async def send(
        self, api: Api, method: Method, messages: Sequence[bytes], *metadata: tuple[str, str]
    ) -> Outcome:
        """Calls a method: with one message, or a stream of them."""
        wire, answers = Wire(*metadata), list[bytes]()
        try:
            if method.stream:
                async for answer in self.edge.stream(api, method, _each(messages), wire):
                    answers.append(answer)
            else:
                answers.append(await self.edge.unary(api, method, messages[0], wire))
        except Refused as refused:
            return Outcome(refused.status.code, refused.status.sentence, answers)
        return Outcome("OK", "", answers)


async def _each(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


@asynccontextmanager
async def seam(load: Callable[[Found], ServedModel], **settings: Any) -> AsyncIterator[Seam]:
    """Both APIs behind an edge, on this loop."""
    config = ServiceConfig(**settings)
    with ThreadPoolExecutor(1) as compute, ThreadPoolExecutor(1) as decode:
        registry, telemetry = Registry(config, load), Telemetry()
        await registry.refresh()
        plane = DataPlane(registry, config, telemetry, compute, decode)
        apis = DigitClassifier(plane, config).api, Inference(plane, config, lambda: True).api
        yield Seam(apis, Edge(Gate(64), telemetry), plane, telemetry)


class Device:
    """Labels by the first pixel; keeps what it computed, and computes while it may."""

    def __init__(self) -> None:
        self.seen: list[int] = []  # first pixels
        self.entered, self.free = threading.Semaphore(0), threading.Event()
        self.free.set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.free.wait(LIMIT_S)
        self.seen += images[:, 0].tolist()
        return first_pixel(images)

    async def busy(self) -> None:
        """Returns when a batch is being computed."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=LIMIT_S)


def stub_of(found: Found) -> ServedModel:
    """A model without a network for any file; one that hears where it is called speech."""
    spec = {"family": "lstm", "sizes": (1600, 2, 10), "architecture": "speech"}
    return stub_model(
        name=found.name, version=found.version, **(spec if found.name == "speech" else {})
    )


def put(folder: Path, name: str, version: int, content: bytes = b"") -> Path:
    """A file in a repository, put there in one step."""
    path = folder / name / str(version) / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name("aside")
    aside.write_bytes(content)
    return aside.replace(path)


def counted(telemetry: Telemetry, name: str, **labels: str) -> float:
    """A counter, summed over all series that have these labels."""
    from service.telemetry import BY_NAME

    total = 0.0
    for found, values, value in telemetry.snapshot()["counters"]:
        if found == name:
            given = dict(zip(BY_NAME[name].labels, values, strict=True))
            total += value * (given.items() >= labels.items())
    return total


def gauge(telemetry: Telemetry, name: str) -> float:
    """A gauge, now."""
    return float(telemetry.snapshot()["gauges"][name])


def resident() -> int:
    """Bytes of memory that this process needs, once what is free has gone back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim:
        trim(0)  # else what earlier tests freed would hide a leak
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Mutator:
    """Bad messages, made of good ones; the same for the same seed."""

    def __init__(self, seeds: dict[str, list[Message]], kinds: dict[str, type[Message]]) -> None:
        """Take by method some good messages, and what kind they are."""
        self.random = random.Random(7)  # noqa: S311 - chance, no secret
        self._seeds = {
            name: [one.SerializeToString() for one in some] for name, some in seeds.items()
        }
        self._all = [data for some in self._seeds.values() for data in some]
        self._kinds = kinds
        self._ways = (
            *(self._noise, self._cut, self._flipped, self._moved, self._joined, self._of_another),
            *(self._changed, self._changed, self._made, self._good),
        )

    def message(self, method: str) -> bytes:
        """The next message for a method."""
        return self.random.choice(self._ways)(method)

    def _good(self, method: str) -> bytes:
        return self.random.choice(self._seeds[method])

    def _noise(self, method: str) -> bytes:
        return self.random.randbytes(self.random.choice((0, 1, 2, 9, 100, 2000)))

    def _cut(self, method: str) -> bytes:
        data = self._good(method)
        return data[: self.random.randint(0, len(data))]

    def _flipped(self, method: str) -> bytes:
        data = bytearray(self._good(method))
        head = min(len(data), 60)  # where the tags and lengths are
        for _ in range(self.random.randint(1, 4) * bool(data)):
            place = self.random.randrange(self.random.choice((head, len(data))))
            data[place] ^= 1 << self.random.randrange(8)
        return bytes(data)

    def _moved(self, method: str) -> bytes:
        """A piece doubled, taken out, or put in from elsewhere."""
        data = self._good(method)
        start, stop = sorted(self.random.randint(0, len(data)) for _ in range(2))
        piece = self.random.choice((data[start:stop], b"", self.random.choice(self._all)[:50]))
        return data[:stop] + piece + data[self.random.choice((start, stop)) :]

    def _joined(self, method: str) -> bytes:
        return self._good(method) + self.random.choice(self._all)  # two messages are one merged

    def _of_another(self, method: str) -> bytes:
        return self.random.choice(self._all)

    def _changed(self, method: str) -> bytes:
        """A good message with some field set to something odd."""
        message = self._kinds[method].FromString(self._good(method))
        for _ in range(self.random.randint(1, 3)):
            self._disturb(message)
        return message.SerializeToString()

    def _made(self, method: str) -> bytes:
        message = self._kinds[method]()
        for _ in range(self.random.randint(0, 8)):
            self._disturb(message)
        return message.SerializeToString()

    def _disturb(self, message: Message, depth: int = 0) -> None:
        fields = message.DESCRIPTOR.fields
        if not fields:
            return
        field = self.random.choice(fields)
        many = field.is_repeated
        value: Any = getattr(message, field.name)
        if self.random.random() < 0.15:
            message.ClearField(field.name)
        elif _is_map(field):
            self._disturb_entry(field.message_type, value, depth)
        elif field.message_type and depth < 4:
            one = self.random.choice(value) if many and value and self._lot() else value
            self._disturb(value.add() if one is value and many else one, depth + 1)
        elif field.message_type is None and many:
            value.extend(self._value(field) for _ in range(self.random.choice((1, 1, 2, 70))))
            del value[2000:]
        elif field.message_type is None:
            setattr(message, field.name, self._value(field))

    def _disturb_entry(self, entry: Descriptor, value: Any, depth: int) -> None:
        key = self._value(entry.fields_by_name["key"])
        if entry.fields_by_name["value"].message_type:
            self._disturb(value[key], depth + 1)
        else:
            value[key] = self._value(entry.fields_by_name["value"])

    def _value(self, field: FieldDescriptor) -> Any:
        choose, kind = self.random.choice, field.cpp_type
        if kind in _WIDTHS:
            most = 2 ** (_WIDTHS[kind] - 1)
            return choose((0, 1, -1, 2, 3, 8, 28, 40, 784, 1600, most - 1, -most))
        if kind in _UNSIGNED:
            return choose((0, 1, 2, 3, 255, 256, 8000, 2 ** _UNSIGNED[kind] - 1))
        if kind in (FIELD.CPPTYPE_FLOAT, FIELD.CPPTYPE_DOUBLE):
            return choose(_FLOATS)
        if kind == FIELD.CPPTYPE_BOOL:
            return self._lot()
        if kind == FIELD.CPPTYPE_ENUM:
            return choose(field.enum_type.values).number
        if field.type == FIELD.TYPE_BYTES:
            sizes = (783, 784, 785, 1599, 1600, 1601, 8 * 784)
            return choose((b"", b"\xff", b"\xff" * 4, *map(bytes, sizes)))
        return choose(_TEXTS)

    def _lot(self) -> bool:
        return self.random.random() < 0.5


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
