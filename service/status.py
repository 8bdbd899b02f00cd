"""The one table from error to status, whatever carries the call."""

import itertools
import logging
import math
from typing import NamedTuple

from jaxnn.errors import CheckpointError, ConfigError, DataError, ShapeError
from service.errors import (
    Expired,
    Forbidden,
    InvalidRequest,
    NoSuchModel,
    Overloaded,
    Stopping,
    Unauthenticated,
    Unsupported,
)

# By gRPC's names. An error that is not listed is the server's own fault: INTERNAL, with none of
# its text.
STATUS: dict[type[Exception], str] = {
    InvalidRequest: "INVALID_ARGUMENT",
    DataError: "INVALID_ARGUMENT",
    ShapeError: "INVALID_ARGUMENT",
    NoSuchModel: "NOT_FOUND",
    Unsupported: "UNIMPLEMENTED",
    Unauthenticated: "UNAUTHENTICATED",
    Forbidden: "PERMISSION_DENIED",
    Overloaded: "RESOURCE_EXHAUSTED",
    Expired: "DEADLINE_EXCEEDED",
    Stopping: "UNAVAILABLE",
    CheckpointError: "FAILED_PRECONDITION",  # a model that an administrator wants loaded
    ConfigError: "FAILED_PRECONDITION",
}
MAX_SENTENCE = 1000  # characters: it may quote what the caller sent
RETRY_HINT = "grpc-retry-pushback-ms"  # gRPC's own name, proposal A6

_log = logging.getLogger(__name__)
_failures = itertools.count(1)


class Status(NamedTuple):
    """How a call ended that was not answered."""

    code: str  # gRPC's name, as in "NOT_FOUND"
    sentence: str
    trailing: tuple[tuple[str, str], ...] = ()  # metadata that goes with it


class Refused(Exception):  # noqa: N818 - carries a status to the transport
    """A call that ends with a status instead of an answer."""

    def __init__(self, status: Status) -> None:
        """Carry the status."""
        super().__init__(status.sentence)
        self.status = status


def status_of(error: Exception) -> Status:
    """The status that a caller gets for an error.

    An unexpected error is logged with a number, and the caller gets the number only: its text
    could hold paths or data of others.
    """
    if isinstance(error, Refused):
        return error.status
    for kind, code in STATUS.items():
        if isinstance(error, kind):
            hint: tuple[tuple[str, str], ...] = ()
            if isinstance(error, Overloaded):
                hint = ((RETRY_HINT, str(math.ceil(1000 * error.retry_after))),)
            return Status(code, str(error)[:MAX_SENTENCE], hint)
    number = next(_failures)
    _log.error("failure %d while answering a request", number, exc_info=error)
    return Status(
        "INTERNAL",
        f"the server failed on this request: its log says why under failure {number}",
    )
