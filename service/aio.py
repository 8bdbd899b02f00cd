"""grpc.aio as the transport: its calls to `service.edge`, and statuses back. Nothing else."""

import logging
from collections.abc import AsyncIterable, AsyncIterator

import grpc

from service.edge import Edge
from service.rpc import Api, Method
from service.status import Refused, Status

# A caller that is gone when its answer comes is no fault. gRPC logs each with a long trace.
logging.getLogger("grpc._cython.cygrpc").addFilter(
    lambda record: not str(record.msg).startswith("ExecuteBatchError")
)


def handler(api: Api, edge: Edge) -> grpc.GenericRpcHandler:
    """The methods of an API as gRPC calls them. Messages come and go as bytes."""
    return grpc.method_handlers_generic_handler(
        api.service,
        {
            method.name: _stream(api, method, edge) if method.stream else _unary(api, method, edge)
            for method in api.methods
        },
    )


def _unary(api: Api, method: Method, edge: Edge) -> grpc.RpcMethodHandler:
    async def answered(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return await edge.unary(api, method, data, context)
        except Refused as refused:
            await _abort(context, refused.status)
            raise  # not reached: abort raises

    return grpc.unary_unary_rpc_method_handler(answered)


def _stream(api: Api, method: Method, edge: Edge) -> grpc.RpcMethodHandler:
    async def answered(
        messages: AsyncIterable[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        try:
            async for answer in edge.stream(api, method, messages, context):
                yield answer
        except Refused as refused:
            await _abort(context, refused.status)

    return grpc.stream_stream_rpc_method_handler(answered)


async def _abort(context: grpc.aio.ServicerContext, status: Status) -> None:
    await context.abort(grpc.StatusCode[status.code], status.sentence, status.trailing)
