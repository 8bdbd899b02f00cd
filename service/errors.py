"""Errors of the service: one class for each thing that can be wrong with a call.

`service.status` turns them into gRPC codes; the client raises the first and the last.
"""

from jaxnn.errors import JaxnnError, RunError


class InvalidRequest(JaxnnError, ValueError):  # noqa: N818 - reads as the status that it becomes
    """A request that cannot be answered as it stands: the caller has to change it."""


class NoSuchModel(JaxnnError, LookupError):  # noqa: N818
    """No model, or no version of it, of this name is served."""


class Unsupported(JaxnnError, NotImplementedError):  # noqa: N818
    """A request of a kind that this server does not serve, or not with its settings."""


class Unauthenticated(JaxnnError, PermissionError):  # noqa: N818
    """The caller has not shown a token that the server knows."""


class Forbidden(JaxnnError, PermissionError):  # noqa: N818
    """The caller is known, and may not do this."""


class Overloaded(JaxnnError, RuntimeError):  # noqa: N818
    """There is no room for the request now, or its caller has had its share."""

    exit_code = 1

    def __init__(self, message: str, retry_after: float) -> None:
        """Keep beside the sentence in how many seconds it is worth trying again."""
        super().__init__(message)
        self.retry_after = retry_after


class Expired(JaxnnError, TimeoutError):  # noqa: N818
    """The request's time was over before its turn came."""

    exit_code = 1


class Stopping(JaxnnError, RuntimeError):  # noqa: N818 - a state, not a mistake
    """The server takes no more requests: another may, or this one when it is back."""

    exit_code = 1


class ServiceError(RunError):
    """The request was good, but the server could not be reached or did not answer it.

    `code` is the gRPC status code's name, such as "UNAVAILABLE".
    """

    def __init__(self, message: str, code: str) -> None:
        """Keep the status code beside the sentence."""
        super().__init__(message)
        self.code = code
