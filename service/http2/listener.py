"""Opening the port for the lean transport, and closing it."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Self

from service.config import ServiceConfig
from service.http2.calls import Shared
from service.http2.connection import Connection
from service.listener import bound
from service.rpc import Route
from service.tls import Certificates, Pair

HANDSHAKE_S = 10.0
LISTENING = 1024  # connections that may wait to be accepted

_log = logging.getLogger(__name__)


class LeanTransport:
    """gRPC over HTTP/2 on the loop's own sockets."""

    def __init__(self, config: ServiceConfig, certificates: Certificates | None) -> None:
        """Take the port.

        Raises:
          RunError: the address cannot be listened on.
        """
        self._config = config
        self._socket = bound(config)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted ones, too
        self._context = _Context(config, certificates) if certificates else None
        self.port = int(self._socket.getsockname()[1])
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def start(self, routes: Mapping[str, Route]) -> None:
        """Begin to answer."""
        shared = Shared(routes, self._config, [0])
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(shared, self._connections),
            sock=self._socket,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S if self._context else None,
            backlog=LISTENING,
        )

    async def stop(self, grace: float) -> None:
        """Take no new calls; returns when those there are have ended, cut off after `grace` s.

        May be called again, with less patience.
        """
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        end = time.monotonic() + grace
        while self._connections:
            for connection in self._connections:  # also such as were in their handshake before
                connection.retire()
            if time.monotonic() >= end:
                break
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()


class _Context(ssl.SSLContext):
    """Gives each new connection the TLS of the certificates as they are then.

    All of it, so that no session of before is resumed by a caller whom the new authorities would
    not let in.
    """

    def __new__(cls, *_: object) -> Self:
        """As `ssl` wants it."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, config: ServiceConfig, certificates: Certificates) -> None:
        """Use the certificates as they are now."""
        self._config, self._certificates = config, certificates
        self._pair = certificates.pair
        self._now = self._made(self._pair)

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """The TLS of a new connection, as the loop asks for it."""
        self._certificates.fetch()
        pair = self._certificates.pair
        if pair is not self._pair:
            try:
                self._now, self._pair = self._made(pair), pair
            except (OSError, ValueError) as error:  # they have changed once more
                _log.error("the certificates of before stay in use: %s", error)
        return self._now.wrap_bio(*given, **named)

    def _made(self, pair: Pair) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        assert config.tls_certificate  # noqa: S101 - else there are no certificates
        context.load_cert_chain(config.tls_certificate, config.tls_key, "")
        if pair.client_ca is not None:
            context.load_verify_locations(cadata=pair.client_ca.decode("ascii"))
            context.verify_mode = ssl.CERT_REQUIRED
        return context
