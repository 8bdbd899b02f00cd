"""Server reflection: what grpcurl and its like ask a server to learn what it serves."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from jaxnn.errors import JaxnnError
from service.codec import parsed
from service.rpc import Route, Wire
from service.status import Refused, status_of

SERVICE = reflection.SERVICE_NAME


def routes(services: Iterable[str], pool: DescriptorPool) -> dict[str, Route]:
    """The reflection service for some services, whose messages are in the pool."""
    servicer = reflection.ReflectionServicer((*services, SERVICE), pool)

    async def told(messages: AsyncIterable[bytes], wire: Wire) -> AsyncIterator[bytes]:
        async for data in messages:
            try:
                request = parsed(reflection_pb2.ServerReflectionRequest, data)
            except JaxnnError as error:
                raise Refused(status_of(error)) from None
            for answer in servicer.ServerReflectionInfo(iter([request]), None):
                yield answer.SerializeToString()

    return {f"/{SERVICE}/ServerReflectionInfo": Route(told, stream=True)}
