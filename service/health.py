"""The standard health service, whose watchers are let go when the server stops.

grpc_health's own servicer keeps a Watch open for ever, and a graceful stop waits for open calls:
one watching load balancer would make every stop last its whole grace.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """The status of each service and model by name; "" is the server as a whole."""

    def __init__(self) -> None:
        """Know no service yet."""
        self._status: dict[str, int] = {}
        self._stopping = False
        self._changed = asyncio.Event()  # a new one after each change

    @property
    def serving(self) -> bool:
        """Whether the server as a whole is ready."""
        return self._now("") == _Response.SERVING

    def set(self, services: Iterable[str], models: dict[str, bool]) -> None:
        """Say what is ready, and tell the watchers.

        Args:
          services: those of the server, which serve when a model does.
          models: whether each is ready, by name.
        """
        if self._stopping:
            return
        ready = {**dict.fromkeys(("", *services), any(models.values())), **models}
        self._status = {
            name: _Response.SERVING if serves else _Response.NOT_SERVING
            for name, serves in ready.items()
        }
        self._tell()

    def stop(self) -> None:
        """Every service is NOT_SERVING from here on; watchers hear it and their calls end."""
        self._status = dict.fromkeys(self._status, _Response.NOT_SERVING)
        self._stopping = True
        self._tell()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for a service that is not here."""
        if request.service not in self._status:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no service {request.service[:100]!r} here: ask for one of {sorted(self._status)}",
            )
        return _Response(status=self._status[request.service])

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and whenever it changes."""
        told: int | None = None
        while True:
            changed, now = self._changed, self._now(request.service)
            if now != told:
                told = now
                yield _Response(status=now)
            elif self._stopping:
                return
            else:
                await changed.wait()

    def _now(self, service: str) -> int:
        return self._status.get(service, _Response.SERVICE_UNKNOWN)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
