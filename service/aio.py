"""grpc.aio as the transport: its calls to routes, and statuses back. Nothing else."""

import logging
from collections.abc import AsyncIterable, AsyncIterator, Mapping

import grpc

from service import listener
from service.config import ServiceConfig
from service.rpc import Route
from service.status import Refused, Status
from service.tls import Certificates

# A caller that is gone when its answer comes is no fault. gRPC logs each with a long trace.
logging.getLogger("grpc._cython.cygrpc").addFilter(
    lambda record: not str(record.msg).startswith("ExecuteBatchError")
)


class GrpcTransport:
    """A server of grpc.aio."""

    def __init__(self, config: ServiceConfig, certificates: Certificates | None) -> None:
        """Take the port.

        Raises:
          RunError: the address cannot be listened on.
        """
        self._server = grpc.aio.server(options=listener.options(config))
        self.port = listener.listen(self._server, config, certificates)

    async def start(self, routes: Mapping[str, Route]) -> None:
        """Begin to answer."""
        self._server.add_generic_rpc_handlers((Handler(routes),))
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no new calls; returns when those there are have ended, cut off after `grace` s.

        May be called again, with less patience.
        """
        await self._server.stop(grace)


class Handler(grpc.GenericRpcHandler):
    """The routes as gRPC calls them. Messages come and go as bytes."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Hold what gRPC is to call, by path."""
        self._handlers = {
            path: _stream(route) if route.stream else _unary(route)
            for path, route in routes.items()
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a path; None where there is none."""
        return self._handlers.get(handler_call_details.method)


def _unary(route: Route) -> grpc.RpcMethodHandler:
    async def answered(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return await route.run(data, context)
        except Refused as refused:
            await _abort(context, refused.status)
            raise  # not reached: abort raises

    return grpc.unary_unary_rpc_method_handler(answered)


def _stream(route: Route) -> grpc.RpcMethodHandler:
    async def answered(
        messages: AsyncIterable[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        try:
            async for answer in route.run(messages, context):
                yield answer
        except Refused as refused:
            await _abort(context, refused.status)

    return grpc.stream_stream_rpc_method_handler(answered)


async def _abort(context: grpc.aio.ServicerContext, status: Status) -> None:
    await context.abort(grpc.StatusCode[status.code], status.sentence, status.trailing)
