"""The benchmark of the families behind the service: its requests and table, and PyTorch's part."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import serving_families
from benchmarks.load import asked, generator, messages
from benchmarks.load.generator import Unavailable
from benchmarks.load.turns import Row
from benchmarks.serving_families import OURS, PEER, Settings
from jaxnn import calibration, checkpoint, models
from jaxnn.checkpoint import ModelFile
from jaxnn.errors import CheckpointError, ConfigError
from jaxnn.models import Spec
from service.inputs import IMAGES, Kind
from service.pb import digits_pb2

SPEECH = Kind("speech", (40, 40), ("features",), 40)
TINY = Spec("lstm", (200, 4, 3), "tanh", "softmax", "cross_entropy", architecture="speech")


def test_made_up_speech_has_the_lengths_of_recordings() -> None:
    rows = asked.rows(SPEECH, 300)
    assert (rows.shape, rows.dtype) == ((300, 1600), np.uint8)
    steps = rows.reshape(300, 40, 40)
    lengths = (steps[:, :, 0] > 0).sum(axis=1)
    assert lengths.mean() == pytest.approx(17.7, abs=0.6)  # two standard errors
    assert lengths.std() == pytest.approx(4.9, abs=0.7)
    for row, length in zip(steps, lengths, strict=True):  # nothing between, nothing behind
        assert row[:length].min() >= 1
        assert row[length:].max(initial=0) == 0


def test_requests_of_speech_come_as_features(tmp_path: Path) -> None:
    rows = asked.rows(SPEECH, 5)
    given = asked.questions("v1", (1, 7), rows, [4, 5, 6, 7, 8], tmp_path, messages.FEATURES)
    assert [len(one.requests) for one in given.values()] == [asked.DIFFERENT, 1]
    (path,) = given[7].requests
    request = digits_pb2.ClassifyRequest.FromString(path.read_bytes())
    assert request.skip_rejection
    assert request.features == rows.tobytes() + rows[:2].tobytes()  # begun again
    assert given[7].labels == [4, 5, 6, 7, 8, 4, 5]
    assert asked.rows(IMAGES, 3).shape == (3, 784)


def test_both_servers_have_the_same_flags_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    ours, peer = serving_families.entries(Path("m"), Settings(threads=2))
    port = ours.command.index("--port")
    assert ours.command[port:] == peer.command[peer.command.index("--port") :]
    assert "--model m --proof 0 --transport lean" in " ".join(ours.command)
    assert peer.command[1:3] == ("-m", "benchmarks.torch_server")
    assert ours.environment == peer.environment
    assert {ours.environment[name] for name in ("NPROC", "OMP_NUM_THREADS")} == {"2"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert serving_families.entries(Path("m"), Settings(threads=2)) == [ours]


def test_a_family_without_a_ready_made_model_gets_a_file(tmp_path: Path) -> None:
    assert serving_families.model_file("cnn", tmp_path).name == "cnn.safetensors"
    assert not list(tmp_path.iterdir())
    file = checkpoint.load(serving_families.model_file("rows", tmp_path))
    assert (file.spec.architecture, file.spec.sizes) == ("rows", (784, 128, 10))


def test_without_the_generator_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise Unavailable("no compiler")

    monkeypatch.setattr(generator, "program", missing)
    assert serving_families.run(quick=True) == {"left_out": "no compiler"}


def seen(rate: float, **changes: Any) -> dict[str, Any]:
    times = {"p50": 10.0, "p99": 30.0, "half_p50": 4.0, "half_p99": 8.0, "cpu_us": 5.0}
    rates = {"median": rate, "low": rate - 1, "high": rate + 1}
    return {"rate": rates, **times, "errors": {}, **changes}


def test_the_table_has_requests_rows_and_what_went_wrong() -> None:
    found = {OURS: seen(1500, p99=31.0), PEER: seen(1000, errors={"UNAVAILABLE": 7})}
    result = {
        "threads": 2,
        "rounds": 3,
        "seconds": 1.5,
        "server_args": "--a b",
        "absent": {},
        "families": {"cnn": [{**Row(32, 8)._asdict(), "contestants": found}]},
    }
    lines = serving_families.table(result).splitlines()
    assert lines[0].startswith("One process with `--a b`, the network on 2 threads; 3 rounds of")
    assert lines[0].endswith("cnn: lenet, as it ships.")
    assert (
        "| cnn, 32 / 8 | 1,500 (1,499 to 1,501) | 1,000 (999 to 1,001) | 48,000 | 32,000 | 1.50 |"
    ) in lines
    assert "| cnn, 32 / 8 | 10 | 31 | 4 | 8 | 5 | 10 | 30 | 4 | 8 | 5 |" in lines
    assert lines[-1] == "cnn, 32 / 8, PyTorch: 7 UNAVAILABLE."
    del found[PEER]
    alone = serving_families.table({**result, "absent": {PEER: "it is not installed"}})
    assert "| cnn, 32 / 8 | 1,500 (1,499 to 1,501) | 48,000 |" in alone.splitlines()
    assert alone.endswith("PyTorch is absent: it is not installed.")


def random_rows(spec: Spec, count: int) -> np.ndarray:
    """uint8 [count, n_in]; of speech with padding behind, the first row padding alone."""
    draw = np.random.default_rng(1)
    if spec.architecture != "speech":
        return draw.integers(0, 256, (count, spec.sizes[0]), np.uint8)
    steps = draw.integers(1, 256, (count, spec.sizes[0] // 40, 40), np.uint8)
    steps[np.arange(steps.shape[1]) >= draw.integers(0, steps.shape[1] + 1, count)[:, None]] = 0
    steps[0] = 0
    return steps.reshape(count, -1)


def random_params(spec: Spec) -> Any:
    """Of the shapes that a network has; none is 0 or 1 for all, so each has to find its place."""
    draw = np.random.default_rng(2)
    shapes = jax.eval_shape(models.build(spec).init, jax.random.key(0))
    return jax.tree.map(lambda leaf: draw.normal(0.1, 0.4, leaf.shape).astype("f4"), shapes)


@pytest.mark.parametrize(
    "spec",
    [
        Spec("mlp", (9, 5, 4, 3), "gelu"),
        Spec("cnn", (361, 3), "leaky_relu", "softmax", "cross_entropy", architecture="tiny"),
        Spec("lstm", (84, 4, 3, 2), "tanh", architecture="rows"),
        TINY._replace(sizes=(200, 4, 5, 3)),
    ],
    ids=lambda spec: spec.architecture or spec.family,
)
def test_networks_in_pytorch_are_the_same(spec: Spec) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks import torch_networks

    params = random_params(spec)
    count = 2 * torch_networks.TOGETHER + 3  # in several parts, where there are parts
    rows = random_rows(spec, count)
    with torch.inference_mode():
        z = torch_networks.network(spec, params)(torch.from_numpy(rows))
        found = z.sigmoid() if spec.output == "sigmoid" else z.softmax(1)
    every = jax.jit(jax.vmap(models.build(spec).forward, in_axes=(None, 0)))
    truth = np.asarray(every(params, rows / np.float32(255)))
    assert np.ptp(truth, axis=0).min() > 1e-3  # rows differ: none may be in another's place
    np.testing.assert_allclose(found.numpy(), truth, atol=5e-6)  # float32 sums of up to 200


def test_what_is_not_built_is_refused() -> None:
    pytest.importorskip("torch")
    from benchmarks import torch_networks

    with pytest.raises(ConfigError, match="holds 3 networks, expected a single one"):
        torch_networks.network(Spec(members=3), ())
    with pytest.raises(ConfigError, match="the cells have relu, expected tanh"):
        torch_networks.network(TINY._replace(activation="relu"), ())


@pytest.fixture
def file() -> ModelFile:
    return ModelFile(random_params(TINY), TINY, {}, {}, {}, 0.5, None, "")


def test_answers_in_pytorch_are_laid_out_as_ours(file: ModelFile) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks import torch_networks, torch_server

    peer = torch_server.TorchPredictor(file)
    rows = random_rows(TINY, 50)
    found = peer(rows)
    assert (found.shape, found.dtype, peer.weight >= 1) == ((50, 6), np.float32, True)
    with torch.inference_mode():
        z = torch_networks.network(TINY, file.params)(torch.from_numpy(rows))
    np.testing.assert_allclose(found[:, :3], z.softmax(1).numpy(), rtol=1e-6)
    assert found[:, 3].tolist() == z.numpy().argmax(axis=1).tolist()
    assert len(set(found[:, 3])) > 1
    chances = calibration.probabilities(found[:, :3], TINY.output, file.temperature).max(axis=1)
    np.testing.assert_allclose(found[:, 4], chances, atol=2e-5)
    assert not found[:, 5].any()


def test_a_network_that_answers_otherwise_does_not_serve(file: ModelFile) -> None:
    pytest.importorskip("torch")
    from benchmarks import torch_server

    peer = torch_server.TorchPredictor(file)
    same: Any = SimpleNamespace(takes=Kind("speech", (5, 40), (), 40), predictor=peer)
    torch_server.compare(peer, same)
    for wrong in (2e-4, np.nan):
        other: Any = SimpleNamespace(
            takes=same.takes, predictor=lambda rows, rejection, wrong=wrong: peer(rows) + wrong
        )
        with pytest.raises(CheckpointError, match=r"from jaxnn's, expected less than 0\.0001"):
            torch_server.compare(peer, other)


def test_the_server_is_ours_with_another_loader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks import torch_server

    class Ended:
        def __init__(self) -> None:
            self.stop = asyncio.Event()
            self.stop.set()

        def serving(self, look_again: Any) -> None:
            assert look_again == "again"

    began: list[tuple[Any, Any]] = []

    @asynccontextmanager
    async def running(config: Any, load: Any) -> AsyncIterator[Any]:
        began.append((config, load))
        yield SimpleNamespace(port=7, look_again="again")

    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch_server.process, "prepare", lambda: None)
    monkeypatch.setattr(torch_server.process, "run", asyncio.run)
    monkeypatch.setattr(torch_server.process, "Signals", Ended)
    monkeypatch.setattr(torch_server.compile_cache, "enable", lambda: None)
    monkeypatch.setattr(torch_server.server, "running_server", running)
    monkeypatch.setenv("NPROC", "2")
    monkeypatch.setattr("sys.argv", ["torch_server", "--model", "cnn", "--proof", "0.25"])
    torch_server.main()
    ((config, load),) = began
    assert (str(config.model), load.func, load.keywords) == (
        "cnn",
        torch_server.load,
        {"proof": 0.25},
    )
    assert threads == [2]
    assert capsys.readouterr().out == "listening on 127.0.0.1:7\n"


def test_a_loaded_model_answers_by_pytorch(
    monkeypatch: pytest.MonkeyPatch, file: ModelFile
) -> None:
    pytest.importorskip("torch")
    from benchmarks import torch_server
    from service.repository import ServedModel, found_file

    peer = torch_server.TorchPredictor(file)
    asked_for: list[tuple[Any, ...]] = []

    def ours(path: Path, name: str, version: str, **rest: Any) -> ServedModel:
        asked_for.append((path, name, rest["proof"]))
        return ServedModel(name, "v", file, 1, {}, lambda rows, rejection: peer(rows))

    monkeypatch.setattr(torch_server, "load_model", ours)
    loaded = torch_server.load(found_file("f", "digits"), 0.5)
    assert asked_for == [(Path("f"), "digits", 0.5)]
    assert isinstance(loaded.predictor, torch_server.TorchPredictor)
    assert loaded.weight == loaded.predictor.weight
