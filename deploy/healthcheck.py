"""Asks the server beside which it runs whether it is ready: exit code 0, or 1 and a sentence.

    python healthcheck.py [MODEL]

For the health check of a container, and for probes that run a command: Kubernetes' own gRPC
probes speak no TLS. The server's port and certificates are read where the server reads them: in
the environment, and in the file of JAXNN_SERVE_CONFIG. Without a MODEL any model will do.
"""

import os
import socket
import ssl
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jaxnn.errors import JaxnnError
from service import settings
from service.config import ServiceConfig, address

PATIENCE_S = 3.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to be replaced, not listened on


def main(model: str = "") -> int:
    """Asks; returns the exit code."""
    try:
        config = settings.base(ServiceConfig, [], os.environ)
        with _channel(config) as channel:
            found = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=model), timeout=PATIENCE_S
            )
    except grpc.RpcError as error:
        print(f"no answer: {error.code().name}: {error.details()}")
        return 1
    except (JaxnnError, OSError) as error:
        print(f"no answer: {error}")
        return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(found.status)
    print(status)
    return 0 if status == "SERVING" else 1


def _channel(config: ServiceConfig) -> grpc.Channel:
    """To the server; with TLS only to one that has the certificate of the settings.

    Where the server asks for a certificate it is shown its own, so that this has to be one that it
    accepts from callers.
    """
    host = LOOPBACK.get(config.host, config.host)
    target = address(host, config.port)
    options: list[tuple[str, object]] = [("grpc.enable_http_proxy", 0)]
    if not (config.tls_certificate and config.tls_key):
        return grpc.insecure_channel(target, options=options)
    chain = config.tls_certificate.read_bytes()
    own = (config.tls_key.read_bytes(), chain) if config.tls_client_ca else (None, None)
    options.append(("grpc.ssl_target_name_override", _name(host, config)))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(chain, *own), options=options)


def _name(host: str, config: ServiceConfig) -> str:
    """A name of the certificate that the server shows: it need not be one for this address."""
    context = ssl.create_default_context(cafile=config.tls_certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, config.port), PATIENCE_S) as plain,
        context.wrap_socket(plain) as encrypted,
    ):
        certificate = encrypted.getpeercert() or {}
    names = certificate.get("subjectAltName", ())
    return str(names[0][1]).replace("*", "any") if names else host


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
