"""The seam between the two APIs and what carries them: one call, as a value.

An API is a table of methods, each a function from a request's bytes and a `Call` to an answer's
bytes, or an error of `service.status.STATUS`. Nothing in it knows gRPC: `service.aio` carries it
over grpc.aio, and another transport need only bring an object with the three methods of `Wire`.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol

Handler = Callable[[bytes, "Call"], Awaitable[bytes]]


class Wire(Protocol):
    """What a transport knows of one call; grpc.aio's context is one."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """What the caller sent before the request."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""

    def peer(self) -> str:
        """Where the caller is, as in "ipv4:127.0.0.1:50000"."""


class Method(NamedTuple):
    """One method of an API."""

    name: str  # as in "Classify"
    handler: Handler
    stream: bool = False  # a stream of requests, each answered by the handler, in order
    # In a stream, the answer that tells of an error, from the request's bytes, the status's code
    # and sentence, and the call; None for an error that ends the stream.
    on_error: Callable[[bytes, str, str, "Call"], bytes | None] | None = None
    control: bool = False  # changes what is served: for administrators


class Route(NamedTuple):
    """What a transport runs for one path, as in "/jaxnn.v1.DigitClassifier/Classify".

    run: (request's bytes, Wire) -> awaitable of the answer's bytes; where `stream` is true,
    (asynchronous iterable of requests, Wire) -> asynchronous iterator of answers. Both end with
    `status.Refused` or well.
    """

    run: Callable[[Any, Wire], Any]
    stream: bool = False


class Api(NamedTuple):
    """A service and its methods."""

    service: str  # as in "jaxnn.v1.DigitClassifier"
    short: str  # for metrics and logs, as in "v1"
    methods: tuple[Method, ...]


class Call:
    """What is known of one request and its answer; the handlers write down what they did.

    In a stream each message is a call of its own. Times in seconds, by time.monotonic().
    """

    __slots__ = (
        *("wire", "api", "method", "arrived", "caller", "priority", "charge", "request_id"),
        *("model", "version", "rows", "batch_rows", "released"),
        *("prepare", "queue", "assembly", "compute", "encode"),
    )

    def __init__(self, api: str, method: str, wire: Wire) -> None:
        """Begin."""
        self.wire = wire
        self.api = api  # the API's short name
        self.method = method
        self.arrived = time.monotonic()
        self.caller = ""  # whose call it is, where tokens say so
        self.priority = 0  # what the caller's token says, for requests that do not
        self.charge: Callable[[int], None] | None = None  # counts images against a caller's rate
        self.request_id = ""
        self.model = self.version = ""  # that answered
        self.rows = 0  # images asked about
        self.batch_rows = 0  # images of the batch they were computed in
        self.released = ""  # why that batch was started
        self.prepare = 0.0  # decoding pictures
        self.queue = 0.0  # waiting for a turn
        self.assembly = 0.0  # putting the batch together
        self.compute = 0.0
        self.encode = 0.0  # writing the answer

    def deadline(self) -> float:
        """When the caller will wait no longer; infinity where it has not said."""
        left = self.wire.time_remaining()
        return float("inf") if left is None else time.monotonic() + left

    def metadata(self, key: str) -> str | None:
        """The first value of a metadata key in lower case; None where it was not sent."""
        for name, value in self.wire.invocation_metadata():
            if name == key:
                return value if isinstance(value, str) else value.decode("latin-1")
        return None
