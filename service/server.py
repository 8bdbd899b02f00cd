"""Wiring: a model and settings become a running server. Only this file knows all the parts."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from jaxnn.errors import RunError
from service.config import ServiceConfig, address
from service.digits import SERVICE, DigitClassifier
from service.gate import Gate
from service.health import Health
from service.repository import ServedModel, load_model


def serve(config: ServiceConfig, model_path: str | os.PathLike[str]) -> None:
    """Serves a model until SIGTERM or SIGINT; returns when all requests in flight are answered.

    Prints `listening on HOST:PORT` when ready. A second signal ends the process at once.

    Args:
      config: all settings; `config.model` is not read.
      model_path: the model file.

    Raises:
      CheckpointError: the model file is missing, damaged, or no model.
      ConfigError: the model does not take images of 784 pixels.
      RunError: the address cannot be listened on.
    """
    asyncio.run(_serve(config, load_model(model_path, config.name)))


async def _serve(config: ServiceConfig, model: ServedModel) -> None:
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # a person who asks twice does not want to wait
        stop.set()

    loop = asyncio.get_running_loop()
    async with running_server(config, model) as port:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        print(f"listening on {address(config.host, port)}", flush=True)
        await stop.wait()


@asynccontextmanager
async def running_server(config: ServiceConfig, model: ServedModel) -> AsyncIterator[int]:
    """A server that listens while the block runs; yields the port.

    At the end health says NOT_SERVING, and after `shutdown_delay_s` no new request is taken, and
    those in flight have `shutdown_grace_s` to finish.

    Raises:
      RunError: the address cannot be listened on.
    """
    with ThreadPoolExecutor(1, "compute") as compute, ThreadPoolExecutor(1, "decode") as decode:
        server = grpc.aio.server(options=_options(config))
        port = _listen(server, config)
        state, gate = Health(), Gate()
        health_pb2_grpc.add_HealthServicer_to_server(state, server)
        digits = DigitClassifier(model, config, gate, compute, decode)
        server.add_generic_rpc_handlers((digits.handler(),))
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        await server.start()
        for name in ("", SERVICE):
            await state.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            yield port
        finally:
            await state.stop()
            await asyncio.sleep(config.shutdown_delay_s)
            await gate.close()
            await server.stop(config.shutdown_grace_s)


def _options(config: ServiceConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # an answer is smaller than its request
        ("grpc.so_reuseport", 0),  # two servers on one port would share callers by chance
        # Clients may ping every 10 s, with or without calls; gRPC's own limit of 300 s would end
        # their connections with "too many pings".
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    ]


def _listen(server: grpc.aio.Server, config: ServiceConfig) -> int:
    """Opens the port: the one place that decides between plain TCP and TLS.

    Raises:
      RunError: the address cannot be listened on.
    """
    wanted = address(config.host, config.port)
    try:
        # Tried with a socket first: its error says why, and gRPC would log a line of its own.
        family, kind, _, _, where = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(where)
        return server.add_insecure_port(wanted)
    except (OSError, UnicodeError, RuntimeError) as error:
        raise RunError(
            f"cannot listen on {wanted} ({getattr(error, 'strerror', None) or error}): "
            "choose another address, or port 0 for any free one"
        ) from error
