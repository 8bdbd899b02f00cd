"""Every call of the real tritonclient against our server in another process, and beside it in one.

tritonclient asks for an older protobuf than the rest: `make triton` runs this file where both are.
"""

import asyncio
import io
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trained
from PIL import Image
from repository_server import repository_server, scores
from scipy.io import wavfile
from serving import LIMIT_S, ROOT, server_process

from jaxnn import answers, checkpoint
from jaxnn.data import preprocess

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not here: make triton")
from tritonclient.grpc import aio  # noqa: E402 - only where it is here
from tritonclient.utils import InferenceServerException  # noqa: E402

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 784), np.uint8)
OFFLINE = scores(IMAGES)
WITHIN = 1e-6  # float32 sums in another order

Result = Any  # of tritonclient, which has no types

SERVER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, "tests")
from repository_server import main
asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in a process of its own: digits 1 and 2, other 5, spare 7."""
    folder = tmp_path_factory.mktemp("repository")
    for version in ("digits/1", "digits/2", "other/5", "spare/7", "broken/3"):
        (folder / version).mkdir(parents=True)
        (folder / version / "model.safetensors").write_bytes(b"bad" if "b" in version else b"")
    with server_process(SERVER, str(folder)) as (_, address):
        yield address


@pytest.fixture
def client(target: str) -> Iterator[Any]:
    with triton.InferenceServerClient(target) as client:
        yield client


def tensor(array: np.ndarray, kind: str = "UINT8", name: str = "images") -> Any:
    made = triton.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def wanted(*names: str, **options: Any) -> list[Any]:
    return [triton.InferRequestedOutput(name, **options) for name in names]


def png() -> bytes:
    picture = np.full((40, 40), 255, np.uint8)
    picture[8:32, 18:23] = 0
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def right(result: Result, images: np.ndarray = IMAGES) -> None:
    """All outputs are there and are those of the model asked without a server."""
    expected = scores(images)
    found = {name: result.as_numpy(name) for name in ("labels", "scores", "confidence", "rejected")}
    assert found["labels"].dtype == np.int64 and found["rejected"].dtype == bool
    assert found["scores"].dtype == found["confidence"].dtype == np.float32
    np.testing.assert_allclose(found["scores"], expected, atol=WITHIN)
    np.testing.assert_array_equal(found["labels"], expected.argmax(axis=1))
    np.testing.assert_allclose(found["confidence"], expected.max(axis=1), atol=WITHIN)
    assert found["rejected"].tolist() == [False] * len(images)


def right_picture(result: Result) -> None:
    right(result, preprocess.prepare(preprocess.decode(png(), "it")).reshape(1, 784))


def right_classes(result: Result) -> None:
    classes = result.as_numpy("scores")
    assert (
        classes.shape == (5, 3) and result.as_numpy("labels").tolist() == OFFLINE.argmax(1).tolist()
    )
    for row, expected in zip(classes, OFFLINE, strict=True):
        order = np.argsort(-expected)[:3]
        value, index, label = zip(*(text.decode().split(":") for text in row), strict=True)
        assert list(map(int, index)) == list(map(int, label)) == order.tolist()
        np.testing.assert_allclose(np.array(value, np.float32), expected[order], atol=WITHIN)


def right_some(result: Result) -> None:
    assert [output.name for output in result.get_response().outputs] == ["rejected", "labels"]
    assert result.as_numpy("scores") is None


def right_report(result: Result) -> None:
    right(result)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("mine", "digits", "1")
    assert response.parameters["batch_images"].int64_param == 5
    assert response.parameters["released"].string_param == "idle"


FP32 = (IMAGES / 255).astype(np.float32)
FILES = np.array([png()], np.object_)
EVERY = {"sequence_id": 7, "sequence_start": True, "sequence_end": True, "priority": 1}
INFERS: dict[str, tuple[list[Any], dict[str, Any], Callable[[Result], None]]] = {
    "784": ([tensor(IMAGES)], {}, right),
    "28x28": ([tensor(IMAGES.reshape(5, 28, 28))], {}, right),
    "28x28x1": ([tensor(IMAGES.reshape(5, 28, 28, 1))], {}, right),
    "fp32": ([tensor(FP32, "FP32")], {}, right),
    "picture": ([tensor(FILES, "BYTES", "pictures")], {}, right_picture),
    "pictures in a column": ([tensor(FILES[:, None], "BYTES", "pictures")], {}, right_picture),
    "classes": (
        [tensor(IMAGES)],
        {"outputs": [*wanted("scores", class_count=3), *wanted("labels")]},
        right_classes,
    ),
    "some": ([tensor(IMAGES)], {"outputs": wanted("rejected", "labels")}, right_some),
    "report": (
        [tensor(IMAGES)],
        {"request_id": "mine", "model_version": "1", "parameters": {"report": True, "mine": "x"}},
        right_report,
    ),
    "parameters": ([tensor(IMAGES)], {**EVERY, "timeout": 5_000_000, "client_timeout": 9.0}, right),
    "headers": ([tensor(IMAGES)], {"headers": {"x-request-id": "abc"}}, right),
    "gzip": ([tensor(IMAGES)], {"compression_algorithm": "gzip"}, right),
    "deflate": ([tensor(IMAGES)], {"compression_algorithm": "deflate"}, right),
}

WRONG: dict[str, tuple[str, list[Any], dict[str, Any], str, str]] = {
    "model": ("absent", [tensor(IMAGES)], {}, "NOT_FOUND", "no model 'absent'"),
    "version": ("digits", [tensor(IMAGES)], {"model_version": "9"}, "NOT_FOUND", "no version '9'"),
    "broken": ("broken", [tensor(IMAGES)], {}, "NOT_FOUND", "no model 'broken'"),
    "shape": ("digits", [tensor(IMAGES[:, :9])], {}, "INVALID_ARGUMENT", "the shape [5, 9]"),
    "type": ("digits", [tensor(IMAGES.astype("i4"), "INT32")], {}, "INVALID_ARGUMENT", "'INT32'"),
    "input": ("digits", [tensor(IMAGES, name="x")], {}, "INVALID_ARGUMENT", "input is 'x'"),
    "inputs": ("digits", [tensor(IMAGES)] * 2, {}, "INVALID_ARGUMENT", "2 inputs"),
    "rows": ("digits", [tensor(IMAGES.repeat(13, 0))], {}, "INVALID_ARGUMENT", "limit of 64"),
    "output": ("digits", [tensor(IMAGES)], {"outputs": wanted("x")}, "INVALID_ARGUMENT", "'x'"),
    "range": ("digits", [tensor(FP32 * 255, "FP32")], {}, "INVALID_ARGUMENT", "0 to 1"),
    "priority": ("digits", [tensor(IMAGES)], {"priority": 4}, "INVALID_ARGUMENT", "0 to 3"),
    "picture": (
        "digits",
        [tensor(np.array([b"no picture"], np.object_), "BYTES", "pictures")],
        {},
        "INVALID_ARGUMENT",
        "picture 0",
    ),
}


def check_ready(told: bool) -> None:
    assert told is True


def check_not_ready(told: bool) -> None:
    assert told is False


def check_server(told: dict[str, Any]) -> None:
    assert told["name"] == "jaxnn" and "model_repository" in told["extensions"]


def check_metadata(told: dict[str, Any]) -> None:
    assert told["name"] == "digits" and told["versions"] == ["1", "2"]
    assert told["inputs"][0] == {"name": "images", "datatype": "UINT8", "shape": ["-1", "784"]}
    assert [output["name"] for output in told["outputs"]] == [
        "labels",
        "scores",
        "confidence",
        "rejected",
    ]


def check_config(told: dict[str, Any]) -> None:
    config = told["config"]
    assert config["max_batch_size"] == 64 and config["backend"] == "jax"
    assert config["input"][1] == {
        "name": "pictures",
        "data_type": "TYPE_STRING",
        "dims": ["1"],
        "optional": True,
    }
    assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 16384


def check_index(told: dict[str, Any]) -> None:
    models = {(model["name"], model["version"]): model for model in told["models"]}
    assert list(models)[:3] == [("broken", "3"), ("digits", "1"), ("digits", "2")]
    assert models["digits", "2"]["state"] == "READY"
    assert models["broken", "3"]["state"] == "UNAVAILABLE"
    assert models["broken", "3"]["reason"] == "the file of version 3 is bad"


def check_statistics(told: dict[str, Any]) -> None:
    versions = [(model["name"], model["version"]) for model in told["model_stats"]]
    assert versions == [("digits", "1"), ("digits", "2")]


J = {"as_json": True}
TOLD: list[tuple[str, tuple[str, ...], dict[str, Any], Callable[[Any], None]]] = [
    ("is_server_live", (), {}, check_ready),
    ("is_server_ready", (), {}, check_ready),
    ("is_model_ready", ("digits",), {}, check_ready),
    ("is_model_ready", ("digits", "2"), {"client_timeout": 9.0}, check_ready),
    ("is_model_ready", ("digits", "9"), {}, check_not_ready),
    ("is_model_ready", ("broken",), {}, check_not_ready),
    ("is_model_ready", ("absent",), {}, check_not_ready),
    ("get_server_metadata", (), J, check_server),
    ("get_model_metadata", ("digits",), J, check_metadata),
    ("get_model_config", ("digits", "1"), J, check_config),
    ("get_model_repository_index", (), J, check_index),
    ("get_inference_statistics", ("digits",), J, check_statistics),
]
NOT_SERVED: list[tuple[str, tuple[Any, ...]]] = [
    ("get_trace_settings", ()),
    ("update_trace_settings", ()),
    ("get_log_settings", ()),
    ("update_log_settings", ({},)),
    ("get_system_shared_memory_status", ()),
    ("register_system_shared_memory", ("a", "b", 1)),
    ("unregister_system_shared_memory", ()),
    ("get_cuda_shared_memory_status", ()),
    ("register_cuda_shared_memory", ("a", b"", 0, 1)),
    ("unregister_cuda_shared_memory", ()),
]


def refuses(error: InferenceServerException, code: str, words: str) -> None:
    assert error.status() == f"StatusCode.{code}", error
    assert words in error.message()


@pytest.mark.parametrize(("method", "arguments", "options", "check"), TOLD)
def test_what_the_server_tells(
    client: Any, method: str, arguments: tuple[str, ...], options: dict[str, Any], check: Any
) -> None:
    check(getattr(client, method)(*arguments, **options))


@pytest.mark.parametrize("name", INFERS)
def test_infer_and_async_infer(client: Any, name: str) -> None:
    inputs, options, check = INFERS[name]
    check(client.infer("digits", inputs, **options))
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer(
        "digits", inputs, lambda result, error: answers.put((result, error)), **options
    )
    result, error = answers.get(timeout=LIMIT_S)
    assert error is None
    check(result)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(client: Any, name: str) -> None:
    model, inputs, options, code, words = WRONG[name]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, **options)
    refuses(caught.value, code, words)


@pytest.mark.parametrize(("method", "arguments"), NOT_SERVED)
def test_extensions_that_are_not_advertised_do_not_work(
    client: Any, method: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, method)(*arguments)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_many_at_once_are_each_answered(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for count in range(100):
        chosen = IMAGES[[count % 5] * (1 + count % 3)]
        client.async_infer(
            "digits",
            [tensor(chosen)],
            lambda result, error, chosen=chosen: answers.put((result, error, chosen)),
        )
    for _ in range(100):
        result, error, chosen = answers.get(timeout=LIMIT_S)
        assert error is None
        right(result, chosen)


def streamed(client: Any, inputs: list[tuple[str, Any]], **options: Any) -> list[Any]:
    """Sends inputs by a stream, all at once; what came back, in its order."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result), **options)
    try:
        for name, one in inputs:
            client.async_stream_infer(
                "digits", [one], request_id=name, enable_empty_final_response=True
            )
        found = []
        while len(found) < len(inputs):
            found.append(answers.get(timeout=LIMIT_S))
            if isinstance(found[-1], InferenceServerException) and found[-1].status():
                break  # the end of the stream
        return found
    finally:
        client.stop_stream()


def test_a_stream_answers_in_order_and_outlives_errors(client: Any) -> None:
    inputs = [(str(i), tensor(IMAGES if i % 4 else IMAGES[:, :9])) for i in range(20)]
    found = streamed(client, inputs)
    for (name, _), answer in zip(inputs, found, strict=True):
        if int(name) % 4:
            right(answer)
            assert answer.get_response().id == name
            assert answer.get_response().parameters["triton_final_response"].bool_param
        else:
            assert answer.message().startswith("input images has the shape [5, 9]")


def test_a_stream_can_be_asked_to_end_at_an_error(client: Any) -> None:
    inputs = [("0", tensor(IMAGES)), ("1", tensor(IMAGES[:, :9])), ("2", tensor(IMAGES))]
    first, error = streamed(client, inputs, headers={"triton_grpc_error": "true"})
    right(first)
    refuses(error, "INVALID_ARGUMENT", "message 1: input images has the shape [5, 9]")


def test_statistics_add_up(client: Any) -> None:
    def counts() -> Any:
        (told,) = client.get_inference_statistics("other").model_stats
        return told

    before = counts()
    for rows in (1, 2, 2, 5):
        client.infer("other", [tensor(IMAGES[:rows])])
    with pytest.raises(InferenceServerException):
        client.infer("other", [tensor(IMAGES[:, :9])])
    after = counts()
    assert after.inference_count - before.inference_count == 10
    assert after.execution_count - before.execution_count == 4
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        earlier, later = (getattr(told.inference_stats, name) for told in (before, after))
        assert later.count - earlier.count == 4, name
        assert later.ns >= earlier.ns
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    total = sum(getattr(after.inference_stats, name).ns for name in stages)
    assert 0 < total < after.inference_stats.success.ns
    assert {one.batch_size: one.compute_infer.count for one in after.batch_stats} == {
        1: 1,
        2: 2,
        5: 1,
    }
    assert after.last_inference > before.last_inference


def states(client: Any) -> dict[tuple[str, str], str]:
    index = client.get_model_repository_index()
    return {(model.name, model.version): model.state for model in index.models}


def test_models_are_unloaded_and_loaded(client: Any) -> None:
    client.unload_model("spare", unload_dependents=True)
    assert not client.is_model_ready("spare") and states(client).get(("spare", "7")) != "READY"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("spare", [tensor(IMAGES)])
    refuses(caught.value, "NOT_FOUND", "no model 'spare'")
    client.load_model("spare")
    assert client.is_model_ready("spare") and states(client)["spare", "7"] == "READY"
    right(client.infer("spare", [tensor(IMAGES)]))


def test_loads_that_cannot_be_are_refused(client: Any) -> None:
    for name, options, code, words in [
        ("absent", {}, "NOT_FOUND", "no model 'absent'"),
        ("broken", {}, "FAILED_PRECONDITION", "is bad"),
        ("spare", {"config": "{}"}, "UNIMPLEMENTED", "'config' of a load"),
        (
            "spare",
            {"config": "{}", "files": {"file:1/m": b"x"}},
            "UNIMPLEMENTED",
            "repository folder",
        ),
    ]:
        with pytest.raises(InferenceServerException) as caught:
            client.load_model(name, **options)
        refuses(caught.value, code, words)
    with pytest.raises(InferenceServerException) as caught:
        client.unload_model("absent")
    refuses(caught.value, "NOT_FOUND", "no model 'absent'")


def test_the_same_by_asyncio(target: str) -> None:
    async def requests() -> Any:
        for i in range(6):
            one = tensor(IMAGES if i != 3 else IMAGES[:, :9])
            yield {"model_name": "digits", "inputs": [one], "request_id": str(i)}

    async def run() -> None:
        async with asyncio.timeout(LIMIT_S), aio.InferenceServerClient(target) as client:
            for method, arguments, options, check in TOLD:
                check(await getattr(client, method)(*arguments, **options))
            for inputs, options, check in INFERS.values():
                check(await client.infer("digits", inputs, **options))
            for model, inputs, options, code, words in WRONG.values():
                with pytest.raises(InferenceServerException) as caught:
                    await client.infer(model, inputs, **options)
                refuses(caught.value, code, words)
            index = 0
            async for result, error in client.stream_infer(requests()):
                assert (error is None) == (index != 3)
                if result:
                    right(result)
                    assert result.get_response().id == str(index)
                index += 1
            assert index == 6
            await client.unload_model("spare")
            await client.load_model("spare")
            assert await client.is_model_ready("spare")

    asyncio.run(run())


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A server that has trained a network of each kind, and the folder of their files."""
    folder = tmp_path_factory.mktemp("families")
    program = SERVER.replace("main", "main_trained")
    with server_process(program, str(folder)) as (_, address):
        yield folder, address


@pytest.mark.parametrize("name", trained.CONFIGS)
def test_a_network_of_each_family_answers_as_its_file_does(
    families: tuple[Path, str], name: str
) -> None:
    """Trained, saved, read again and served over there; the file is asked here."""
    folder, address = families
    file = checkpoint.load(folder / name / "1" / "model.safetensors")
    assert file.spec.family == trained.CONFIGS[name].family
    expected = answers.answer(file, trained.rows_for(name))
    sent = [tensor(trained.IMAGES)]
    options: dict[str, Any] = {}
    if name == "speech":
        clips = [wavfile.read(io.BytesIO(blob))[1] for blob in trained.RECORDINGS]
        longest = max(map(len, clips))
        audio = np.stack([np.pad(clip, (0, longest - len(clip))) for clip in clips])
        sent = [
            tensor(np.array(trained.RECORDINGS, np.object_), "BYTES", "recordings"),
            tensor(trained.HEARD, "UINT8", "features"),
            tensor(trained.HEARD.reshape(-1, 40, 40), "UINT8", "features"),
            tensor(audio, "INT16", "audio"),
            tensor((audio / 2**15).astype(np.float32), "FP32", "audio"),
        ]
        options = {"parameters": {"sample_rate": 8000}}
    with triton.InferenceServerClient(address) as client:
        taken = [one["name"] for one in client.get_model_metadata(name, as_json=True)["inputs"]]
        assert taken == (
            ["features", "audio", "recordings"] if name == "speech" else ["images", "pictures"]
        )
        for one in sent:
            found = client.infer(name, [one], **options)
            assert found.as_numpy("labels").tolist() == expected.labels.tolist()
            np.testing.assert_allclose(found.as_numpy("scores"), expected.scores, atol=2e-5)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("mlp" if name == "speech" else "speech", sent[:1])
        kinds = "images" if name == "speech" else "speech"
        refuses(caught.value, "INVALID_ARGUMENT", f"but the model takes {kinds}: send")


def ask_beside(target: str) -> Any:
    with triton.InferenceServerClient(target) as client:
        right(client.infer("digits", [tensor(IMAGES)]))
        return client.infer("digits", [tensor(IMAGES)], request_id="mine").get_response()


def beside(folder: Path) -> None:
    """A server and a client in this process."""
    from tritonclient.grpc import service_pb2

    from service.pb import open_inference_grpc_pb2 as ours

    async def run() -> Any:
        async with asyncio.timeout(LIMIT_S), repository_server(folder) as target:
            return await asyncio.to_thread(ask_beside, target)

    answer = asyncio.run(run())
    assert type(answer) is service_pb2.ModelInferResponse is not ours.ModelInferResponse
    same = ours.ModelInferResponse.FromString(answer.SerializeToString())
    assert same.id == "mine" and len(same.raw_output_contents) == 4


@pytest.fixture
def small_repository(tmp_path: Path) -> Path:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    (tmp_path / "digits" / "1" / "model.safetensors").touch()
    return tmp_path


def test_both_live_in_one_process_ours_first(small_repository: Path) -> None:
    modules = list(sys.modules)
    assert modules.index("service.inference") < modules.index("tritonclient.grpc")
    beside(small_repository)


def test_both_live_in_one_process_tritonclient_first(small_repository: Path) -> None:
    program = """
import sys
from pathlib import Path
import tritonclient.grpc
assert not any(name.startswith("service.") for name in sys.modules)
sys.path.insert(0, "tests")
import test_tritonclient
test_tritonclient.beside(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", program, str(small_repository)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr


def test_our_numbers_are_the_protocols() -> None:
    """Every field that we describe has the name, number and type of tritonclient's copy."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    from service.pb import open_inference_grpc_pb2 as ours

    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name}
    theirs |= model_config_pb2.DESCRIPTOR.message_types_by_name

    def compare(mine: Any, other: Any) -> None:
        for field in mine.fields:
            if field.name == "properties":
                continue  # of the protocol, but not of Triton
            match = other.fields_by_name[field.name]
            assert (field.number, field.type) == (match.number, match.type), field.full_name
            assert field.is_repeated == match.is_repeated, field.full_name
        for name, nested in mine.nested_types_by_name.items():
            if name != "PropertiesEntry":
                compare(nested, other.nested_types_by_name[name])
        for name, kind in mine.enum_types_by_name.items():
            compare_values(kind, other.enum_types_by_name[name])

    def compare_values(mine: Any, other: Any) -> None:
        for value in mine.values:
            assert other.values_by_name[value.name].number == value.number, value.name

    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        compare(message, theirs[name])
    compare_values(ours.DataType.DESCRIPTOR, model_config_pb2.DataType.DESCRIPTOR)
    mine = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    other = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in mine:
        match = other[method.name]
        assert method.input_type.full_name == match.input_type.full_name
        assert method.output_type.full_name == match.output_type.full_name
