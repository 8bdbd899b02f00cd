"""The standard health service, whose watchers are let go when the server stops.

grpc_health's own servicer keeps a Watch open for ever, and a graceful stop waits for open calls:
one watching load balancer would make every stop last its whole grace.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable

from grpc_health.v1 import health, health_pb2

from jaxnn.errors import JaxnnError
from service.codec import parsed
from service.rpc import Route, Wire
from service.status import Refused, Status, status_of

SERVICE = health.SERVICE_NAME
_Response = health_pb2.HealthCheckResponse


class Health:
    """The status of each service and model by name; "" is the server as a whole."""

    def __init__(self) -> None:
        """Know no service yet."""
        self._status: dict[str, int] = {}
        self._stopping = False
        self._changed = asyncio.Event()  # a new one after each change
        # Beside the edge: who asks needs no token, and is answered however many calls are open.
        self.routes = {
            f"/{SERVICE}/Check": Route(self._check),
            f"/{SERVICE}/Watch": Route(self._watch, stream=True),
        }

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

    async def _check(self, data: bytes, wire: Wire) -> bytes:
        """The status now; NOT_FOUND for a service that is not here."""
        service = _asked(data)
        if service not in self._status:
            sentence = f"no service {service[:100]!r} here: ask for one of {sorted(self._status)}"
            raise Refused(Status("NOT_FOUND", sentence))
        return _Response(status=self._status[service]).SerializeToString()

    async def _watch(self, messages: AsyncIterable[bytes], wire: Wire) -> AsyncIterator[bytes]:
        """The status now and whenever it changes."""
        async for data in messages:  # the first and only one
            service = _asked(data)
            break
        else:
            return
        told: int | None = None
        while True:
            changed, now = self._changed, self._now(service)
            if now != told:
                told = now
                yield _Response(status=now).SerializeToString()
            elif self._stopping:
                return
            else:
                await changed.wait()

    def _now(self, service: str) -> int:
        return self._status.get(service, _Response.SERVICE_UNKNOWN)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _asked(data: bytes) -> str:
    try:
        return parsed(health_pb2.HealthCheckRequest, data).service
    except JaxnnError as error:
        raise Refused(status_of(error)) from None
