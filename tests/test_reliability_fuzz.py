"""Random, mutated and cut messages on every method of both APIs: no crash, no INTERNAL, no leak.

Short by default; JAXNN_SOAK=1 (`make soak`) sends a million messages to each API.
"""

import asyncio
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from hostile import LIMIT_S, SOAK, Device, Mutator, Outcome, Seam, put, resident, seam, stub_of
from PIL import Image
from serving import images_of, pixels, serving, stub_model

from jaxnn.data import wav
from service.outputs import packed
from service.pb import digits_pb2
from service.pb import open_inference_grpc_pb2 as pb
from service.rpc import Api, Method
from service.status import RETRY_HINT, STATUS

MESSAGES = 1_000_000 if SOAK else 3_000  # to each API
OVER_GRPC = 20_000 if SOAK else 300  # to each API
GROWTH = 8 * 2**20  # bytes that the second half may leave in memory: 1.3 MiB at most were seen
LEAK = GROWTH * 2 // (MESSAGES // 2)  # bytes a message: what the control leaks
SENTENCE = 1000  # characters of an error: gRPC's clients take 8 kB of metadata
CODES = {"OK", *STATUS.values()}  # INTERNAL and UNKNOWN are not in the table


def picture(kind: str) -> bytes:
    """A file of a "1"."""
    file = io.BytesIO()
    paper = np.full((12, 12), 255, np.uint8)
    paper[3:-3, 6:8] = 0
    Image.fromarray(paper).save(file, kind)
    return file.getvalue()


def recording() -> bytes:
    """A file of a word, as short as can be: a sound takes milliseconds to prepare."""
    return wav.encode(np.sin(np.arange(300)))


KINDS = ("png", "jpeg", "webp", "bmp", "tiff", "gif")


def v1_seeds() -> dict[str, list[Message]]:
    encoded = [digits_pb2.EncodedImages(images=[picture(kind)]) for kind in KINDS]
    of_pixels = [
        pixels(1, name="a"),
        pixels(*range(6)),
        digits_pb2.ClassifyRequest(pixels=bytes(784), model_name="stub", model_version="1"),
        digits_pb2.ClassifyRequest(pixels=bytes(784), priority=2, report=True, skip_rejection=True),
    ]
    sounds = [digits_pb2.Sound(samples=recording()[44:], sample_rate=rate) for rate in (0, 16_000)]
    of_words = [
        digits_pb2.ClassifyRequest(**{field: value}, model_name="speech")
        for field, value in (
            ("features", bytes(3200)),
            ("recordings", digits_pb2.Recordings(files=[recording()])),
            ("sounds", digits_pb2.Sounds(sounds=sounds)),
        )
    ]
    # Pictures take milliseconds, so they are the smaller part.
    asked = [*4 * of_pixels, *(digits_pb2.ClassifyRequest(encoded=one) for one in encoded)]
    asked += of_words
    return {
        "Classify": asked,
        "ClassifyStream": asked,
        "GetModel": [
            digits_pb2.GetModelRequest(),
            digits_pb2.GetModelRequest(name="stub", version="1"),
        ],
        "ListModels": [digits_pb2.ListModelsRequest()],
    }


def infer(datatype: str, shape: list[int], raw: bytes = b"", **fields: Any) -> pb.ModelInferRequest:
    name = "pictures" if datatype == "BYTES" else "images"
    request = pb.ModelInferRequest(model_name="stub", id="7", **fields)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw:
        request.raw_input_contents.append(raw)
    return request


def heard(name: str, datatype: str, shape: list[int], raw: bytes) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="speech")
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)
    request.parameters["sample_rate"].int64_param = 8000
    return request


def v2_seeds() -> dict[str, list[Message]]:
    typed = infer("UINT8", [1, 784], model_version="1")
    typed.inputs[0].contents.uint_contents.extend([7] * 784)
    floats = infer("FP32", [1, 28, 28, 1])
    floats.inputs[0].contents.fp32_contents.extend([0.5] * 784)
    full = infer("FP32", [2, 28, 28], np.zeros((2, 784), "<f4").tobytes())
    full.parameters["priority"].uint64_param = 1
    full.parameters["timeout"].int64_param = 10**9
    full.parameters["report"].bool_param = True
    full.outputs.add(name="labels")
    full.outputs.add(name="scores").parameters["classification"].int64_param = 3
    asked: list[Message] = [
        infer("UINT8", [6, 784], images_of(range(6)).tobytes()),  # large: not parsed as a whole
        infer("BYTES", [1], packed([picture("png")])),
        *(typed, floats, full),
        heard("features", "UINT8", [2, 3, 40], bytes([9]) * 240),
        heard("features", "UINT8", [1, 1600], bytes(1600)),
        heard("audio", "FP32", [1, 300], np.sin(np.arange(300)).astype("<f4").tobytes()),
        heard("audio", "INT16", [2, 150], recording()[44:]),
        heard("recordings", "BYTES", [1], packed([recording()])),
    ]
    of_model = {
        method: [kind(), kind(name="stub"), kind(name="stub", version="1")]
        for method, kind in (
            ("ModelReady", pb.ModelReadyRequest),
            ("ModelMetadata", pb.ModelMetadataRequest),
            ("ModelConfig", pb.ModelConfigRequest),
            ("ModelStatistics", pb.ModelStatisticsRequest),
        )
    }
    return {
        "ModelInfer": asked,
        "ModelStreamInfer": asked,
        "ServerLive": [pb.ServerLiveRequest()],
        "ServerReady": [pb.ServerReadyRequest()],
        "ServerMetadata": [pb.ServerMetadataRequest()],
        **of_model,
        "RepositoryIndex": [pb.RepositoryIndexRequest(ready=True)],
        # A model of its own, so that the others stay.
        "RepositoryModelLoad": [pb.RepositoryModelLoadRequest(model_name="victim")],
        "RepositoryModelUnload": [pb.RepositoryModelUnloadRequest(model_name="victim")],
    }


@dataclass
class Run:
    """What became of the messages to one API."""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)  # method, code
    growth: int = 0  # bytes of memory, over the second half

    def judge(self, method: Method, outcome: Outcome) -> None:
        """Nothing but the table's codes, in short sentences of one line."""
        assert outcome.code in CODES, outcome.sentence
        assert len(outcome.sentence) <= SENTENCE and outcome.sentence.isprintable(), outcome
        for answer in outcome.answers if method.on_error else ():
            told = pb.ModelStreamInferResponse.FromString(answer).error_message
            assert "the server failed" not in told and len(told) <= SENTENCE
        self.codes[method.name, outcome.code] += 1

    def check(self, api: Api) -> None:
        """Every method has answered something; the mutations are neither too mild nor too wild."""
        ends = Counter(code for _, code in self.codes.elements())
        total = ends.total()
        assert {method.name for method in api.methods} == {
            method for method, code in self.codes if code == "OK"
        }
        assert ends["OK"] > total / 10 and ends["INVALID_ARGUMENT"] > total / 10
        assert ends["NOT_FOUND"] > 0


def mutator(api: Api) -> Mutator:
    seeds = v1_seeds() if api.short == "v1" else v2_seeds()
    return Mutator(seeds, {method: type(some[0]) for method, some in seeds.items()})


async def fuzz(server: Seam, api: Api, leak: int = 0) -> Run:
    """Sends the messages; `leak` bytes of each are kept, as a server with a fault would."""
    found, source, kept = Run(), mutator(api), list[bytes]()
    heavy = api.methods[:2]  # those that classify
    before = 0
    for number in range(MESSAGES):
        if number == MESSAGES // 2:
            before = resident()
        method = source.random.choice((*heavy, source.random.choice(api.methods)))
        count = source.random.randint(1, 3) if method.stream else 1
        messages = [source.message(method.name) for _ in range(count)]
        ends = str(source.random.random() < 0.5).lower()
        found.judge(method, await server.send(api, method, messages, ("triton_grpc_error", ends)))
        if leak:
            kept.append(b"x" * leak)
    found.growth = resident() - before
    return found


def fuzzed(folder: Path, index: int, leak: int = 0) -> tuple[Run, Api]:
    """One API under fire, and well afterwards."""
    for name in ("stub", "victim", "speech"):
        put(folder, name, 1)

    async def main() -> tuple[Run, Api]:
        settings: dict[str, Any] = {
            "repository": folder,
            "name": "stub",
            "model_control": True,
            "max_images_per_request": 8,
            "inline_images": 4,
            "max_picture_bytes": 2**20,
        }
        async with asyncio.timeout(LIMIT_S), seam(stub_of, **settings) as server:
            api = server.apis[index]
            found = await fuzz(server, api, leak)
            good = await server.send(server.apis[0], server.apis[0].methods[0], [_GOOD])
            response = digits_pb2.ClassifyResponse.FromString(good.answers[0])
            assert list(response.labels) == [3, 1, 4]
            gauges = server.telemetry.snapshot()["gauges"]
            assert gauges["queue_rows"] == 0
            return found, api

    return asyncio.run(main())


_GOOD = pixels(3, 1, 4).SerializeToString()


@pytest.mark.parametrize("index", [0, 1], ids=["v1", "v2"])
def test_no_message_breaks_an_api_and_none_stays_in_memory(tmp_path: Path, index: int) -> None:
    found, api = fuzzed(tmp_path, index)
    found.check(api)
    assert found.growth < GROWTH, f"{found.growth / 2**20:.1f} MiB"


def test_the_check_of_memory_sees_a_leak(tmp_path: Path) -> None:
    found, _ = fuzzed(tmp_path, 1, LEAK)
    assert found.growth > GROWTH, f"{found.growth / 2**20:.1f} MiB"


def test_long_names_come_back_as_short_sentences(tmp_path: Path) -> None:
    """Else the status would not fit what gRPC's clients take, and they would see another code."""
    put(tmp_path, "stub", 1)
    name, version = "n" * 20_000, "9" * 20_000
    asked: dict[str, list[Message]] = {
        "Classify": [
            digits_pb2.ClassifyRequest(pixels=bytes(784), model_name=name),
            digits_pb2.ClassifyRequest(pixels=bytes(784), model_version=version),
        ],
        "GetModel": [
            digits_pb2.GetModelRequest(name=name),
            digits_pb2.GetModelRequest(version=version),
        ],
        "ModelInfer": [infer("UINT8", [1, 784], bytes(784), model_version=version)],
        "ModelConfig": [pb.ModelConfigRequest(name=name)],
        "RepositoryModelUnload": [pb.RepositoryModelUnloadRequest(model_name=name)],
    }

    async def main() -> None:
        settings: dict[str, Any] = {"repository": tmp_path, "name": "stub", "model_control": True}
        async with seam(stub_of, **settings) as server:
            for api in server.apis:
                for method in api.methods:
                    for message in asked.get(method.name, ()):
                        outcome = await server.send(api, method, [message.SerializeToString()])
                        assert outcome.code == "NOT_FOUND"
                        assert len(outcome.sentence) < SENTENCE / 2  # so its end is not cut off

    asyncio.run(main())


async def over_grpc(channel: grpc.aio.Channel, api: Api, count: int) -> Run:
    """Some of the messages, ten at a time, as bytes."""
    source, found = mutator(api), Run()

    async def one() -> None:
        method = source.random.choice(api.methods)
        path = f"/{api.service}/{method.name}"
        answers = []
        try:
            if method.stream:
                messages = [source.message(method.name) for _ in range(2)]
                async for answer in channel.stream_stream(path)(iter(messages), timeout=LIMIT_S):
                    answers.append(answer)  # noqa: PERF401 - also those before an error
            else:
                message = source.message(method.name)
                answers.append(await channel.unary_unary(path)(message, timeout=LIMIT_S))
            outcome = Outcome("OK", "", answers)
        except grpc.aio.AioRpcError as error:
            outcome = Outcome(error.code().name, error.details() or "", answers)
            hinted = RETRY_HINT in dict(error.trailing_metadata() or ())
            assert hinted == (error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
        found.judge(method, outcome)

    async def several() -> None:
        for _ in range(count // 10):
            await one()

    await asyncio.gather(*(several() for _ in range(10)))
    return found


def test_the_same_over_grpc() -> None:
    device = Device()

    async def main() -> None:
        async with (
            asyncio.timeout(LIMIT_S),
            serving(stub_model(device), max_images_per_request=8) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            for index in (0, 1):
                api = _apis()[index]
                found = await over_grpc(channel, api, OVER_GRPC)
                codes = Counter(code for _, code in found.codes.elements())
                assert codes["OK"] > codes.total() / 10 < codes["INVALID_ARGUMENT"], codes
            answer = await channel.unary_unary("/jaxnn.v1.DigitClassifier/Classify")(_GOOD)
            assert list(digits_pb2.ClassifyResponse.FromString(answer).labels) == [3, 1, 4]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/jaxnn.v1.DigitClassifier/NoSuchMethod")(_GOOD)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(main())


def _apis() -> tuple[Api, ...]:
    """The tables of methods; nothing in them is called."""
    from service.config import ServiceConfig
    from service.digits import DigitClassifier
    from service.inference import Inference

    nothing: Any = None
    config = ServiceConfig()
    return DigitClassifier(nothing, config).api, Inference(nothing, config, lambda: True).api
