"""Wiring: settings become a running server. Only this file knows all the parts."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from jaxnn.errors import CheckpointError, JaxnnError
from service import described, health, inference, listener, pool, process, tracing
from service.access_log import AccessLog
from service.aio import GrpcTransport
from service.config import ServiceConfig, address
from service.dataplane import DataPlane
from service.digits import DigitClassifier
from service.edge import Edge
from service.gate import QUIET_S, Gate
from service.http2.listener import LeanTransport
from service.metrics_page import MetricsPage
from service.registry import Loader, Registry
from service.repository import ServedModel
from service.security import Tokens
from service.telemetry import Telemetry

LAST_ANSWERS_S = 1.0  # to reach their callers, once all are written

Transport = GrpcTransport | LeanTransport
TRANSPORTS: dict[str, type[Transport]] = {"grpcio": GrpcTransport, "lean": LeanTransport}

_log = logging.getLogger(__name__)


class Running:
    """A server that listens."""

    def __init__(
        self,
        port: int,
        metrics_port: int | None,
        registry: Registry,
        telemetry: Telemetry,
        tokens: Tokens | None,
    ) -> None:
        """Hold what outlives the start."""
        self.port = port
        self.metrics_port = metrics_port
        self.registry = registry
        self.telemetry = telemetry
        self._tokens = tokens
        self._looking = set[asyncio.Task[None]]()  # else a task could be collected half done

    def look_again(self) -> None:
        """Looks for changed models and tokens, beside whatever runs."""
        task = asyncio.get_running_loop().create_task(self._look())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self) -> None:
        try:
            if self._tokens:
                self._tokens.reload()
            await self.registry.refresh()
        except JaxnnError as error:
            _log.error("%s", error)


def serve(config: ServiceConfig) -> None:
    """Serves until SIGTERM or SIGINT; returns when all requests in flight are answered.

    Prints `listening on HOST:PORT` when ready. A second signal ends the process at once; SIGHUP
    looks for changed models and tokens.

    Raises:
      CheckpointError, ConfigError: no model can be served, or a setting cannot be used.
      RunError: the address cannot be listened on.
    """
    process.prepare()
    process.run(_serve(config))


async def _serve(config: ServiceConfig) -> None:
    signals = process.Signals()
    async with running_server(config) as server:
        signals.serving(server.look_again)
        if server.metrics_port is not None:
            where = address(config.metrics_host, server.metrics_port)
            print(f"metrics on http://{where}/metrics", flush=True)
        print(f"listening on {address(config.host, server.port)}", flush=True)
        await signals.stop.wait()


@asynccontextmanager
async def running_server(
    config: ServiceConfig, load: Loader | None = None
) -> AsyncIterator[Running]:
    """A server that listens while the block runs.

    At the end health says NOT_SERVING, and after `shutdown_delay_s` no new request is taken, and
    those in flight have `shutdown_grace_s` to finish.

    Args:
      config: all settings.
      load: reads a model file, in place of the server's own way; for tests.

    Raises:
      CheckpointError, ConfigError: no model can be served, or a setting cannot be used.
      RunError: the address cannot be listened on.
    """
    async with AsyncExitStack() as stack:
        compute, decode = (
            stack.enter_context(ThreadPoolExecutor(1, name)) for name in ("compute", "decode")
        )
        tokens = Tokens(config.tokens) if config.tokens else None
        spans = None
        if config.tracing:
            spans = tracing.to_collector(config.tracing, config.tracing_share)
            stack.callback(spans.close)
        telemetry, gate, state = Telemetry(), Gate(config.max_calls), health.Health()
        registry = Registry(config, load)
        plane = DataPlane(registry, config, telemetry, compute, decode)
        log = AccessLog(config.access_log)
        stack.callback(log.close)
        edge = Edge(gate, telemetry, log, tokens, spans)
        apis = (
            DigitClassifier(plane, config).api,
            inference.Inference(plane, config, lambda: state.serving).api,
        )
        names = [api.service for api in apis]
        state.set(names, {})
        registry.on_change.append(lambda: state.set(names, registry.ready()))
        registry.on_load.append(partial(_count_load, telemetry))
        telemetry.gauge("in_flight", lambda: gate.open_calls)
        telemetry.gauge("models_ready", registry.count)
        telemetry.gauge("workers", lambda: 1)  # this one
        certificates = listener.certificates(config)
        if certificates:
            telemetry.gauge("certificate_end_seconds", lambda: certificates.pair.expires)
        transport = TRANSPORTS[config.transport](config, certificates)
        await _first_load(registry, config)
        registry.on_load.append(_log_load)
        routes = edge.routes(apis[0]) | edge.routes(apis[1]) | state.routes
        if config.reflection:
            messages = pool.describing(health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
            routes |= described.routes((*names, health.SERVICE), messages)
        metrics_port = None
        if config.metrics_port is not None:
            page = MetricsPage(telemetry.snapshot, config.metrics_host, config.metrics_port)
            stack.callback(page.stop)
            metrics_port = page.port
        if config.watch_s:
            watching = asyncio.create_task(registry.watch())
            stack.callback(watching.cancel)
        await transport.start(routes)
        _log.info(
            "listening on %s %s TLS, %s tokens: up to %d images or %d bytes a request, %d images "
            "in the queue",
            address(config.host, transport.port),
            "with" if certificates else "without",
            "with" if tokens else "without",
            config.max_images_per_request,
            config.max_message_bytes,
            config.max_queue_size,
        )
        try:
            yield Running(transport.port, metrics_port, registry, telemetry, tokens)
        finally:
            state.stop()
            await asyncio.sleep(config.shutdown_delay_s)
            await gate.close(max(QUIET_S, config.shutdown_delay_s))
            await _end(transport, gate, config.shutdown_grace_s)


def _count_load(telemetry: Telemetry, name: str, model: ServedModel | None, problem: str) -> None:
    telemetry.count("model_loads", name, "failed" if problem else "ok")
    telemetry.count("compiles", amount=getattr(model and model.predictor, "compile_count", 0))


async def _end(transport: Transport, gate: Gate, grace: float) -> None:
    """Stops when all calls have ended, or after `grace` seconds.

    A transport alone would also wait for connections that nobody uses and nobody closes.
    """
    async with asyncio.TaskGroup() as ending:
        ending.create_task(transport.stop(grace))
        with suppress(TimeoutError):
            await asyncio.wait_for(gate.emptied(), grace)
        await transport.stop(min(grace, LAST_ANSWERS_S))


def _log_load(name: str, model: ServedModel | None, problem: str) -> None:
    if model:
        with_or_not = "with" if model.file.familiar is not None else "without"
        sentence = "model %s version %s is ready, %s rejection of what is no digit"
        _log.info(sentence, name, model.version, with_or_not)
    else:
        _log.error("%s", problem)


async def _first_load(registry: Registry, config: ServiceConfig) -> None:
    """Loads what is there.

    Raises:
      CheckpointError: no model can be served, and none is expected later.
      ConfigError: the repository cannot be read.
    """
    await registry.refresh()
    problems = [entry.reason for entry in registry.entries() if entry.reason]
    if not any(registry.ready().values()) and not (config.watch_s or config.model_control):
        raise CheckpointError("; ".join(problems) or f"{config.repository} holds no model to serve")
    for entry in registry.entries():
        _log_load(entry.name, entry.model, entry.reason)
