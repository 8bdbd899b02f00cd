"""The errors that clients raise, each one sentence that says what to do."""

import re

import grpc

from jaxnn.errors import JaxnnError
from service.calling.connection import TOKEN, spelled
from service.errors import Forbidden, InvalidRequest, NoSuchModel, ServiceError, Unauthenticated

# What the caller has to change. The server's own sentence says what.
_REFUSALS: dict[grpc.StatusCode, type[JaxnnError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NoSuchModel,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
}


def failure(error: grpc.RpcError, target: str, method: str, timeout: float) -> JaxnnError:
    """The error to raise for a call that failed for good.

    Args:
      error: as gRPC raised it.
      target: the server, as the caller named it.
      method: that was called.
      timeout: seconds that the caller gave it.
    """
    code, details = error.code(), " ".join((error.details() or "").split())
    if code in _REFUSALS:
        sentence = details or f"the server at {target} answered with {code.name}"
        if code is grpc.StatusCode.UNAUTHENTICATED:
            sentence += f" (the client's token: {TOKEN} or --token on the command line)"
        return _REFUSALS[code](sentence)
    sentence = f"the server at {target} answered {method} with {code.name}: {details}"
    if code is grpc.StatusCode.UNAVAILABLE:
        sentence = _unreached(target, details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        sentence = (
            f"the server at {target} did not answer within {timeout:g} s: give it more time "
            "(timeout), or fewer images"
        )
    return ServiceError(sentence, code.name)


def _unreached(target: str, details: str) -> str:
    """Why no server could be reached; gRPC's own words only help where TLS is the reason."""
    reasons = details.lower()
    cause = details.rpartition("last error: ")[2].removesuffix(": OK")  # of gRPC's own status
    cause = re.sub(r"^UNKNOWN: \S+: ", "", cause)  # and the address again
    if "verify_failed" in reasons or "peer name" in reasons or "hostname verification" in reasons:
        return (
            f"the certificate of the server at {target} is not to be trusted "
            f"({cause.rpartition(': ')[2].rstrip('.').lower()}): name the authority that signed it "
            f"with {spelled('tls_ca')}, or what it was made for with {spelled('tls_name')}"
        )
    if "handshake failed" in reasons:
        return f"no TLS connection to {target} ({cause}): is TLS on at both ends?"
    if "failed to connect" in reasons and "socket closed" in reasons:
        return (
            f"the server at {target} closes every connection: if it speaks TLS, give "
            f"{spelled('tls_ca')}, and if it asks for a client's certificate, "
            f"{spelled('tls_certificate')}"
        )
    if "unhealthy" in reasons:
        return f"every server at {target} says that it is not well: wait, or see its log"
    return f"no server answers at {target}: start one with `jaxnn serve`, or check the address"
