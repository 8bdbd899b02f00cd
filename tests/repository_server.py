"""Servers of a repository folder, for clients in other processes: of stand-ins, or of networks.

Of each file NAME/VERSION/*.safetensors nothing is read but whether it says that it is bad; unless
the models are trained here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from serving import stub_model

from service.config import ServiceConfig
from service.errors import InvalidRequest
from service.repository import Found, ServedModel, load_model
from service.server import running_server

WEIGHTS = np.random.default_rng(0).normal(0, 1e-4, (784, 10)).astype(np.float32)


def scores(images: np.ndarray) -> np.ndarray:
    """What the models answer for uint8 [N, 784]: float32 [N, 10], 0 to 1, each row by itself."""
    return (1 / (1 + np.exp(-(images[:, :, None] * WEIGHTS).sum(axis=1)))).astype(np.float32)


def load(found: Found) -> ServedModel:
    """A model for any file, but one that says it is bad."""
    if found.path.read_bytes() == b"bad":
        raise InvalidRequest(f"the file of version {found.version} is bad")
    return stub_model(scores, found.name, found.version)


@asynccontextmanager
async def repository_server(folder: Path) -> AsyncIterator[str]:
    """The server; yields its address."""
    config = ServiceConfig(
        port=0,
        repository=folder,
        versions="all",
        model_control=True,
        max_images_per_request=64,
        shutdown_delay_s=0.0,
    )
    async with running_server(config, load) as server:
        yield f"127.0.0.1:{server.port}"


async def main(folder: Path) -> None:
    """Serve until killed."""
    async with repository_server(folder) as target:
        print(f"listening on {target}", flush=True)
        await asyncio.Event().wait()


async def main_trained(folder: Path) -> None:
    """Train a network of each kind into the folder, and serve them until killed."""
    import trained

    for name in trained.CONFIGS:
        trained.save_trained(name, folder)

    def read(found: Found) -> ServedModel:
        return load_model(found.path, found.name, found.version, buckets=(trained.COUNT,))

    config = ServiceConfig(port=0, repository=folder, shutdown_delay_s=0.0)
    async with running_server(config, read) as server:
        print(f"listening on 127.0.0.1:{server.port}", flush=True)
        await asyncio.Event().wait()
