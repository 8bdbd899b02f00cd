"""Opens gRPC channels, for threads or for asyncio, the same way for every client."""

import itertools
import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc

from jaxnn.errors import ConfigError
from service.calling.connection import Connection, Target, check_token
from service.config import MAX_MESSAGE_BYTES

# Requests go to the servers behind a name in turn, and to none that says it is not well. gRPC
# knows no health checks for a single server: it would refuse what a stopping server still answers.
_SPREAD = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}

Metadata = tuple[tuple[str, str], ...]


def open_channels(
    transport: ModuleType, target: Target, connection: Connection, count: int
) -> list[Any]:
    """Channels that connect on their first call.

    Args:
      transport: `grpc` for threads, `grpc.aio` for asyncio.
      target: where the servers are.
      connection: TLS and token.
      count: channels, each with a connection of its own to every server.

    Raises:
      ConfigError: fewer than one channel, a file of TLS that cannot be read, or a token that
        would travel unencrypted.
    """
    if count < 1:
        raise ConfigError(f"connections is {count}, expected 1 or more")
    check_token(target, connection)
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", -1),  # the server says what is too much
        # gRPC itself waits a second before it connects again, and fails every call until
        # then: our retries come sooner.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.enable_retries", 0),  # ours are enough: nothing is tried twice over
        ("grpc.use_local_subchannel_pool", 1),  # channels share no connection
        # Through a proxy of the environment, this machine would mean the proxy's machine.
        ("grpc.enable_http_proxy", 0 if target.here else 1),
    ]
    if target.several:
        options.append(("grpc.service_config", json.dumps(_SPREAD)))
    if connection.tls_name:
        options.append(("grpc.ssl_target_name_override", connection.tls_name))
    opener = _opener(transport, connection)
    return [opener(target.uri, options) for _ in range(count)]


def metadata_of(connection: Connection) -> Metadata:
    """What goes with every call."""
    token = connection.token
    return (("authorization", f"Bearer {token}"),) if token else ()


def methods_of(
    channels: Sequence[Any], service: str, messages: Mapping[str, tuple[Any, Any]]
) -> dict[str, Iterator[Any]]:
    """What calls each method of a service, by each channel in turn, for ever.

    Args:
      channels: as opened here.
      service: its full name.
      messages: the kinds of request and response of each method.
    """
    return {
        name: itertools.cycle(
            [
                channel.unary_unary(
                    f"/{service}/{name}", request.SerializeToString, response.FromString
                )
                for channel in channels
            ]
        )
        for name, (request, response) in messages.items()
    }


def _opener(transport: ModuleType, connection: Connection) -> Callable[[str, Any], Any]:
    if not connection.encrypted():
        return lambda uri, options: transport.insecure_channel(uri, options=options)
    files = connection.tls_ca, connection.tls_key, connection.tls_certificate
    credentials = grpc.ssl_channel_credentials(*map(_pem, files))
    _check_files(connection)
    return lambda uri, options: transport.secure_channel(uri, credentials, options=options)


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(2**20)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}), expected a PEM file of a certificate or key"
        ) from error
    if b"-----BEGIN " not in data:
        raise ConfigError(f"{path} holds no -----BEGIN line, expected a PEM file")
    return data


def _check_files(connection: Connection) -> None:
    """Python's own TLS says what is wrong with a file, where gRPC's only fails to connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if connection.tls_ca:
        try:
            context.load_verify_locations(connection.tls_ca)
        except ssl.SSLError as error:
            raise ConfigError(
                f"{connection.tls_ca} holds no certificate that can be read: "
                "expected those of the authorities, as PEM"
            ) from error
    if connection.tls_certificate:
        try:
            context.load_cert_chain(connection.tls_certificate, connection.tls_key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"{connection.tls_certificate} and {connection.tls_key} are no certificate and "
                "private key that fit each other: expected both as PEM, the key not encrypted"
            ) from error
