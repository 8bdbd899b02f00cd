"""The errors that clients raise, each one sentence that says what to do."""

import grpc

from jaxnn.errors import JaxnnError
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
        return _REFUSALS[code](details or f"the server at {target} answered with {code.name}")
    sentence = f"the server at {target} answered {method} with {code.name}: {details}"
    if code is grpc.StatusCode.UNAVAILABLE:
        sentence = _unreached(target, details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        sentence = (
            f"the server at {target} did not answer within {timeout:g} s: "
            "give a longer timeout, or fewer images"
        )
    return ServiceError(sentence, code.name)


def _unreached(target: str, details: str) -> str:
    """Why no server could be reached; gRPC's own words only help where TLS is the reason."""
    reasons = details.lower()
    cause = details.rpartition("last error: ")[2]
    if "verify_failed" in reasons or "peer name" in reasons or "hostname verification" in reasons:
        return (
            f"the certificate of the server at {target} is not to be trusted: give the authority "
            f"that signed it (tls_ca), or the name that it was made for (tls_name): {cause}"
        )
    if "handshake failed" in reasons:
        return f"no TLS connection to {target}: is TLS on at both ends? {cause}"
    if "failed to connect" in reasons and "socket closed" in reasons:
        return (
            f"the server at {target} closes every connection: is TLS on at both ends, "
            "and does it ask for a client's certificate?"
        )
    if "unhealthy" in reasons:
        return f"every server at {target} says that it is not well: wait, or see its log"
    return f"no server answers at {target}: start one with `jaxnn serve`, or check the address"
