"""What both clients are made of: settings, connections, and how a call is sent."""

from types import ModuleType
from typing import Any, ClassVar

from service.calling.calls import MESSAGES, Caller
from service.calling.channels import metadata_of, methods_of, open_channels
from service.calling.connection import PLAIN, Connection, parse_target
from service.calling.steps import Call
from service.config import MAX_MESSAGE_BYTES

SERVICE = "jaxnn.v1.DigitClassifier"


class Client:
    """Settings and error-free construction, the same for both clients."""

    _transport: ClassVar[ModuleType]

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 30.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        connection: Connection = PLAIN,
        connections: int = 1,
        in_flight: int = 4,
    ) -> None:
        """Connects on the first call.

        Args:
          target: the server's HOST:PORT. Several servers as IP:PORT,IP:PORT, or dns:///NAME:PORT
            for all behind a name, are asked in turn, those left out that say they are not well.
          timeout: seconds that one method may take in all, retries included; math.inf is no limit.
          max_message_bytes: the largest request to send; longer arrays go in several.
          connection: TLS and token.
          connections: to each server; one is enough for a few thousand requests a second.
          in_flight: parts of a long array, or arrays of a stream, that are under way together.

        Raises:
          ConfigError: the target names no server, a message cannot hold one image, a number is
            below 1, a file of TLS cannot be read, or a token would travel unencrypted.
        """
        self._caller = Caller(target, max_message_bytes, in_flight)
        self._timeout = timeout
        found = parse_target(target)
        self._channels = open_channels(self._transport, found, connection, connections)
        self._metadata = metadata_of(connection)
        self._methods = methods_of(self._channels, SERVICE, MESSAGES)

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    def _call(self, step: Call) -> Any:
        """Sends a request, by each connection in turn."""
        method = next(self._methods[step.method])
        return method(step.request, timeout=step.timeout, metadata=self._metadata)
