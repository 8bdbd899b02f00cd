"""The Open Inference Protocol as functions from bytes to bytes, with a data plane that pretends."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.checkpoint import ModelFile
from jaxnn.errors import JaxnnError
from jaxnn.models import Spec
from service.config import ServiceConfig
from service.dataplane import Answer
from service.errors import Forbidden, InvalidRequest, NoSuchModel, Overloaded, Unsupported
from service.inference import Inference
from service.outputs import packed
from service.pb import open_inference_grpc_pb2 as pb
from service.preparing import Unprepared
from service.registry import Entry
from service.repository import ServedModel
from service.rpc import Api, Call, Method
from service.telemetry import Telemetry


class Wire:
    """What would carry a call."""

    def __init__(self, **metadata: str) -> None:
        self.sent = metadata

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return list(self.sent.items())

    def time_remaining(self) -> None:
        return None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


def model(version: str, name: str = "stub") -> ServedModel:
    spec = Spec(sizes=(784, 30, 10))
    file = ModelFile(None, spec, {}, {}, {}, 1.0, None, version * 64)
    return ServedModel(name, version, file, 13002, {"test_accuracy": 0.5}, lambda *_: np.zeros(1))


class Registry:
    """Two ready versions of "stub", one of another model that is not, and what was asked of it."""

    def __init__(self) -> None:
        self.models = {version: model(version) for version in ("1", "2")}
        self.asked: list[str] = []

    def choose(self, name: str, version: str) -> ServedModel:
        if name not in ("", "stub") or version not in ("", *self.models) or not self.models:
            raise NoSuchModel("not here")
        return self.models[version or max(self.models)]

    def entries(self) -> list[Entry]:
        ready = [
            Entry("stub", version, "READY", "", version == max(self.models), model)
            for version, model in self.models.items()
        ]
        return [Entry("bad", "7", "UNAVAILABLE", "its file is cut", False, None), *ready]

    async def load(self, name: str) -> None:
        self.asked.append(f"load {name}")

    async def unload(self, name: str) -> None:
        self.asked.append(f"unload {name}")


class Plane:
    """Labels an image by its first pixel mod 10 and rejects it by its second; keeps what it got."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.telemetry = Telemetry(lambda: 8.0)
        self.got: dict[str, Any] = {}
        self.error: Exception | None = None

    async def classify(
        self, call: Call, images: np.ndarray, chosen: ServedModel, **options: Any
    ) -> Answer:
        if self.error:
            raise self.error
        assert images.dtype == np.uint8 and images.shape[1:] == (784,) and len(images)
        self.got, self.images = options, images
        call.rows, call.model, call.version = len(images), chosen.name, chosen.version
        call.batch_rows, call.released = 2 * len(images), "idle"
        call.queue, call.prepare, call.assembly, call.compute = 1e-3, 2e-3, 3e-3, 4e-3
        labels = (images[:, 0] % 10).astype(np.float32)
        scores = np.eye(10, dtype=np.float32)[images[:, 0] % 10] * np.float32(0.75)
        rejected = images[:, 1] > 0
        return Answer(labels, scores, labels / 10, rejected & options["rejection"], chosen)

    async def prepared(self, call: Call, given: Unprepared) -> np.ndarray:
        files = list(given.parts)
        if b"" in files:
            raise InvalidRequest(f"{given.what} {files.index(b'')} is empty")
        images = np.zeros((len(files), 784), np.uint8)
        images[:, 0] = [file[0] for file in files]
        return images


class Server:
    """The API over a pretended plane, called by name and message."""

    def __init__(self, **settings: Any) -> None:
        self.plane, self.taking = Plane(), True
        self.config = ServiceConfig(max_images_per_request=8, **settings)
        self.api: Api = Inference(self.plane, self.config, lambda: self.taking).api

    def method(self, name: str) -> Method:
        (found,) = [method for method in self.api.methods if method.name == name]
        return found

    def raw(self, name: str, data: bytes, call: Call | None = None) -> bytes:
        call = call or Call("v2", name, Wire())
        running = self.method(name).handler(data, call)
        try:
            running.send(None)  # it waits for nothing here
        except StopIteration as done:
            return bytes(done.value)
        raise AssertionError("the handler waits for what nobody does")

    def __call__(self, method: str, /, **fields: Any) -> Any:
        kinds = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[method]
        request = getattr(pb, kinds.input_type.name)(**fields)
        data = self.raw(method, request.SerializeToString())
        return getattr(pb, kinds.output_type.name).FromString(data)


@pytest.fixture
def server() -> Server:
    return Server()


def pixels(*labels: int, **fields: Any) -> pb.ModelInferRequest:
    """A raw request for images that are labelled so; the last one is rejected."""
    images = np.zeros((len(labels), 784), np.uint8)
    images[:, 0] = labels
    images[-1, 1] = 1
    request = pb.ModelInferRequest(model_name="stub", **fields)
    request.inputs.add(name="images", datatype="UINT8", shape=[len(labels), 784])
    request.raw_input_contents.append(images.tobytes())
    return request


def infer(server: Server, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    data = server.raw("ModelInfer", request.SerializeToString())
    return pb.ModelInferResponse.FromString(data)


def ask(request: pb.ModelInferRequest, *outputs: str) -> pb.ModelInferRequest:
    for name in outputs:
        request.outputs.add(name=name)
    return request


def values(response: pb.ModelInferResponse) -> dict[str, list[Any]]:
    """The raw outputs by name, as lists."""
    dtypes = {"INT64": "<i8", "FP32": "<f4", "BOOL": "?"}
    return {
        output.name: np.frombuffer(raw, dtypes[output.datatype]).reshape(output.shape).tolist()
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def test_every_method_of_the_service_is_served(server: Server) -> None:
    described = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert (server.api.service, server.api.short) == ("inference.GRPCInferenceService", "v2")
    assert {method.name for method in server.api.methods} == set(described.methods_by_name)
    assert [method.name for method in server.api.methods if method.stream] == ["ModelStreamInfer"]
    control = {method.name for method in server.api.methods if method.control}
    assert control == {"RepositoryModelLoad", "RepositoryModelUnload"}


def test_a_raw_request_gets_every_output_raw(server: Server) -> None:
    response = infer(server, pixels(3, 4, id="mine"))
    assert (response.model_name, response.model_version, response.id) == ("stub", "2", "mine")
    found = values(response)
    assert list(found) == ["labels", "scores", "confidence", "rejected"]
    assert found["labels"] == [3, 4]
    assert found["scores"] == (np.eye(10)[[3, 4]] * 0.75).tolist()
    assert found["confidence"] == pytest.approx([0.3, 0.4])
    assert found["rejected"] == [False, True]
    assert not response.parameters
    assert server.plane.got == {"rejection": True, "priority": 0, "timeout": None}


def test_many_images_are_not_copied(server: Server) -> None:
    labels = [1, 2, 3, 4, 5, 6, 7, 8]
    data = pixels(*labels, id="many").SerializeToString()
    response = pb.ModelInferResponse.FromString(server.raw("ModelInfer", data))
    assert values(response)["labels"] == labels and response.id == "many"
    assert np.shares_memory(server.plane.images, np.frombuffer(data, np.uint8))


def test_a_typed_request_gets_typed_outputs(server: Server) -> None:
    request = pixels(5)
    contents = request.inputs[0].contents.uint_contents
    contents.extend(request.raw_input_contents[0])
    request.ClearField("raw_input_contents")
    response = infer(server, request)
    assert not response.raw_output_contents
    contents = {output.name: output.contents for output in response.outputs}
    assert list(contents["labels"].int64_contents) == [5]
    assert list(contents["scores"].fp32_contents) == [0.75 * (i == 5) for i in range(10)]
    assert list(contents["confidence"].fp32_contents) == pytest.approx([0.5])
    assert list(contents["rejected"].bool_contents) == [True]


def test_rejection_is_left_out_where_nobody_asks(server: Server) -> None:
    response = infer(server, ask(pixels(1, 2), "confidence", "labels"))
    assert list(values(response)) == ["confidence", "labels"]
    assert server.plane.got["rejection"] is False
    infer(server, ask(pixels(1), "rejected"))
    assert server.plane.got["rejection"] is True


def test_pictures_are_prepared(server: Server) -> None:
    request = pb.ModelInferRequest()
    request.inputs.add(name="pictures", datatype="BYTES", shape=[2, 1])
    request.raw_input_contents.append(packed([b"\x07file", b"\x08file"]))
    assert values(infer(server, request))["labels"] == [7, 8]
    request.raw_input_contents[0] = packed([b"\x07file", b""])
    with pytest.raises(InvalidRequest, match="picture 1 is empty"):
        infer(server, request)


def test_classification_tells_the_largest_scores(server: Server) -> None:
    request = ask(pixels(6), "labels", "scores")
    request.outputs[1].parameters["classification"].int64_param = 2
    response = infer(server, request)
    _, classes = response.outputs
    assert (classes.datatype, list(classes.shape)) == ("BYTES", [1, 2])
    assert response.raw_output_contents[1] == packed([b"0.750000:6:6", b"0.000000:0:0"])


def test_parameters_reach_the_plane_and_a_report_comes_back(server: Server) -> None:
    request = pixels(1, model_version="1")
    request.parameters["priority"].uint64_param = 3
    request.parameters["timeout"].int64_param = 2_000_000
    request.parameters["report"].bool_param = True
    response = infer(server, request)
    assert response.model_version == "1"
    assert (server.plane.got["priority"], server.plane.got["timeout"]) == (2, 2.0)
    told = response.parameters
    assert {name: told[name].int64_param for name in told if name != "released"} == {
        "batch_images": 2,
        "queue_us": 1000,
        "prepare_us": 2000,
        "assembly_us": 3000,
        "compute_us": 4000,
    }
    assert told["released"].string_param == "idle"


def test_the_call_is_told_what_was_done(server: Server) -> None:
    call = Call("v2", "ModelInfer", Wire())
    server.raw("ModelInfer", pixels(1, id="x" * 500).SerializeToString(), call)
    assert call.request_id == "x" * 100 and call.encode > 0
    call.request_id = "before"
    server.raw("ModelInfer", pixels(1, id="x").SerializeToString(), call)
    assert call.request_id == "before"


def test_what_is_not_there_is_not_found(server: Server) -> None:
    for name in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
        for fields in ({"name": "other"}, {"name": "stub", "version": "3"}):
            with pytest.raises(NoSuchModel):
                server(name, **fields)
        with pytest.raises(NoSuchModel, match="over 200 letters") as caught:
            server(name, name="x" * 10**6)
        assert len(str(caught.value)) < 300
    with pytest.raises(NoSuchModel):
        infer(server, pixels(1, model_version="3"))
    with pytest.raises(NoSuchModel, match="over 200 letters"):
        infer(server, pixels(1, model_version="3" * 201))


@pytest.mark.parametrize("name", [m.name for m in Server().api.methods])
def test_bytes_that_are_no_message_are_refused(server: Server, name: str) -> None:
    with pytest.raises(InvalidRequest, match="no inference"):
        server.raw(name, b"\xff\xff\xff")


def test_the_server_says_whether_it_lives_and_takes_work(server: Server) -> None:
    assert server("ServerLive").live and server("ServerReady").ready
    assert server("ModelReady", name="stub").ready
    assert server("ModelReady", name="stub", version="1").ready
    assert not server("ModelReady", name="stub", version="3").ready
    assert not server("ModelReady", name="bad").ready
    server.taking = False
    assert server("ServerLive").live
    assert not server("ServerReady").ready and not server("ModelReady", name="stub").ready
    server.taking = True
    server.plane.registry.models = {}
    assert not server("ServerReady").ready and not server("ModelReady", name="stub").ready


def test_the_server_names_what_works(server: Server) -> None:
    told = server("ServerMetadata")
    assert told.name == "jaxnn" and told.version
    without = ["classification", "model_configuration", "parameters", "schedule_policy"]
    assert list(told.extensions) == [*without, "statistics"]
    assert "model_repository" in Server(model_control=True)("ServerMetadata").extensions


def test_metadata_describes_the_model(server: Server) -> None:
    told = server("ModelMetadata", name="stub", version="1")
    assert (told.name, list(told.versions), told.platform) == ("stub", ["1", "2"], "jax")
    assert [(t.name, t.datatype, list(t.shape)) for t in told.inputs] == [
        ("images", "UINT8", [-1, 784]),
        ("pictures", "BYTES", [-1]),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in told.outputs] == [
        ("labels", "INT64", [-1]),
        ("scores", "FP32", [-1, 10]),
        ("confidence", "FP32", [-1]),
        ("rejected", "BOOL", [-1]),
    ]
    assert dict(told.properties) == {
        "version": "1",
        "family": "mlp",
        "layer_sizes": "784,30,10",
        "activation": "sigmoid",
        "output": "sigmoid",
        "cost": "quadratic",
        "members": "1",
        "parameter_count": "13002",
        "rejects": "false",
        "sha256": "1" * 64,
        "metrics.test_accuracy": "0.5",
    }


def test_what_metadata_promises_is_what_infer_gives(server: Server) -> None:
    told = {t.name: (t.datatype, list(t.shape)[1:]) for t in server("ModelMetadata").outputs}
    given = infer(server, pixels(1, 2)).outputs
    assert told == {t.name: (t.datatype, list(t.shape)[1:]) for t in given}


def test_configuration_tells_of_batching() -> None:
    server = Server(max_queue_delay_ms=1.5, max_batch_size=256, max_queue_size=999)
    told = server("ModelConfig", name="stub").config
    assert (told.name, told.platform, told.backend, told.max_batch_size) == (
        "stub",
        "jax",
        "jax",
        8,
    )
    assert [(t.name, t.data_type, list(t.dims), t.optional) for t in told.input] == [
        ("images", pb.TYPE_UINT8, [784], False),
        ("pictures", pb.TYPE_STRING, [1], True),
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in told.output] == [
        ("labels", pb.TYPE_INT64, []),
        ("scores", pb.TYPE_FP32, [10]),
        ("confidence", pb.TYPE_FP32, []),
        ("rejected", pb.TYPE_BOOL, []),
    ]
    batching = told.dynamic_batching
    assert list(batching.preferred_batch_size) == [256]
    assert batching.max_queue_delay_microseconds == 1500
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    assert batching.default_queue_policy.max_queue_size == 999
    assert batching.default_queue_policy.allow_timeout_override
    assert not told.model_transaction_policy.decoupled
    assert told.parameters["max_message_bytes"].string_value == str(16 * 2**20)


def test_statistics_are_those_of_the_plane(server: Server) -> None:
    counted = server.plane.telemetry
    call = Call("v2", "ModelInfer", Wire())
    call.model, call.version, call.rows, call.batch_rows = "stub", "1", 5, 5
    call.queue, call.prepare, call.assembly = 0.5, 1.0, 0.25
    call.compute, call.encode = 2.0, 0.125
    call.arrived = 4.0
    counted.finished(call, "OK")
    call.arrived = 0.0
    counted.finished(call, "INTERNAL")
    counted.batch("stub", "1", 3, "idle", 0.25, 1.0)
    counted.batch("stub", "1", 2, "full", 0.5, 1.5)
    (told,) = server("ModelStatistics", name="stub", version="1").model_stats
    assert (told.name, told.version) == ("stub", "1")
    assert (told.inference_count, told.execution_count) == (5, 2)
    assert told.last_inference > 0
    stats = told.inference_stats
    assert {field.name: (one.count, one.ns) for field, one in stats.ListFields()} == {
        "success": (1, 4 * 10**9),
        "fail": (1, 8 * 10**9),
        "queue": (1, 5 * 10**8),
        "compute_input": (1, 125 * 10**7),
        "compute_infer": (1, 2 * 10**9),
        "compute_output": (1, 125 * 10**6),
    }
    assert [
        (one.batch_size, one.compute_input.ns, one.compute_infer.ns, one.compute_infer.count)
        for one in told.batch_stats
    ] == [(2, 5 * 10**8, 15 * 10**8, 1), (3, 25 * 10**7, 10**9, 1)]
    everything = server("ModelStatistics").model_stats
    assert [(one.name, one.version, one.inference_count) for one in everything] == [
        ("stub", "1", 5),
        ("stub", "2", 0),
    ]
    assert len(server("ModelStatistics", name="stub").model_stats) == 2
    with pytest.raises(InvalidRequest, match="a version and no model"):
        server("ModelStatistics", version="1")


def test_the_index_lists_every_version(server: Server) -> None:
    told = server("RepositoryIndex").models
    assert [(one.name, one.version, one.state, one.reason) for one in told] == [
        ("bad", "7", "UNAVAILABLE", "its file is cut"),
        ("stub", "1", "READY", ""),
        ("stub", "2", "READY", ""),
    ]
    assert [one.version for one in server("RepositoryIndex", ready=True).models] == ["1", "2"]
    with pytest.raises(Unsupported, match="no repository 'x'"):
        server("RepositoryIndex", repository_name="x")


def test_models_are_loaded_and_unloaded_where_that_is_allowed() -> None:
    server = Server(model_control=True)
    server("RepositoryModelLoad", model_name="stub")
    yes = pb.ModelRepositoryParameter(bool_param=True)
    server("RepositoryModelUnload", model_name="stub", parameters={"unload_dependents": yes})
    assert server.plane.registry.asked == ["load stub", "unload stub"]
    for fields, error, words in [
        ({}, InvalidRequest, "names no model"),
        ({"model_name": "x" * 201}, NoSuchModel, "over 200"),
        ({"model_name": "x", "repository_name": "y"}, Unsupported, "no repository 'y'"),
    ]:
        for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
            with pytest.raises(error, match=words):
                server(name, **fields)
    for parameter in ("config", "file:1/model"):
        with pytest.raises(Unsupported, match=f"{parameter}' of a load .* repository folder"):
            server("RepositoryModelLoad", model_name="x", parameters={parameter: yes})
    assert len(server.plane.registry.asked) == 2


def test_without_the_setting_nobody_changes_models(server: Server) -> None:
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        with pytest.raises(Forbidden, match="model_control"):
            server(name, model_name="stub")
    assert server.plane.registry.asked == []


def test_a_stream_carries_the_same_answers(server: Server) -> None:
    data = server.raw("ModelStreamInfer", pixels(3, id="a").SerializeToString())
    streamed = pb.ModelStreamInferResponse.FromString(data)
    assert streamed.error_message == ""
    assert streamed.infer_response.parameters.pop("triton_final_response").bool_param
    assert streamed.infer_response == infer(server, pixels(3, id="a"))


def test_a_stream_is_told_of_errors_in_answers_or_by_its_end(server: Server) -> None:
    tell = server.method("ModelStreamInfer").on_error
    assert tell
    asked = Call("v2", "ModelStreamInfer", Wire(triton_grpc_error="true"))
    assert tell(b"", "NOT_FOUND", "a sentence", asked) is None
    for call in (
        Call("v2", "ModelStreamInfer", Wire()),
        Call("v2", "ModelStreamInfer", Wire(triton_grpc_error="false")),
    ):
        for data, name in ((pixels(1, id="mine").SerializeToString(), "mine"), (b"\xff", "")):
            told = tell(data, "NOT_FOUND", "a sentence", call)
            assert told is not None
            response = pb.ModelStreamInferResponse.FromString(told)
            assert response.error_message == "a sentence"
            assert response.infer_response == pb.ModelInferResponse(id=name)


def test_errors_of_the_plane_pass_through(server: Server) -> None:
    server.plane.error = Overloaded("full", 1.0)
    with pytest.raises(Overloaded):
        infer(server, pixels(1))


GOOD = [
    pixels(1, 2, id="x").SerializeToString(),
    ask(pixels(1), "labels", "scores").SerializeToString(),
    pb.RepositoryModelLoadRequest(model_name="stub").SerializeToString(),
    pb.ModelStatisticsRequest(name="stub", version="1").SerializeToString(),
]


@given(
    st.sampled_from([method.name for method in Server().api.methods]),
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
    st.integers(0, 2**16),
    st.binary(max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_an_answer_or_an_error_of_ours(
    name: str, data: bytes, changes: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    mutated = bytearray(data)
    for where, value in changes:
        mutated[where % min(len(mutated), 100)] = value
    try:
        FUZZED.raw(name, bytes(mutated)[: cut or None] + more)
    except JaxnnError as error:
        assert len(str(error)) < 1000


FUZZED = Server(model_control=True)
