"""The one table from error to gRPC status, and the guard that every call runs under."""

import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from jaxnn.errors import DataError, ShapeError
from service.errors import InvalidRequest, Stopping

# An error that is not listed is the server's own fault: INTERNAL, with none of its text.
STATUS: dict[type[Exception], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    DataError: grpc.StatusCode.INVALID_ARGUMENT,
    ShapeError: grpc.StatusCode.INVALID_ARGUMENT,
    Stopping: grpc.StatusCode.UNAVAILABLE,
}

_log = logging.getLogger(__name__)
_failures = itertools.count(1)


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status code and the sentence that a caller gets for an error.

    An unexpected error is logged with a number, and the caller gets the number only: its text
    could hold paths or data of others.
    """
    for kind, code in STATUS.items():
        if isinstance(error, kind):
            return code, str(error)
    number = next(_failures)
    _log.error("failure %d while answering a request", number, exc_info=error)
    sentence = f"the server failed on this request: its log says why under failure {number}"
    return grpc.StatusCode.INTERNAL, sentence


@asynccontextmanager
async def guard(context: grpc.aio.ServicerContext, where: str = "") -> AsyncIterator[None]:
    """Ends the call with the right status where the work inside raises.

    Args:
      context: of the call.
      where: what to put before the sentence, such as "message 3: ".
    """
    try:
        yield
    except grpc.aio.AbortError:  # already ended
        raise
    except Exception as error:  # the last place that can answer
        code, sentence = status_of(error)
        await context.abort(code, where + sentence)
