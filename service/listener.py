"""Opening the port: the one place that decides between TCP and TLS, and sets gRPC's limits."""

import socket

import grpc

from jaxnn.errors import RunError
from service.config import ServiceConfig, address
from service.tls import Certificates


def options(config: ServiceConfig) -> list[tuple[str, int]]:
    """The settings that gRPC itself looks after."""
    age, grace = config.max_connection_age_s, config.max_connection_age_grace_s
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # an answer is smaller than its request
        ("grpc.max_concurrent_streams", config.max_streams),
        ("grpc.max_metadata_size", config.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", config.max_metadata_bytes),
        # Two servers on one port would share callers by chance; workers share them on purpose.
        ("grpc.so_reuseport", int(config.workers > 1)),
        ("grpc.max_connection_age_ms", round(1000 * age) or 2**31 - 1),
        ("grpc.max_connection_age_grace_ms", min(round(1000 * grace), 2**31 - 1)),
        # gRPC's own limit of 300 s would end clients' connections with "too many pings".
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            round(1000 * config.min_ping_interval_s),
        ),
    ]


def certificates(config: ServiceConfig) -> Certificates | None:
    """What the server shows of itself; None for plain TCP.

    Raises:
      ConfigError: the files cannot be used.
    """
    if not (config.tls_certificate and config.tls_key):
        return None
    return Certificates(config.tls_certificate, config.tls_key, config.tls_client_ca)


def listen(
    server: grpc.aio.Server, config: ServiceConfig, certificates: Certificates | None
) -> int:
    """Opens the port, and returns its number.

    Raises:
      RunError: the address cannot be listened on.
    """
    wanted = address(config.host, config.port)
    bound(config).close()  # its error says why, and gRPC would log a line of its own
    try:
        if certificates:
            return server.add_secure_port(wanted, certificates.credentials())
        return server.add_insecure_port(wanted)
    except RuntimeError as error:
        raise _unavailable(wanted, error) from error


def bound(config: ServiceConfig) -> socket.socket:
    """A socket that has the address and does not listen; workers can have it beside it.

    Raises:
      RunError: the address cannot be had.
    """
    found = None
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM
        )[0]
        found = socket.socket(family, kind)
        # Connections of a server that has just ended linger; they keep the port from nobody.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.workers > 1:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(where)
    except (OSError, UnicodeError) as error:
        if found:
            found.close()
        raise _unavailable(address(config.host, config.port), error) from error
    return found


def _unavailable(where: str, error: Exception) -> RunError:
    return RunError(
        f"cannot listen on {where} ({getattr(error, 'strerror', None) or error}): "
        "choose another address, or port 0 for any free one"
    )
