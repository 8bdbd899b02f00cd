"""Real servers for tests: on 127.0.0.1, port 0, in this process or in another."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxnn.checkpoint import ModelFile
from jaxnn.models import Spec
from service.config import ServiceConfig
from service.pb import digits_pb2
from service.repository import ServedModel
from service.server import Running, running_server

# A proxy of the environment must not stand between a test and its own server.
os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 - as gRPC spells it
ROOT = Path(__file__).parent.parent
# The same variable that sets it for servers in processes of their own: all tests run over either.
TRANSPORT = os.environ.get("JAXNN_SERVE_TRANSPORT", "grpcio")
LIMIT_S = 30.0  # for anything that should end by itself in a fraction of it


def first_pixel(images: np.ndarray) -> np.ndarray:
    """Stands in for a network: the label is the first pixel mod 10, its score 1."""
    return np.eye(10, dtype=np.float32)[images[:, 0] % 10]


def stub_model(
    scores: Callable[[np.ndarray], np.ndarray] = first_pixel,
    name: str = "stub",
    version: str = "0" * 12,
    **spec: Any,
) -> ServedModel:
    """A model without a network, which needs no compilation.

    Args:
      scores: uint8 [N, 784] -> float32 [N, C].
      name: under which it answers.
      version: the same.
      spec: what it says of itself.
    """

    def predictor(images: np.ndarray, rejection: bool) -> np.ndarray:  # [N, C + 3]
        found = scores(images)
        labels, highest = found.argmax(axis=1), found.max(axis=1)
        return np.column_stack([found, labels, highest, 0 * highest]).astype(np.float32)

    metrics = {"test_accuracy": 0.5}
    file = ModelFile(None, Spec(**spec), {}, {}, metrics, 1.0, None, "0" * 64)
    return ServedModel(name, version, file, 13002, metrics, predictor)


def images_of(labels: Any) -> np.ndarray:
    """uint8 [N, 784] that `first_pixel` labels so."""
    images = np.zeros((len(labels), 784), np.uint8)
    images[:, 0] = labels
    return images


def pixels(*labels: int, name: str = "") -> digits_pb2.ClassifyRequest:
    """A request that `first_pixel` answers with these labels."""
    return digits_pb2.ClassifyRequest(pixels=images_of(labels).tobytes(), id=name)


@asynccontextmanager
async def serving(model: ServedModel, **settings: Any) -> AsyncIterator[Running]:
    """A server of one model on this loop."""
    wanted = {"port": 0, "shutdown_delay_s": 0.0, "name": model.name, "transport": TRANSPORT}
    wanted |= settings
    async with running_server(ServiceConfig(**wanted), lambda _: model) as server:
        yield server


def serve_async(
    model: ServedModel, scenario: Callable[[str], Awaitable[None]], **settings: Any
) -> None:
    """Runs an asyncio scenario against a server on the same loop."""

    async def run() -> None:
        async with asyncio.timeout(LIMIT_S), serving(model, **settings) as server:
            await scenario(f"127.0.0.1:{server.port}")

    asyncio.run(run())


def serve_sync(model: ServedModel, scenario: Callable[[str], None], **settings: Any) -> None:
    """Runs a blocking scenario, in a thread, against a server."""

    async def in_thread(target: str) -> None:
        await asyncio.to_thread(scenario, target)

    serve_async(model, in_thread, **settings)


@contextmanager
def server_process(program: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python program that serves, once it has said where; killed at the end if still there."""
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("listening on "), line
            yield process, line.removeprefix("listening on ").strip()
        finally:
            process.kill()
