"""The standard health service, whose watchers are let go when the server stops.

grpc_health's own servicer keeps a Watch open for ever, and a graceful stop waits for open calls:
one watching load balancer would make every stop last its whole grace.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """The status of each service by name; "" is the server as a whole."""

    def __init__(self) -> None:
        """Know no service yet."""
        self._status: dict[str, int] = {}
        self._stopping = False
        self._changed = asyncio.Condition()

    async def set(self, service: str, status: int) -> None:
        """Set a service's status, and tell its watchers."""
        async with self._changed:
            self._status[service] = status
            self._changed.notify_all()

    async def stop(self) -> None:
        """Every service is NOT_SERVING from here on; watchers hear it and their calls end."""
        async with self._changed:
            self._status = dict.fromkeys(self._status, _Response.NOT_SERVING)
            self._stopping = True
            self._changed.notify_all()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for a service that is not here."""
        if request.service not in self._status:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no service {request.service!r} here: ask for one of {sorted(self._status)}",
            )
        return _Response(status=self._status[request.service])

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and whenever it changes."""
        told: int | None = None
        while True:
            async with self._changed:
                # No status is lost between the test and the wait: set() needs the same lock.
                while not self._stopping and self._now(request.service) == told:
                    await self._changed.wait()
            if self._now(request.service) == told:
                return
            told = self._now(request.service)
            yield _Response(status=told)

    def _now(self, service: str) -> int:
        return self._status.get(service, _Response.SERVICE_UNKNOWN)
